"""Parts of one's own are found by name, and what is wrong with them is one line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax import own
from tds_jax.engine import metrics
from tds_jax.errors import UserError
from tds_jax.pose import prediction
from tds_jax.pose.evaluation import evaluate
from tds_jax.pose.recording import ArrayRecording
from tests.forecast import small as forecast
from tests.pose import small as pose
from tests.pose.small import LENGTHS, SPLITS
from tests.python import parts

JOINTS = "tests.python.parts:Joints"
DAYS = "tests.python.parts:Days"


@pytest.fixture(scope="module")
def emg(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own_pose")
    pose.write_recordings(folder / "data", LENGTHS, SPLITS)
    return folder


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own_forecast")
    forecast.write_record(folder / "train.nc")
    return folder


WRONG = {
    "no module": ("no_such.module:Net", "there is no module 'no_such' where Python looks"),
    "no name": ("tests.python.parts:Net", "tests.python.parts has no 'Net'; check the spelling"),
    "no class": ("tests.python.parts:NUMBER", "is a int; name a class or function"),
    "needs more": ("tests.python.parts:needs_more", "needs 'colour', which is not offered; known"),
    "no module of flax": ("tests.python.parts:Other", "makes a Other; make a flax.nnx.Module"),
    "unknown word": ("tdss", "model.name='tdss' is not known; use one of tds, neuropose"),
}


@pytest.mark.parametrize(("name", "text"), WRONG.values(), ids=WRONG.keys())
def test_a_network_that_cannot_be_had_is_one_line(emg, name, text):
    with pytest.raises(UserError, match=text):
        pose.small_task(emg / "data", emg, model__name=name)


def test_a_module_that_fails_is_named_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "failing_part.py").write_text("1 / 0\n")
    with pytest.raises(UserError, match=r"failing_part cannot be imported \(ZeroDivisionError"):
        own.found("model.name", "failing_part:Net")


def test_a_pose_network_gets_what_it_asks_for_and_answers_every_sample(emg):
    task = pose.small_task(emg / "data", emg, model__name=JOINTS, model__hidden=5)
    model = task.init(nnx.Rngs(1))
    assert model.network.up.kernel.shape == (9, 4, 5)
    assert (task.left_context, task.step) == (8, 1)
    assert task.memory_options() == {}
    x = np.random.default_rng(0).normal(size=(333, 4)).astype("f4")
    model.normalizer.mean[...] = jnp.arange(4.0)
    model.normalizer.scale[...] = jnp.array([1.0, 2, 3, 4])
    found = prediction.angles(
        model, prediction.runner(task, model), ArrayRecording(task, x, 100, None)
    )
    found = np.concatenate([angles for _, angles in found])
    assert np.isnan(found[:8]).all()
    # The same products in windows of 60 or at once: sums of 36 terms of eps = 1.2e-7.
    once = model.network((x[None] - np.arange(4, dtype="f4")) / np.float32([1, 2, 3, 4]), None)[0]
    np.testing.assert_allclose(found[8:], once, atol=1e-5)


def test_every_part_of_a_pose_network_gets_a_gradient(emg):
    task = pose.small_task(emg / "data", emg, model__name=JOINTS)
    batch = {name: leaf[None] for name, leaf in task.source("train").example(0, None).items()}
    batch = jax.tree.map(jnp.asarray, batch | {"key": np.zeros((1, 2), np.uint32)})
    model = task.init(nnx.Rngs(1))
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def objective(params):
        return task.loss(nnx.merge(graphdef, params, rest), batch, True)[0].sum

    slopes = jax.tree.leaves(jax.grad(objective)(params))
    assert len(slopes) == 4
    assert all(np.abs(slope).max() > 0 for slope in slopes)
    assert set(task.fit_statistics()) == {"normalizer"}


def test_poses_of_another_shape_are_one_line(emg):
    task = pose.small_task(emg / "data", emg, model__name="tests.python.parts:TooMany")
    with pytest.raises(UserError, match=r"TooMany' gives shape \(2, 51, 3\), expected \(2, 52"):
        task.init(nnx.Rngs(0))(jnp.zeros((2, 60, 4)))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("os:getcwd", "loss.own='os:getcwd' must take a prediction and a target: too many pos"),
        ("tests.python.parts:NUMBER", "NUMBER' is a int; name a function"),
        ("operator:sub", r"gives shape \(3, 5, 2\), expected \(3, 5\)"),
    ],
)
def test_what_is_no_function_of_two_is_one_line(name, text):
    arrays = np.zeros((3, 5, 2)), np.ones((3, 5, 2))
    with pytest.raises(UserError, match=text):
        own.compared("loss.own", name, *arrays, (3, 5))


def test_a_forecast_network_stands_between_normalisation_and_prior(maps):
    task = forecast.small_task(maps / "train.nc", maps, model__name=DAYS)
    model = task.init(nnx.Rngs(1))
    batch = jax.tree.map(jnp.asarray, forecast.batch_of(task.source("train"), [0, 7]))
    model.network.linear.kernel[...] = jnp.zeros((8, 3))
    model.network.linear.bias[...] = jnp.zeros((3,))
    usual = model(batch, False)
    model.network.linear.bias[...] = jnp.array([0.0, 1.0, 2.0])
    moved = model(batch, False) - usual
    scale = np.broadcast_to(model.target_scale(batch), moved.shape)
    # One unit of a network is the spread of the target, added to numbers near 0.3.
    np.testing.assert_allclose(moved, scale * np.array([0, 1, 2]).reshape(3, 1, 1), atol=1e-6)
    assert task.memory_options() == {}


def test_maps_of_another_shape_and_settings_of_others_are_one_line(maps):
    task = forecast.small_task(maps / "train.nc", maps, model__name=DAYS, data__lead_days=2)
    model = task.init(nnx.Rngs(1))
    model.network.linear = nnx.Linear(8, 3, rngs=nnx.Rngs(0))
    batch = jax.tree.map(jnp.asarray, forecast.batch_of(task.source("train"), [0]))
    with pytest.raises(UserError, match=r"'Days' gives shape \(1, 3, 5, 6\), expected \(1, 2"):
        model(batch, False)
    with pytest.raises(UserError, match=r"model\.land_only=True needs an LSTM per pixel"):
        forecast.small_task(maps / "train.nc", maps, model__name=DAYS, model__land_only=True)
    assert parts.Days.__init__.__defaults__ == (4,), "what is not offered has its default"


def batch_of_pose(task):
    examples = [task.source("train").example(i, None) for i in range(4)]
    batch = {name: np.stack([one[name] for one in examples]) for name in examples[0]}
    return jax.tree.map(jnp.asarray, batch | {"key": np.zeros((4, 2), np.uint32)})


def test_a_loss_of_ones_own_is_charged_row_by_row_beside_the_others(emg):
    """Its sum over a batch is that of its halves: accumulation is exact."""
    losses = {"loss__own": "tests.python.parts:smooth", "loss__mae_weight": 0.0}
    alone = pose.small_task(emg / "data", emg, model__name=JOINTS, loss__mse_weight=0.0, **losses)
    both = pose.small_task(emg / "data", emg, model__name=JOINTS, loss__mse_weight=0.5, **losses)
    model, batch = alone.init(nnx.Rngs(1)), batch_of_pose(alone)
    poses, target, weight = alone.poses(model, batch, True), batch["joint_angles"], batch["weight"]
    error = np.asarray(poses - target, np.float64)
    change = np.diff(error, axis=1, prepend=error[:, :1])
    expected = (weight * (error**2 + change**2).mean(-1)).sum()
    total = alone.loss(model, batch, True)[0]
    # A sum of 4 x 52 rows in f32: eps 6e-8 each.
    np.testing.assert_allclose(total.sum, expected, rtol=2e-6)
    square = 0.5 * (weight * (error**2).mean(-1)).sum()
    np.testing.assert_allclose(both.loss(model, batch, True)[0].sum, expected + square, rtol=2e-6)
    halves = [jax.tree.map(lambda x, i=i: x[2 * i : 2 * i + 2], batch) for i in range(2)]
    parts = [alone.loss(model, half, True)[0] for half in halves]
    np.testing.assert_allclose(sum(p.sum for p in parts), total.sum, rtol=2e-6)
    assert sum(p.weight for p in parts) == total.weight


def test_a_metric_of_ones_own_is_a_mean_over_rows_that_count_in_logs_and_reports(emg):
    name = "tests.python.parts:worst"
    task = pose.small_task(emg / "data", emg, model__name=JOINTS, eval__own=(name,))
    model, batch = task.init(nnx.Rngs(1)), batch_of_pose(task)
    poses = task.poses(model, batch, False)
    rows = np.abs(np.asarray(poses - batch["joint_angles"], np.float64)).max(-1)
    expected = (rows * batch["weight"]).sum() / batch["weight"].sum()
    logged = metrics.compute(metrics.to_host(task.loss(model, batch, False)[1]))
    np.testing.assert_allclose(logged["worst"], expected, rtol=2e-6)
    report = evaluate(task, model, "val", None)
    assert report.value("mae_rad") < report.value("worst") < 3 * report.value("mae_rad")
    assert report.value("worst", "constant") > 0
    assert report.headline[-1] == "worst"


def test_a_loss_of_maps_is_in_units_of_the_targets_spread(maps):
    changes = {"model__name": DAYS, "loss__mse_weight": 0.0, "loss__mae_weight": 0.0}
    task = forecast.small_task(
        maps / "train.nc", maps, loss__own="tests.python.parts:biased", **changes
    )
    model = task.init(nnx.Rngs(1))
    model.scale[...] = jnp.full_like(model.scale[...], 0.05)
    batch = jax.tree.map(jnp.asarray, forecast.batch_of(task.source("train"), [0, 7]))
    error = (model(batch, True) - batch["target"]) / model.target_scale(batch)
    expected = (batch["weight"] * np.where(error > 0, 2.0, 1.0) * error**2).sum()
    found = task.loss(model, batch, True)[0]
    # Divided before or after the difference of numbers near 10 spreads: 1e-6 of each.
    np.testing.assert_allclose(found.sum, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"loss__own": "tests.python.parts:flat"}, r"loss.own='.*flat' gives shape \(\), expected"),
        ({"loss__own": "tests.python.parts:no"}, "loss.own=.*: tests.python.parts has no 'no'"),
        ({"eval__own": ("worst",)}, "eval.own has 'worst'; name functions as 'package.module:Na"),
        ({"eval__own": ("tests.python.parts:worst",) * 2}, "has functions of one name; rename"),
    ],
)
def test_functions_that_cannot_be_used_are_one_line(emg, changes, text):
    task = pose.small_task(emg / "data", emg, model__name=JOINTS, **changes)
    model = task.init(nnx.Rngs(1))
    with pytest.raises(UserError, match=text):
        task.loss(model, batch_of_pose(task), True)
