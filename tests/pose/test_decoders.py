"""Rollouts: feedback, one-step form, heads, chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.errors import UserError
from tds_jax.nn.deferred import direct
from tds_jax.pose.decoders import Decoder, LSTMCore, MLPCore, num_outputs

BATCH, STEPS, FEATURES, JOINTS = 3, 9, 5, 4


def build(kind="lstm", output="position", chunk=0, dtype=jnp.float32, dropout=0.0):
    sizes = (FEATURES, JOINTS, num_outputs(output, JOINTS))
    rngs = nnx.Rngs(0)
    if kind == "lstm":
        core = LSTMCore(
            *sizes, hidden=6, layers=2, dropout=dropout, slope=0.1, dtype=dtype, rngs=rngs
        )
    else:
        core = MLPCore(*sizes, sizes=(6, 7), slope=0.1, dtype=dtype, rngs=rngs)
    return Decoder(
        core,
        num_joints=JOINTS,
        output=output,
        output_scale=0.5,
        position_steps=4,
        chunk=chunk,
        dtype=dtype,
    )


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


FRAMES, START = normal(BATCH, STEPS, FEATURES), normal(BATCH, JOINTS)


@pytest.mark.parametrize("kind", ["lstm", "mlp"])
@pytest.mark.parametrize("output", ["position", "velocity", "hybrid"])
def test_one_step_at_a_time_is_the_rollout(kind, output):
    decoder = build(kind, output)
    poses, last = decoder.rollout(FRAMES, decoder.initial_carry(START))
    carry, steps = decoder.initial_carry(START), []
    for n in range(STEPS):
        carry, pose = decoder.step(carry, FRAMES[:, n])
        steps.append(pose)
    np.testing.assert_allclose(np.stack(steps, 1), poses, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), carry, last)


@pytest.mark.parametrize("output", ["position", "hybrid"])
def test_a_rollout_in_two_parts_is_the_rollout(output):
    decoder = build(output=output)
    poses, _ = decoder.rollout(FRAMES, decoder.initial_carry(START))
    first, carry = decoder.rollout(FRAMES[:, :5], decoder.initial_carry(START))
    second, _ = decoder.rollout(FRAMES[:, 5:], carry)
    np.testing.assert_allclose(np.concatenate([first, second], 1), poses, atol=1e-6)


@pytest.mark.parametrize("kind", ["lstm", "mlp"])
def test_a_pose_depends_on_the_pose_before_and_on_no_later_feature(kind):
    decoder = build(kind)

    def pose(features, start, n):
        poses, _ = decoder.rollout(features, decoder.initial_carry(start))
        return jnp.sum(poses[:, n] ** 2)

    by_feature, by_start = jax.grad(pose, argnums=(0, 1))(FRAMES, START, 3)
    assert np.all(by_feature[:, 4:] == 0)
    assert np.all(np.abs(by_feature[:, :4]).sum(-1) > 0)
    assert np.all(np.abs(by_start).sum(-1) > 0)


def outputs_of_core(decoder, previous, state, n):
    core = decoder.core
    state, out = core.step(state, core.prepare(FRAMES[:, n]), previous, [], direct(core.matrices()))
    return state, out * 0.5


def test_velocity_adds_to_the_previous_pose_and_position_replaces_it():
    for output, base in (("position", 0), ("velocity", START)):
        decoder = build(output=output)
        carry = decoder.initial_carry(START)
        _, out = outputs_of_core(decoder, START, carry["state"], 0)
        _, pose = decoder.step(carry, FRAMES[:, 0])
        np.testing.assert_allclose(pose, base + out, atol=1e-6)


def test_hybrid_is_position_for_its_first_steps_and_velocity_after():
    decoder = build(output="hybrid")
    poses, _ = decoder.rollout(FRAMES, decoder.initial_carry(START))
    state, previous = decoder.initial_carry(START)["state"], START
    for n in range(STEPS):
        state, out = outputs_of_core(decoder, previous, state, n)
        expected = out[:, :JOINTS] if n < 4 else previous + out[:, JOINTS:]
        np.testing.assert_allclose(poses[:, n], expected, atol=1e-5)
        previous = poses[:, n]


@pytest.mark.parametrize("kind", ["lstm", "mlp"])
@pytest.mark.parametrize("chunk", [pytest.param(2, marks=pytest.mark.long), 3])
def test_chunks_change_no_gradient_with_dropout_on(kind, chunk):
    keys = jnp.arange(2 * BATCH, dtype=jnp.uint32).reshape(BATCH, 2)

    def gradients(chunk):
        graph, params = nnx.split(build(kind, chunk=chunk, dropout=0.3))

        def loss(p):
            decoder = nnx.merge(graph, p)
            return jnp.sum(decoder.rollout(FRAMES, decoder.initial_carry(START), keys)[0] ** 2)

        return jax.value_and_grad(loss)(nnx.to_pure_dict(params))

    for a, b in zip(jax.tree.leaves(gradients(0)), jax.tree.leaves(gradients(chunk)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def step_by_step(decoder, features, carry, keys):
    """The rollout as a loop of steps, for plain autodiff."""
    product = direct(decoder.core.matrices())
    masks = decoder.core.masks(keys, STEPS)
    poses = []
    for n in range(STEPS):
        x = (decoder.core.prepare(features[:, n]), [mask[n] for mask in masks])
        carry, pose = decoder._step(product, carry, x)
        poses.append(pose)
    return jnp.stack(poses, 1), carry


@pytest.mark.parametrize(
    ("kind", "output", "chunk"),
    [
        ("lstm", "position", 0),
        pytest.param("lstm", "velocity", 4, marks=pytest.mark.long),
        ("lstm", "hybrid", 3),
        pytest.param("mlp", "position", 0, marks=pytest.mark.long),
        pytest.param("mlp", "velocity", 4, marks=pytest.mark.long),
        ("mlp", "hybrid", 3),
    ],
)
def test_gradients_of_a_rollout_are_those_of_its_steps(kind, output, chunk):
    keys = jnp.arange(2 * BATCH, dtype=jnp.uint32).reshape(BATCH, 2)

    def gradients(rollout, dtype):
        decoder = build(kind, output, chunk, dtype, dropout=0.3)
        graph, params = nnx.split(decoder)
        params = jax.tree.map(lambda p: p.astype(dtype), nnx.to_pure_dict(params))

        def loss(params, features, start):
            decoder = nnx.merge(graph, params)
            carry = decoder.initial_carry(start)
            poses, carry = rollout(decoder, features, carry, keys)
            return jnp.sum(poses**2) + sum(jnp.sum(s) for s in jax.tree.leaves(carry["state"]))

        inputs = (FRAMES.astype(dtype), START.astype(dtype))
        return jax.tree.leaves(jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(params, *inputs))

    with jax.enable_x64(True):
        plain = gradients(step_by_step, jnp.float64)
        ours = gradients(Decoder.rollout, jnp.float64)
    for a, b in zip(plain, ours, strict=True):
        # the same sums in another order: a few f64 roundings
        np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["lstm", "mlp"])
def test_bf16_velocities_integrate_in_f32(kind):
    wide, narrow = (build(kind, "velocity", dtype=d) for d in (jnp.float32, jnp.bfloat16))
    start = START + 16  # bf16 resolves 0.125 there: a bf16 carry would lose whole steps
    (a, _), (b, _) = (d.rollout(FRAMES, d.initial_carry(start)) for d in (wide, narrow))
    assert b.dtype == jnp.float32
    # The pose fed back is rounded to 8 bits, the sum of velocities is not.
    np.testing.assert_allclose(b - start[:, None], a - start[:, None], atol=0.05)


def test_unknown_output_and_empty_mlp_name_the_fix():
    with pytest.raises(UserError, match="position, velocity, hybrid"):
        num_outputs("speed", 3)
    with pytest.raises(UserError, match="mlp_hidden"):
        MLPCore(1, 1, 1, sizes=(), slope=0.1, dtype=jnp.float32, rngs=nnx.Rngs(0))
