"""The fingertip term of the loss: a mean per example, so that examples stay additive."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.data.pipeline import Loader
from tds_jax.engine.step import split
from tds_jax.errors import UserError
from tds_jax.pose import kinematics
from tds_jax.pose.evaluation import evaluate
from tds_jax.pose.joints import TWENTY
from tests.data.sessions import make_rows, write_rows
from tests.pose.small import LENGTHS, SPLITS, small_task, write_recordings

WEIGHT = 0.25
BATCH = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Recordings of 20 joints at 500 Hz: a decoder step of 20 samples, landmarks every 10."""
    base = tmp_path_factory.mktemp("fingertips")
    write_recordings(base / "data", LENGTHS, SPLITS, joints=20)
    for i, length in enumerate(LENGTHS):
        rows = make_rows(length, joints=20, seed=i, rate=500.0)
        # Long enough to take all the compared rows of a window away, with others left.
        rng = np.random.default_rng(i)
        rows["joint_angles"][rng.random(length) < 0.6] = 0
        write_rows(base / "data" / f"s{i}.hdf5", rows, attributes={"sample_rate": 500.0})
    return base


def make(folder, **changes):
    settings = {"loss__fingertip_weight": WEIGHT, "model__dropout": 0.0} | changes
    return small_task(folder / "data", folder, **settings)


def batch_of(task):
    loader = Loader(task.source("train"), micro_batch=BATCH, seed=0, train=True, workers=0,
                    threads=0, prefetch=1)  # fmt: skip
    batch = next(iter(loader.train_batches(0)))
    loader.close()
    return {name: jnp.asarray(leaf) for name, leaf in batch.items()}


def loss(task, model, batch):
    return jax.jit(lambda batch: task.loss(model, batch, train=False))(batch)


def by_hand(task, model, batch, stride):
    """Σ over examples of (rows that count) · (mean distance over every stride-th of them)."""

    @jax.jit
    def distances(batch):
        poses = task.poses(model, batch, train=False)
        return kinematics.distances(task.hand, poses, batch["joint_angles"])[..., :5]

    apart = np.asarray(distances(batch), np.float64).mean(axis=-1)
    total = 0.0
    for one, weight in zip(apart, batch["weight"], strict=True):
        compared = np.asarray(weight[::stride]) > 0
        if compared.any():
            total += float(weight.sum()) * one[::stride][compared].mean()
    return total


@pytest.mark.parametrize(
    ("every_sample", "stride"), [pytest.param(False, 1, marks=pytest.mark.long), (True, 10)]
)
def test_the_term_is_the_mean_distance_of_each_example(folder, every_sample, stride):
    task = make(folder, loss__every_sample=every_sample)
    plain = make(folder, loss__every_sample=every_sample, loss__fingertip_weight=0.0)
    model, batch = task.init(nnx.Rngs(0)), batch_of(task)
    found, states = loss(task, model, batch)
    without, _ = loss(plain, model, batch)
    expected = by_hand(task, model, batch, stride)
    # two f32 sums of about 1e4 mm are subtracted: 1e4 · 6e-8 · a few
    assert float(found.sum - without.sum) == pytest.approx(WEIGHT * expected, rel=1e-5)
    assert found.weight == without.weight
    mean = jax.device_get(states["fingertip_mm"]).compute("fingertip_mm")
    assert mean["fingertip_mm"] == pytest.approx(expected / float(found.weight), rel=1e-5)


@pytest.mark.long
def test_micro_batches_add_up_to_the_batch_in_value_and_gradient(folder):
    task = make(folder, loss__every_sample=True)
    graphdef, params, rest = split(task.init(nnx.Rngs(0)))
    batch = batch_of(task)
    compared = batch["weight"][:, ::10].sum(axis=1)
    assert len(set(np.asarray(compared).tolist())) > 2, "the masks must be ragged"

    @jax.jit
    def sums(params, batch):
        def total(params):
            objective, _ = task.loss(nnx.merge(graphdef, params, rest), batch, train=False)
            return objective.sum, objective.weight

        return jax.value_and_grad(total, has_aux=True)(params)

    (whole, weight), gradient = sums(params, batch)
    each = [
        sums(params, jax.tree.map(lambda leaf, i=i: leaf[i : i + 2], batch))
        for i in range(0, BATCH, 2)
    ]
    assert sum(float(w) for (_, w), _ in each) == float(weight)
    assert sum(float(v) for (v, _), _ in each) == pytest.approx(float(whole), rel=1e-6)
    added = jax.tree.map(lambda *leaves: sum(leaves), *[g for _, g in each])
    squares = [
        sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(tree))
        for tree in (jax.tree.map(lambda a, b: a - b, added, gradient), gradient)
    ]
    assert squares[1] > 0
    assert np.sqrt(squares[0] / squares[1]) <= 1e-5  # f32 sums in another order


def test_gradients_are_finite_where_prediction_and_label_agree_at_zero(folder):
    task = make(folder)
    batch = batch_of(task)
    batch["joint_angles"] = 0 * batch["joint_angles"]

    def cost(poses):
        return task.fingertip_distance(poses, batch["joint_angles"], batch["weight"]).sum

    gradient = jax.jit(jax.grad(cost))(jnp.zeros_like(batch["joint_angles"]))
    assert np.isfinite(gradient).all()


def test_other_joints_cannot_have_the_term_and_that_is_one_line(tmp_path):
    write_recordings(tmp_path / "data", LENGTHS, SPLITS)
    with pytest.raises(UserError, match=r"loss\.fingertip_weight=0\.01 needs the 20 .* use 0"):
        small_task(tmp_path / "data", tmp_path, loss__fingertip_weight=0.01)


def test_twenty_joints_of_other_names_are_no_hand(tmp_path):
    """Nor in another order: which landmark an angle turns is told by its place."""
    write_recordings(tmp_path / "data", LENGTHS, SPLITS, joints=20)
    others = {"data__joint_names": TWENTY[::-1]}
    with pytest.raises(UserError, match=r"fingertip_weight=.* of other names .* use 0"):
        make(tmp_path, **others)
    assert make(tmp_path, data__joint_names=TWENTY).hand is not None
    task = make(tmp_path, loss__fingertip_weight=0.0, **others)
    report = evaluate(task, task.init(nnx.Rngs(0)), "test", None)
    metrics = {row.metric for row in report.rows}
    assert "mae_deg" in metrics
    assert not {name for name in metrics if "landmark" in name or name.startswith("mae_thumb")}
    assert {row.group for row in report.rows} >= {"finger/thumb"}  # by name, wherever they stand
    assert report.notes[0].endswith("these recordings have others of that number")


def test_a_weight_below_zero_is_refused_and_the_term_may_stand_alone(folder):
    with pytest.raises(UserError, match=r"loss\.fingertip_weight=-1\.0 is too small"):
        make(folder, loss__fingertip_weight=-1.0)
    alone = make(folder, loss__mse_weight=0.0, loss__mae_weight=0.0)
    objective, _ = loss(alone, alone.init(nnx.Rngs(0)), batch_of(alone))
    assert objective.sum > 0
