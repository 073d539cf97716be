"""The decoder as one kernel is the scan: same poses, carry, gradients; here it is interpreted."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.errors import UserError
from tds_jax.pose.decoders import Decoder, LSTMCore, num_outputs
from tests.pose.small import small_config

STEPS, BATCH, FEATURES, JOINTS = 4, 18, 3, 5  # two programs of 16 rows, 14 of which nobody reads


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


ARGUMENTS = normal(BATCH, STEPS, FEATURES), normal(BATCH, JOINTS)


def build(kernel, output, hidden, layers, dtype, chunk):
    """run(weights, features, first pose) -> (poses, carry) of a decoder, and its weights."""
    sizes = FEATURES, JOINTS, num_outputs(output, JOINTS)
    given = {"dtype": jnp.dtype(dtype), "rngs": nnx.Rngs(0)}
    core = LSTMCore(*sizes, hidden=hidden, layers=layers, dropout=0.3, slope=0.1, **given)
    decoder = Decoder(
        core,
        num_joints=JOINTS,
        output=output,
        output_scale=0.5,
        position_steps=2,
        chunk=chunk,
        dtype=jnp.dtype(dtype),
        kernel=kernel,
    )
    graphdef, weights = nnx.split(decoder)
    keys = jnp.arange(2 * BATCH, dtype=jnp.uint32).reshape(BATCH, 2)

    def run(weights, features, pose):
        decoder = nnx.merge(graphdef, weights)
        carry = decoder.initial_carry(pose) | {"step": jnp.arange(BATCH, dtype=jnp.int32) % 3}
        return decoder.rollout(features, carry, keys)

    return run, weights


def differentiated(run, weights):
    """(what run returns, gradients by all its arguments)."""

    def loss(*args):
        poses, carry = made = run(*args)
        state = sum(jnp.sum(jnp.cos(x)) for x in jax.tree.leaves(carry["state"]))
        return jnp.sum(jnp.sin(poses)) + state + jnp.sum(carry["pose"] ** 2), made

    (_, made), found = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(
        weights, *ARGUMENTS
    )
    return made, found


def compare(tolerance, *case):
    scan, (run, weights) = differentiated(*build("scan", *case)), build("fused", *case)
    fused = differentiated(run, weights)
    alone = jax.jit(run)(weights, *ARGUMENTS)  # keeps nothing for a way back
    for ours, theirs in ((fused, scan), (alone, scan[0])):
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


def test_values_and_gradients_are_those_of_the_scan():
    # f32 sums of 32 products in another order, 4 steps deep: some tens of 6e-8
    compare(1e-5, "hybrid", 16, 2, "float32", 0)


@pytest.mark.long
@pytest.mark.parametrize(
    "case",
    [
        ("position", 16, 1, "float32", 0),
        ("velocity", 16, 3, "float32", 3),  # a chunk, and one step left over
        ("position", 48, 2, "float32", 0),  # three tiles a layer
    ],
)
def test_all_outputs_depths_and_chunks_are_those_of_the_scan(case):
    compare(1e-5, *case)


@pytest.mark.long
def test_in_bfloat16_the_two_differ_by_its_rounding():
    # Products of 8-bit operands: the scan also rounds their results, each good to 2^-9
    compare(0.03, "position", 16, 2, "bfloat16", 0)


@pytest.mark.parametrize(("name", "value"), [("decoder", "mlp"), ("hidden", 24), ("hidden", 512)])
def test_a_decoder_that_cannot_be_fused_is_refused(tmp_path, name, value):
    changes = {"model__hidden": 16, "model__decoder_kernel": "fused"}
    assert small_config(tmp_path, tmp_path, **changes).model.hidden == 16
    with pytest.raises(UserError, match=r"kernel='fused' is not there for .* or use 'scan'"):
        small_config(tmp_path, tmp_path, **changes | {f"model__{name}": value})


def test_a_jax_without_triton_is_told_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax.experimental.pallas.triton", None)
    monkeypatch.delattr("jax.experimental.pallas.triton", raising=False)
    run, weights = build("fused", "velocity", 16, 1, "float32", 0)
    with pytest.raises(UserError, match=r"'fused' needs Pallas' Triton, .* use 'scan'"):
        jax.eval_shape(run, weights, *ARGUMENTS)
