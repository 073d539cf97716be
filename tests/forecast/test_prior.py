"""The linear prior: what is fitted is what the model applies, to the days and cells it says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax import config as configuration
from tds_jax import tasks
from tds_jax.engine.step import replace_leaves, split
from tds_jax.errors import UserError
from tds_jax.forecast import linear
from tds_jax.forecast.measured import measured
from tests.data.crews import together
from tests.forecast.small import SEA, batch_of, small_config, small_task, write_record

MEANS = (2, 4)
LINEAR = {
    "model__prior": "linear",
    "model__local_days": 2,
    "model__local_kernel": 3,
    "model__local_means": MEANS,
    "model__local_ridge": 1e-4,
}


FAR = {"model__local_wide": (1, 3), "model__local_place": True}


@pytest.fixture(scope="module", params=({}, FAR), ids=("near", "far"))
def task(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prior")
    return small_task(write_record(folder / "daily.nc"), folder, **LINEAR | request.param)


def far_by_hand(maps, last):
    """(5, 6, F): means of 5 x 5 cells around those 5 columns to the left, here and to the right, 0
    around a cell that is none; then 5 x 5 cells of the last day times the row, and times the
    column, from -1 to 1."""
    padded = np.pad(maps, ((2, 2), (2, 2), (0, 0)))
    none = np.zeros(maps.shape[-1])
    near = np.pad(last, ((2, 2), (2, 2), (0, 0)))
    found = []
    for i, j in np.ndindex(5, 6):
        blocks = [
            padded[i : i + 5, k : k + 5].mean(axis=(0, 1)) if 0 <= k < 6 else none
            for k in (j - 5, j, j + 5)
        ]
        square = near[i : i + 5, j : j + 5].ravel()
        found.append(np.concatenate([*blocks, (i / 2 - 1) * square, (j / 2.5 - 1) * square]))
    return np.reshape(found, (5, 6, -1))


def test_what_several_fit_on_a_part_of_the_days_each_is_what_one_fits(task):
    alone = task.fit_statistics()
    given = task.fields, task.split["train"], task.config, task.around()
    for found in together(3, lambda crew: measured(*given, crew)):
        assert found.keys() == alone.keys()
        for name, value in alone.items():
            # f64 sums in another order; the weights are solved for, then rounded to f32.
            tolerance = 1e-5 if value.dtype == np.float32 else 1e-9
            largest = np.abs(value).max()
            np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance * largest)


def test_a_silent_networks_forecast_is_the_least_squares_of_train_days(task):
    """By hand, on the train windows: inputs of all variables around a cell, means of its own."""
    found = task.fit_statistics()
    graphdef, params, rest = split(task.init(nnx.Rngs(0)))
    model = nnx.merge(graphdef, jax.tree.map(jnp.zeros_like, params), replace_leaves(rest, found))
    source = task.source("train")
    batch = jax.tree.map(jnp.asarray, batch_of(source, range(len(source))))
    run = jax.jit(lambda batch: (model(batch, False), model.normalized(batch)))
    forecasts, x = (np.asarray(each, np.float64) for each in run(batch))

    scale = found["scale"].reshape(-1)[0]
    phase = np.asarray(batch["phase"], np.float64)[:, 4:]
    waves = np.stack([np.ones_like(phase), np.sin(2 * np.pi * phase), np.cos(2 * np.pi * phase)])
    usual = np.einsum("kbn,khw->bnhw", waves, found["centre"][..., 0])
    damped = found["damping"][None] * x[:, -1, None, ..., 0]
    rows, targets = [], []
    for example in range(len(source)):
        maps = np.concatenate([x[example, -2], x[example, -1]], axis=-1)  # older day first
        around = linear.patches(maps, (3, 3), False).reshape(5, 6, -1)
        means = [x[example, -n:, ..., 0].mean(axis=0) for n in MEANS]
        inputs = [around, np.stack(means, axis=-1)]
        if task.config.model.local_wide:
            inputs.append(far_by_hand(maps, x[example, -1]))
        rows.append(np.concatenate(inputs, axis=-1)[~SEA])
        truth = (np.asarray(batch["target"][example]) - usual[example]) / scale - damped[example]
        targets.append(truth[:, ~SEA].T)
    rows, targets = np.concatenate(rows), np.concatenate(targets)
    gram = rows.T @ rows
    gram += LINEAR["model__local_ridge"] * np.trace(gram) / len(gram) * np.eye(len(gram))
    explained = rows @ np.linalg.solve(gram, rows.T @ targets)
    wanted = usual[..., ~SEA] + scale * (
        damped[..., ~SEA] + np.moveaxis(explained.reshape(len(source), -1, 3), 2, 1)
    )
    # f32 of values near 0.3 and weights stored as f32; what is explained spreads by 5e-3.
    np.testing.assert_allclose(forecasts[..., ~SEA], wanted, atol=2e-5)
    assert explained.std() * scale > 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__local_days": 0}, "model.prior='linear' reads model.local_days=0 days"),
        ({"model__normalize": "none"}, "model.prior='linear' damps what differs"),
        ({"model__prior": "last", "model__noise": 1}, "model.noise=1 spreads as the prior errs"),
        ({"model__local_wide": (4, 5)}, r"model.local_wide=\(4, 5\) must be rows and columns"),
        ({"model__local_folds": 1}, "model.local_folds=1 leaves out all days"),
    ],
)
def test_what_cannot_be_is_refused(changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        small_config("", tmp_path, **LINEAR | changes)


def test_means_longer_than_the_input_are_refused(tmp_path):
    config = small_config("", tmp_path, **LINEAR | {"model__local_means": (9,)})
    with pytest.raises(UserError, match=r"model.local_means=\(9,\) is more than data.input_days=4"):
        tasks.get(config)


def test_blocks_beyond_the_grid_and_days_too_few_for_folds_are_refused(tmp_path):
    path = write_record(tmp_path / "daily.nc", count=60)
    with pytest.raises(UserError, match=r"model.local_wide=\(3, 3\) reaches \[5, 5\] cells"):
        small_task(path, tmp_path, **LINEAR | {"model__local_wide": (3, 3)})
    task = small_task(path, tmp_path, **LINEAR | {"model__local_folds": 6})
    with pytest.raises(UserError, match=r"cuts 36 train days into blocks of 6.* use 5 at most"):
        task.fit_statistics()


def test_an_older_run_is_as_it_was(tmp_path):
    values = small_config("", tmp_path).to_dict()
    later = {
        "model": (
            *("local_means", "local_ridge", "local_folds", "local_wide", "local_place"),
            *("noise", "floor"),
        ),
        "loss": ("crps_weight", "members"),
        "eval": ("members", "dropout"),
    }
    for group, names in later.items():
        for name in names:
            del values[group][name]
    config = configuration.resolve(tasks.today(values), tasks.groups("forecast"))
    assert (config.model.noise, config.model.floor, config.loss.crps_weight) == (0, (), 0.0)
