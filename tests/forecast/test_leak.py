"""Nothing reaches a forecast from the sea, from across a gap, or from the days it is of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.engine import step
from tds_jax.forecast.days import DAY
from tests.forecast.small import SEA, batch_of, record, small_task, write_record

# Everything that could carry a value from one place or day to another is on.
OPEN = {
    "model__extra_inputs": ("land_mask", "day_of_year", "coordinates"),
    "model__local_days": 2,
    "model__hidden": 8,
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_record(tmp_path_factory.mktemp("leak") / "daily.nc", gap=(290, 310))


@pytest.fixture(scope="module", params=["convlstm", "cnn3d_lstm_lite"])
def setup(request, path, tmp_path_factory):
    """(task, forecast of a batch as a jitted function, gradient of the loss by its leaves)."""
    name = request.param
    task = small_task(path, tmp_path_factory.mktemp("cache"), **OPEN, model__name=name)
    graphdef, params, rest = step.split(task.init(nnx.Rngs(0)))
    # Off zero, where a linear map starts and would hide what passes through it.
    params = jax.tree.map(lambda p: p + 0.01, params)
    rest = step.replace_leaves(rest, task.fit_statistics())
    model = nnx.merge(graphdef, params, rest)
    run = jax.jit(lambda batch: model(batch, False))
    pull = jax.jit(jax.grad(lambda fields, batch: model(batch | {"fields": fields}, False).sum()))
    return task, run, pull


def arrays(batch):
    return jax.tree.map(jnp.asarray, batch)


def test_what_stands_in_the_sea_reaches_no_coast(setup):
    task, run, pull = setup
    batch = batch_of(task.source("test"), range(2))
    assert not batch["present"][:, :, SEA].any()
    expected = run(arrays(batch))
    for planted in (1e6, np.nan, np.inf):
        fields = batch["fields"].copy()
        fields[:, :, SEA] = planted
        np.testing.assert_array_equal(run(arrays(batch | {"fields": fields})), expected)
    gradient = np.asarray(pull(jnp.asarray(batch["fields"]), arrays(batch)))
    assert np.all(gradient[:, :, SEA] == 0)
    # The test can fail: said to be present, the same value bleeds into the land beside it.
    fields[:, :, SEA] = 1.0
    forged = batch | {"fields": fields, "present": np.ones_like(batch["present"])}
    assert np.abs(run(arrays(forged)) - expected)[..., ~SEA].max() > 1e-3


def test_a_missing_cell_is_as_good_as_a_usual_one(setup):
    """A hole in the land is filled with what the climatology says of that day."""
    task, run, _ = setup
    batch = batch_of(task.source("test"), range(1))
    hole = {name: leaf.copy() for name, leaf in batch.items()}
    hole["present"][0, 1, 3, 3] = 0
    usual = {name: leaf.copy() for name, leaf in batch.items()}
    statistics = task.fit_statistics()
    phase = 2 * np.pi * batch["phase"][0, 1]
    basis = np.array([1, np.sin(phase), np.cos(phase)])
    usual["fields"][0, 1, 3, 3] = basis @ statistics["centre"][:, 3, 3]
    # f32: the usual value, subtracted again, leaves rounding of 0.3 / 0.02 units.
    np.testing.assert_allclose(run(arrays(hole)), run(arrays(usual)), atol=1e-5)


def test_no_window_crosses_a_gap_or_shares_a_target(path, tmp_path):
    task = small_task(path, tmp_path)
    seen = {}
    for split in ("train", "val", "test"):
        source = task.source(split)
        for index in range(len(source)):
            first = source.starts[index]
            days = task.fields.days[first : first + 7]
            assert np.all(np.diff(days) == DAY), (split, index)
            seen.setdefault(split, set()).update(days.tolist())
    # data.split_gap = a whole window: not even an input day is in two splits.
    assert not seen["train"] & seen["val"]
    assert not seen["val"] & seen["test"]
    unbroken = sum(b - a == 6 * DAY for a, b in zip(
        task.fields.days, task.fields.days[6:], strict=False))  # fmt: skip
    assert unbroken == 380 - 6 - 6  # of 380 days, less those at the end and before the gap


def test_days_beyond_a_gap_and_days_forecast_change_nothing_before(path, tmp_path):
    """The same record with nonsense from some day on gives the same examples up to that day."""
    data = record()
    data["swvl1"][330:] = 1e6
    planted = tmp_path / "planted.nc"
    data.isel(time=np.setdiff1d(np.arange(400), np.arange(290, 310))).to_netcdf(
        planted, engine="scipy"
    )
    # All that is fitted: climatology, damping, linear map and spread.
    fitted = {"model__prior": "linear", "model__local_days": 2, "model__noise": 1}
    honest, other = (small_task(p, tmp_path, **fitted) for p in (path, planted))
    a, b = (batch_of(task.source("val"), range(8)) for task in (honest, other))
    for name in ("fields", "target", "phase"):
        np.testing.assert_array_equal(a[name], b[name])
    own, planted = (task.fit_statistics() for task in (honest, other))
    assert {"centre", "scale", "damping", "linear", "spread"} <= set(own)
    jax.tree.map(np.testing.assert_array_equal, own, planted)  # of train days, all before
    ends = [task.source("test").example(0, None) for task in (honest, other)]
    assert (ends[1]["target"] > 1e5).any(), "the test can fail: there the nonsense is seen"


def test_a_forecast_does_not_look_at_its_own_days(setup):
    task, run, _ = setup
    batch = batch_of(task.source("test"), range(2))
    expected = run(arrays(batch))
    blind = batch | {"target": np.full_like(batch["target"], np.nan)}
    blind["weight"] = np.zeros_like(batch["weight"])
    np.testing.assert_array_equal(run(arrays(blind)), expected)
