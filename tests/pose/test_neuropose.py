"""NeuroPose: its grid, its noise, and running statistics that survive every way of training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax import config as configuration
from tds_jax.engine import loop, workdir
from tds_jax.engine.blueprint import Blueprint
from tds_jax.engine.step import split
from tds_jax.errors import UserError
from tds_jax.nn.batch_norm import MOMENTUM, BatchNorm
from tds_jax.pose.neuropose import NeuroPose
from tests.pose.small import LENGTHS, SPLITS, small_task, write_recordings

SMALL = {
    "num_channels": 4,
    "num_joints": 3,
    "channels": (2, 3, 4),
    "pools": (3, 2, 1),
    "electrode_pools": (2, 2, 1),
    "residual_blocks": 1,
    "dropout": 0.0,
    "remat": "none",
    "dtype": jnp.float32,
}
SETTINGS = {
    "model__name": "neuropose",
    "model__conv_kernels": (1, 1, 1),
    "model__conv_strides": (3, 2, 1),
    "model__groups": (2, 2, 1),
    "model__widths": (2, 3, 4),
    "model__tds_kernels": (1, 1, 1),
    "model__tds_blocks": (0, 0, 0),
    "model__dropout": 0.0,
}


def build(**changes):
    return NeuroPose(**SMALL | changes, rngs=nnx.Rngs(0))


def emg(length, batch=4, scale=1.0):
    draw = np.random.default_rng(0).normal(size=(batch, length, 4))
    return jnp.asarray(scale * draw, jnp.float32)


def keys(batch=4):
    return jnp.arange(2 * batch, dtype=jnp.uint32).reshape(batch, 2)


def trained_once(model, x):
    """(poses, rest) of a forward pass in training, as the engine does it."""
    graphdef, params, rest = split(model)

    @jax.jit
    def run(params, rest, x):
        model = nnx.merge(graphdef, params, rest)
        return model(x, keys=keys(x.shape[0])), split(model)[2]

    return run(params, rest, x)


def test_there_is_a_pose_for_every_sample_of_a_long_enough_window():
    model = build()
    assert (model.left_context, model.step, model.receptive_field) == (0, 1, 6)
    for length in (6, 11, 100):
        assert jax.eval_shape(model, emg(length)).shape == (4, length, 3)
        assert model.num_steps(length) == length
    assert model.num_steps(5) == 0
    with pytest.raises(UserError, match=r"window of 5 samples.*at least 6"):
        model(emg(5))


def test_electrodes_and_blocks_that_do_not_fit_are_named():
    with pytest.raises(UserError, match=r"model.groups=\(2, 2, 4\) leaves none of 4 electrodes"):
        build(electrode_pools=(2, 2, 4))
    with pytest.raises(UserError, match=r"model.groups=\(2, 2\) has 2 entries"):
        build(electrode_pools=(2, 2))


def test_batch_norm_normalises_by_the_batch_and_remembers_as_pytorch_does():
    norm = BatchNorm(2)
    x = 300 + emg(5)[..., :2][:, :, None]  # far from 0: a difference of squares would lose digits
    y, moments = norm(x, train=True)
    flat = np.asarray(x, np.float64).reshape(-1, 2)
    np.testing.assert_allclose(np.mean(y, (0, 1, 2)), 0, atol=1e-4)  # eps of 300
    np.testing.assert_allclose(np.var(y, (0, 1, 2)), 1, rtol=1e-4)
    norm.update(moments)
    np.testing.assert_allclose(norm.mean[...], MOMENTUM * flat.mean(0), rtol=1e-5)
    wanted = (1 - MOMENTUM) + MOMENTUM * flat.var(0, ddof=1)
    np.testing.assert_allclose(norm.var[...], wanted, rtol=1e-5)
    found, _ = norm(x, train=False)
    mean, var = np.asarray(norm.mean[...]), np.asarray(norm.var[...])
    expected = (flat - mean) / np.sqrt(var + 1e-5)
    np.testing.assert_allclose(found.reshape(-1, 2), expected, rtol=1e-4)


@pytest.mark.parametrize("remat", ["none", "dots", "names", "full"])
def test_every_statistic_moves_in_training_whatever_is_kept_for_the_backward_pass(remat):
    x = emg(30)
    poses, rest = trained_once(build(remat=remat), x)
    before = split(build())[2]
    moved = jax.tree.map(lambda a, b: bool(np.all(a != b)), rest, before)
    assert not any(jax.tree.leaves(moved.pop("normalizer")))
    assert all(jax.tree.leaves(moved))
    wanted, expected = trained_once(build(), x)
    np.testing.assert_allclose(poses, wanted, atol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), rest, expected
    )


def test_evaluation_uses_the_running_statistics():
    model = build()
    x = emg(30, scale=5.0)
    run = jax.jit(lambda x: model(x))
    together = run(x)
    np.testing.assert_allclose(run(x[:1]), together[:1], atol=1e-5)
    noisy, rest = trained_once(model, x)
    assert np.abs(noisy - together).max() > 1e-3
    model.block_0.conv_0.norm.mean[...] = rest["block_0"]["conv_0"]["norm"]["mean"]
    assert np.abs(jax.jit(lambda x: model(x))(x) - together).max() > 1e-4


def test_dropout_follows_each_examples_key():
    model = build(dropout=0.5)
    x = emg(30)
    graphdef, params, rest = split(model)
    run = jax.jit(lambda keys: nnx.merge(graphdef, params, rest)(x, keys=keys))
    first = run(keys())
    np.testing.assert_array_equal(first, run(keys()))
    assert np.abs(first - run(keys() + jnp.uint32(1))).max() > 1e-3


def test_bf16_returns_f32_and_f32_statistics():
    poses, rest = trained_once(build(dtype=jnp.bfloat16), emg(30))
    assert poses.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(rest)} == {jnp.dtype(jnp.float32)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("neuropose") / "data"
    write_recordings(folder, LENGTHS, SPLITS)
    return folder


def test_the_training_step_carries_the_statistics_and_a_bad_batch_leaves_them(folder, tmp_path):
    task = small_task(folder, tmp_path, **SETTINGS)
    blueprint = Blueprint(task, configuration.replace(task.config, {"optim.batch_size": 8}))
    state = jax.jit(blueprint.init)(jax.random.key(0))
    step = blueprint.train_step
    source = task.source("train")
    examples = [source.example(i, None) | {"key": np.uint32([i, 1])} for i in range(8)]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *examples)
    before = jax.device_get(state.rest)
    state, _ = step(state, batch)
    kept = jax.device_get(state.rest)
    assert sorted(kept) == sorted(before)
    moved = jax.tree.map(lambda a, b: np.all(a != b), kept, before)
    assert not any(jax.tree.leaves(moved.pop("normalizer")))
    assert all(jax.tree.leaves(moved))
    state, _ = step(state, batch | {"emg": batch["emg"] * jnp.nan})
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.rest), kept)


@pytest.mark.long  # that they are trained and kept, other tests say; here a whole run
def test_statistics_survive_checkpoints_and_come_back_for_evaluation(folder, tmp_path):
    changes = {"optim__steps": 3, "eval__every": 3, "log__plots": False, **SETTINGS}
    task = small_task(folder, tmp_path, **changes)
    run = tmp_path / "run"
    workdir.claim(run, task.config, task.inputs(), task.digest(), task.data_files())
    loop.fit(Blueprint(task, task.config), run)
    model, restored = workdir.load_model(Blueprint(task, task.config), run)
    norm = restored.state.rest["block_0"]["conv_0"]["norm"]
    np.testing.assert_array_equal(model.block_0.conv_0.norm.mean[...], norm["mean"])
    assert np.all(norm["mean"] != 0)


def test_accumulation_is_warned_of(folder, tmp_path):
    def warned(**changes):
        task = small_task(folder, tmp_path, **SETTINGS | changes)
        return [line for line in task.warnings() if "BatchNorm" in line]

    assert warned() == []
    (line,) = warned(optim__accumulate=4)
    assert line.startswith("optim.accumulate=4: BatchNorm takes its statistics over 2 examples")
    plain = small_task(folder, tmp_path, optim__accumulate=4)
    assert not any("BatchNorm" in line for line in plain.warnings())


def test_an_initial_pose_has_no_place_in_it(folder, tmp_path):
    with pytest.raises(UserError, match=r"initial_pose='given' has no meaning.*neuropose"):
        small_task(folder, tmp_path, **SETTINGS, model__initial_pose="given")
    with pytest.raises(ValueError, match="no state to begin from"):
        build()(emg(30), jnp.zeros((4, 3)))


def test_settings_reach_the_network(folder, tmp_path):
    model = small_task(folder, tmp_path, **SETTINGS, model__layers=2).init(nnx.Rngs(0))
    assert isinstance(model, NeuroPose)
    assert (model.pools, model.electrode_pools) == ((3, 2, 1), (2, 2, 1))
    assert hasattr(model, "block_7")
    assert not hasattr(model, "block_8")  # 3 + 2 + 3
