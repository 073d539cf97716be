"""Laws of streaming: any chunks give the whole file's poses, at once, from constant memory."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from tds_jax.errors import UserError
from tds_jax.pose.filters import SpeedAdaptiveFilter
from tds_jax.pose.front import make_front
from tds_jax.pose.stream import Stream
from tests.pose.test_models import small

LENGTH = 400
POWERS = ("covariance", (8, 4), 2, ())
# The base has stride 4 and steps of 8 samples: two frames a step.
GRIDS = {
    "steps of two frames": {},
    "a step a frame": {"rollout_freq": 50.0},
    "a frame every two steps": {"rollout_freq": 100.0},
    "a frame every four steps": {"rollout_freq": 200.0},
    "stride above kernel": {"conv_kernels": (3,), "conv_strides": (8,)},
    "three stages": {
        "conv_kernels": (3, 2, 1), "conv_strides": (2, 3, 2), "groups": (2, 3, 2),
        "widths": (2, 2, 3), "tds_kernels": (3, 1, 4), "tds_blocks": (0, 2, 1),
        "out_features": 5, "conv_bias": True, "norm_order": "relu_norm", "sample_rate": 600.0,
    },
    "powers of the first stage": {"log_power_frames": 6},
    "velocity": {"output": "velocity", "output_scale": 0.1},
    "hybrid": {"output": "hybrid", "rollout_freq": 50.0},
    "mlp": {"decoder": "mlp", "mlp_hidden": (8,)},
    "band, notch, powers and a conformer": {
        "front": make_front(200.0, (5.0, 80.0), (50.0,), 0.2, POWERS, False),
        "encoder": "conformer", "attention_frames": 20, "expansion": 2,
    },
    "strengths and long correlations, normalized": {
        "front": make_front(200.0, (0.0, 0.0), (), 0.2, (*POWERS[:3], (16,)), True),
        "conv_kernels": (6,), "decoder": "mlp", "mlp_hidden": (8,),
    },
    "filtered": {"output_filter": SpeedAdaptiveFilter(1.0, 0.5, 1.0, 25.0)},
}  # fmt: skip


@nnx.jit
def predicted(model, *inputs):
    return model(*inputs)


def emg(model, batch=1, length=LENGTH, dtype=np.float32):
    shape = (batch, length, model.normalizer.mean.shape[0])
    return np.random.default_rng(0).normal(0, 1, shape).astype(dtype)


def cuts(length, seed):
    """Bounds of chunks of 0 to 40 samples that cover `length`; many of one sample."""
    rng, at = np.random.default_rng(seed), [0]
    while at[-1] < length:
        at.append(min(length, at[-1] + int(rng.choice([0, 1, 1, 2, rng.integers(40)]))))
    return at


def streamed(stream, samples, bounds, initial=None):
    """(poses of all chunks, poses of each chunk)."""
    state, found = stream.start(stream.params, len(samples), initial), []
    for a, b in itertools.pairwise(bounds):
        state, poses = stream(stream.params, state, samples[:, a:b])
        found.append(poses)
    return np.concatenate(found, axis=1), found


LONG = ("three stages",)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(changes, id=name, marks=[pytest.mark.long] * (name in LONG))
        for name, changes in GRIDS.items()
    ],
)
def test_random_chunks_join_to_the_prediction_of_the_whole(changes):
    model = small(**changes)
    if (powers := model.encoder.normalizer) is not None:
        powers.mean[...] = 0.2 + powers.mean[...]
        powers.scale[...] = 0.7 * powers.scale[...]
    samples = emg(model, batch=2)
    whole = np.asarray(predicted(model, samples))
    stream = Stream(model)
    for seed in range(3):
        poses, _ = streamed(stream, samples, cuts(LENGTH, seed))
        assert poses.shape == whole.shape
        # f32, the same operations on other lengths: eps 1e-7 x up to 380 recurrent steps.
        np.testing.assert_allclose(poses, whole, atol=1e-5)
    assert whole.std(axis=1).mean() > 1e-3, "a constant would agree as well"


@functools.cache
def whole_and_stream():
    """A model of rare frames, samples, their poses as a whole, and a stream: compiled once."""
    model = small(rollout_freq=100.0, output="velocity", output_scale=0.1)
    samples = emg(model)
    return samples, np.asarray(predicted(model, samples)), Stream(model)


@settings(max_examples=10)
@given(st.lists(st.integers(0, LENGTH), max_size=30))
def test_chunks_of_any_sizes_join_to_the_prediction_of_the_whole(bounds):
    samples, whole, stream = whole_and_stream()
    poses, _ = streamed(stream, samples, [0, *sorted(bounds), LENGTH])
    np.testing.assert_allclose(poses, whole, atol=1e-5)  # as above


def test_in_double_precision_nothing_but_rounding_differs():
    with jax.enable_x64(True):
        model = small(rollout_freq=100.0, output="velocity", dtype=jnp.float64)
        graphdef, state = nnx.split(model)
        model = nnx.merge(graphdef, jax.tree.map(lambda x: x.astype(jnp.float64), state))
        samples = emg(model, dtype=np.float64)
        poses, _ = streamed(Stream(model), samples, cuts(LENGTH, 0))
        assert poses.dtype == np.float64
        np.testing.assert_allclose(poses, predicted(model, samples), atol=1e-12)


@pytest.mark.parametrize("freq", [25.0, 100.0])
def test_a_pose_comes_with_its_own_sample_and_not_before(freq):
    model = small(rollout_freq=freq)
    _, found = streamed(Stream(model), emg(model), range(LENGTH + 1))
    came = [n for n, poses in enumerate(found) if poses.shape[1]]
    assert came == list(range(model.left_context, LENGTH, model.step))


def test_tracking_starts_from_the_given_pose_and_streams_do_not_mix():
    model = small(initial_pose="given", output="velocity", output_scale=0.1)
    samples = emg(model, batch=3)
    initial = np.asarray([[0.0, 0.0], [1.0, -1.0], [3.0, 2.0]], np.float32)
    stream = Stream(model)
    together, _ = streamed(stream, samples, cuts(LENGTH, 1), initial)
    for n in range(3):
        alone, _ = streamed(stream, samples[n : n + 1], cuts(LENGTH, 2), initial[n : n + 1])
        np.testing.assert_allclose(together[n], alone[0], atol=1e-5)
    whole = predicted(model, samples, initial)
    np.testing.assert_allclose(together, whole, atol=1e-5)


def test_a_state_is_a_value_that_can_be_gone_back_to():
    model = small()
    samples, stream = emg(model), Stream(model)
    state, _ = stream(stream.params, stream.start(stream.params), samples[:, :101])
    once = stream(stream.params, state, samples[:, 101:])
    again = stream(stream.params, state, samples[:, 101:])
    assert once[1].shape[1] > 10
    np.testing.assert_array_equal(once[1], again[1])


@pytest.mark.parametrize("freq", [25.0, 100.0])
def test_the_state_does_not_grow_and_one_compilation_serves_all_chunks(freq):
    """Also for parameters that lie as a checkpoint gives them back, on a mesh."""
    graphdef, params = nnx.split(small(rollout_freq=freq))
    mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
    params = jax.device_put(params, jax.NamedSharding(mesh, jax.P()))
    model = nnx.merge(graphdef, params)
    stream = Stream(model)
    state, sizes = stream.start(stream.params), []
    samples, bounds = emg(model, length=2000), cuts(2000, 3)
    for a, b in itertools.pairwise(bounds):
        state, _ = stream(stream.params, state, samples[:, a:b])
        sizes.append(sum(leaf.nbytes for leaf in jax.tree.leaves(state.memory)))
        assert state.pending.shape[1] < model.step
    assert len(set(sizes)) == 1
    assert stream._step._cache_size() == 1


def test_a_broken_sample_counts_as_zeros_and_does_not_spread():
    model = small()
    samples = emg(model)
    samples[0, 100, 1] = np.nan
    samples[0, 200:210, 0] = np.inf
    poses, _ = streamed(Stream(model), samples, cuts(LENGTH, 0))
    samples[0, 100] = samples[0, 200:210] = 0
    np.testing.assert_allclose(poses, predicted(model, samples), atol=1e-5)


def test_a_stream_of_another_alignment_is_that_of_fixed():
    model = small(rollout_freq=50.0)
    samples = emg(model)
    poses, _ = streamed(Stream(model.aligned("reference")), samples, cuts(LENGTH, 0))
    np.testing.assert_allclose(poses, predicted(model, samples), atol=1e-5)
    other = predicted(model.aligned("reference"), samples)
    assert other.shape[1] == LENGTH - model.left_context


def test_a_model_of_whole_windows_is_refused_in_one_line():
    with pytest.raises(UserError, match=r"reference_rate=True .* cannot be streamed; predict") as e:
        Stream(small(reference_rate=True))
    assert "\n" not in str(e.value)
    with pytest.raises(UserError, match=r"Linear sees the whole window .* predict whole files"):
        Stream(nnx.Linear(1, 1, rngs=nnx.Rngs(0)))
