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


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prior")
    return small_task(write_record(folder / "daily.nc"), folder, **LINEAR)


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
        around = linear.patches(maps, 3, False).reshape(5, 6, -1)
        means = [x[example, -n:, ..., 0].mean(axis=0) for n in MEANS]
        rows.append(np.concatenate([around, np.stack(means, axis=-1)], axis=-1)[~SEA])
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
        ({"model__floor": (0.0, 1.0)}, r"model.floor=\(0.0, 1.0\) must be one number"),
    ],
)
def test_what_cannot_be_is_refused(changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        small_config("", tmp_path, **LINEAR | changes)


def test_means_longer_than_the_input_are_refused(tmp_path):
    config = small_config("", tmp_path, **LINEAR | {"model__local_means": (9,)})
    with pytest.raises(UserError, match=r"model.local_means=\(9,\) is more than data.input_days=4"):
        tasks.get(config)


def test_an_older_run_is_as_it_was(tmp_path):
    values = small_config("", tmp_path).to_dict()
    later = {
        "model": ("local_means", "local_ridge", "noise", "floor"),
        "loss": ("crps_weight", "members"),
        "eval": ("members",),
    }
    for group, names in later.items():
        for name in names:
            del values[group][name]
    config = configuration.resolve(tasks.today(values), tasks.groups("forecast"))
    assert (config.model.noise, config.model.floor, config.loss.crps_weight) == (0, (), 0.0)
