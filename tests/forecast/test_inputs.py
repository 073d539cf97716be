"""What a forecast network is given beside the fields: by hand, from the grid and the days."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.engine.step import replace_leaves, split
from tds_jax.forecast.model import Forecaster
from tests.forecast.small import LAT, LON, SEA, batch_of, small_task, write_record

EXTRA = ("land_mask", "coordinates", "day_of_year")


class Seen(nnx.Module):
    """A network that keeps what it is given and answers 0."""

    def __init__(self, leads):
        self.leads = leads

    def __call__(self, x, train, keys):
        self.x = nnx.data(x)
        return jnp.zeros((x.shape[0], self.leads, *x.shape[2:4]))


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    base = tmp_path_factory.mktemp("inputs")
    path = write_record(base / "record.nc")
    return small_task(path, base, model__extra_inputs=EXTRA)


def given(task, batch):
    """(B, T, H, W, C) what the network sees of a batch, after the statistics of the train split."""
    model = Forecaster(Seen(task.spec.leads), task.around())
    graphdef, params, rest = split(model)
    model = nnx.merge(graphdef, params, replace_leaves(rest, task.fit_statistics()))
    model(jax.tree.map(jnp.asarray, batch), False)
    return np.asarray(model.network.x)


def test_every_day_comes_with_the_maps_of_its_cells_and_its_own_season(task):
    batch = batch_of(task.source("test"), (0, 40))
    seen = given(task, batch)
    assert seen.shape == (2, 4, 5, 6, 2 + 1 + 3 + 2)
    np.testing.assert_array_equal(seen[..., 2], np.broadcast_to(~SEA, seen.shape[:4]))
    lat, lon = np.radians(LAT)[:, None], np.radians(LON)[None, :]
    for channel, wanted in enumerate((np.sin(lat), np.sin(lon), np.cos(lon)), start=3):
        # f32 of a number below 1
        wanted = np.broadcast_to(wanted, seen.shape[:4])
        np.testing.assert_allclose(seen[..., channel], wanted, atol=1e-7)
    # Phases are of the days' own dates: the last days of the input, not of those to come.
    days = task.fields.days[batch["start"][:, None] + np.arange(4)]
    begin = days.astype("datetime64[Y]").astype("datetime64[D]")
    length = (begin + 366).astype("datetime64[Y]").astype("datetime64[D]") - begin
    turn = 2 * np.pi * ((days - begin) / length)
    for channel, wanted in ((6, np.sin(turn)), (7, np.cos(turn))):
        middle = seen[:, :, 2, 3, channel]
        np.testing.assert_allclose(middle, wanted, atol=2e-6)  # f32 phases, times 2π
        np.testing.assert_array_equal(
            seen[..., channel], middle[:, :, None, None] * np.ones((5, 6))
        )
    step = np.diff(seen[:, :, 0, 0, 6:], axis=1)
    assert (np.linalg.norm(step, axis=-1) > 0.01).all()  # every day has its own


def test_a_crop_comes_with_the_maps_of_its_place(tmp_path):
    path = write_record(tmp_path / "record.nc")
    task = small_task(path, tmp_path, model__extra_inputs=EXTRA, data__crop=(3, 4))
    batch = batch_of(task.source("val"), (3,))
    whole = given(task, batch)
    row, column = 2, 1
    part = {
        name: leaf[:, :, row : row + 3, column : column + 4] if leaf.ndim > 3 else leaf
        for name, leaf in batch.items()
    } | {"origin": np.int32([[row, column]])}
    seen = given(task, part)
    np.testing.assert_array_equal(seen, whole[:, :, row : row + 3, column : column + 4])
