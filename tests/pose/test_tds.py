"""Receptive field, rate and streaming of the TDS encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.errors import UserError
from tds_jax.pose.tds import TDSNetwork, log_power, receptive_field

PRESETS = {
    "default": ((5, 5), (2, 2), (21, 11), (2, 2)),
    "quick_demo": ((5,), (4,), (11,), (1,)),
    "high_performance": ((7, 5, 3), (2, 2, 2), (21, 11, 7), (2, 2, 2)),
    "benchmark": ((11, 5, 17, 9), (5, 2, 4, 2), (1, 1, 9, 5), (0, 0, 2, 2)),
}


def small(**changes):
    settings = {
        "conv_kernels": (5, 3),
        "conv_strides": (2, 3),
        "groups": (3, 4),
        "widths": (2, 2),
        "tds_kernels": (4, 3),
        "tds_blocks": (2, 1),
        "dropout": 0.5,
        "norm_order": "norm_relu",
        "conv_bias": True,
        "out_features": 5,
        "remat": "none",
        "dtype": jnp.float32,
    }
    return TDSNetwork(3, **(settings | changes), rngs=nnx.Rngs(0))


def emg(length, batch=1):
    return jnp.asarray(np.random.default_rng(0).normal(size=(batch, length, 3)), jnp.float32)


def test_presets_have_their_documented_context_and_rate():
    assert {name: receptive_field(*shape) for name, shape in PRESETS.items()} == {
        "default": (172, 4),
        "quick_demo": (44, 4),
        "high_performance": (278, 8),
        "benchmark": (1790, 80),
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"norm_order": "norm_relu"},
        {"norm_order": "relu_norm"},
        {"log_power_frames": 3},
        {"encoder": "conformer", "attention_frames": 3, "tds_blocks": (1, 1)},
    ],
)
def test_a_frame_depends_on_exactly_its_receptive_field(changes):
    net = small(**changes)
    x = emg(net.left_context + 1 + 4 * net.stride)
    pull = jax.jit(jax.grad(lambda x, n: jnp.sum(net(x)[:, n] ** 2)))
    for frame in (0, 2, 4):
        gradient = pull(x, frame)[0]
        touched = np.flatnonzero(np.abs(gradient).sum(-1))
        first = frame * net.stride
        # Exact zeros outside; both ends inside are reached.
        assert (touched[0], touched[-1]) == (first, first + net.left_context)


def test_log_power_is_of_so_many_frames_and_finite_in_silence():
    x = np.random.default_rng(0).normal(size=(2, 30, 3)) * [1, 5, 0]
    found = log_power(jnp.asarray(x, jnp.float32), 4)
    squares = np.stack([(x[:, n : n + 4] ** 2).mean(axis=1) for n in range(27)], axis=1)
    # f32: a few roundings of values up to 3.
    np.testing.assert_allclose(found, 0.5 * np.log(squares + 1e-3), atol=1e-6)
    assert np.isfinite(jax.grad(lambda x: jnp.sum(log_power(x, 4)))(jnp.zeros((1, 9, 2)))).all()


@pytest.mark.parametrize("frames", [0, 5])
def test_only_log_power_tells_louder_emg_from_the_same_as_soft(frames):
    net = small(log_power_frames=frames, conv_bias=False)
    x = 10 * emg(100)
    stage = jax.jit(net.stage_0.front)
    apart = np.asarray(stage(2 * x) - stage(x))
    # Twice the EMG: log 2 more in every channel, or nothing, but for norm's eps and the floor:
    # 1e-5 and 1e-3 of mean squares that are above 1 here.
    np.testing.assert_allclose(apart, np.log(2) if frames else 0, atol=1e-3)


def test_number_of_frames_is_that_of_the_network_for_every_length():
    net = small()
    for length in range(net.left_context + 1, net.left_context + 14):
        assert jax.eval_shape(net, emg(length)).shape[1] == net.num_frames(length)
    assert net.num_frames(net.left_context) == 0


def test_overlapping_chunks_give_the_features_of_the_whole():
    net = small()
    run = jax.jit(lambda x: net(x))
    x = emg(200, batch=2)
    whole = run(x)
    hop = 5 * net.stride
    size = net.left_context + 1 + 4 * net.stride  # five frames
    parts = [run(x[:, s : s + size]) for s in range(0, 200 - size + 1, hop)]
    parts = np.concatenate(parts, axis=1)
    # Same sums in another blocking: a few f32 roundings of values of order 1.
    np.testing.assert_allclose(parts, whole[:, : parts.shape[1]], atol=1e-5)


def test_remat_changes_no_gradient_with_dropout_on():
    x = emg(40, batch=2)
    keys = jnp.arange(4, dtype=jnp.uint32).reshape(2, 2)
    shape = {"conv_kernels": (5,), "conv_strides": (2,), "groups": (3,), "widths": (2,)}
    shape |= {"tds_kernels": (4,), "tds_blocks": (1,)}

    def gradients(policy):
        graph, params = nnx.split(small(remat=policy, **shape))
        loss = lambda p: jnp.sum(nnx.merge(graph, p)(x, keys) ** 2)  # noqa: E731
        return jax.tree.leaves(jax.jit(jax.grad(loss))(nnx.to_pure_dict(params)))

    plain = gradients("none")
    for policy in ("dots", "names", "full"):
        for a, b in zip(plain, gradients(policy), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)  # sums of some hundred terms


def test_stage_tuples_of_unequal_length_are_refused_by_name():
    with pytest.raises(UserError, match=r"model.widths=\(2,\) has 1 stages"):
        small(widths=(2,))
    with pytest.raises(UserError, match=r"model.conv_strides=\(2, 0\)"):
        small(conv_strides=(2, 0))
