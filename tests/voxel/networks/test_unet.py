"""The latent U-Net against the original's output, and its laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.engine.program import RUNS_ONCE
from tds_jax.engine.step import split
from tds_jax.errors import UserError
from tds_jax.voxel.networks import unet_names
from tds_jax.voxel.networks.unet import LinearAttention, TimeBlock, UNet
from tests.voxel import golden

F32 = jnp.dtype("float32")
PUBLISHED = {"width": 32, "multipliers": (1, 2, 3), "heads": 4}


def abstract(**sizes):
    sizes = {"remat": "none", "dtype": F32} | sizes
    return split(nnx.eval_shape(lambda: UNet(8, 4, **sizes, rngs=nnx.Rngs(0))))


SMALL = {"width": 4, "multipliers": (1,), "heads": 2, "dtype": F32}


def test_parameters_are_counted_as_published():
    _, params, rest = abstract(**PUBLISHED)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 4_732_548
    assert not rest


def test_the_forward_pass_is_the_originals():
    graphdef, params, _ = abstract(**PUBLISHED)
    tensors = golden.fill(golden.shapes("ldm_unet_main"))
    filled = jax.tree.map(jnp.asarray, unet_names.import_params(params, tensors))
    stored = golden.arrays()
    run = jax.jit(lambda params, x, t: nnx.merge(graphdef, params)(x, t))
    # f32: some 30 convolutions of up to 5,184 products, values up to 0.85
    got = run(filled, jnp.asarray(stored["xu"]), jnp.float32([0.5, 20.0]))
    np.testing.assert_allclose(got, stored["unet"], atol=5e-5)


def test_a_block_keeps_the_inputs_of_its_norms_and_convolutions_alone():
    block = TimeBlock(4, 4, 8, dtype=F32, rngs=nnx.Rngs(0))
    x, time = jnp.zeros((1, 4, 4, 4, 4)), jnp.zeros((1, 8))
    pullback = jax.eval_shape(lambda *inputs: jax.vjp(block, *inputs)[1], x, time)
    kept = [leaf for leaf in jax.tree.leaves(pullback) if leaf.shape == x.shape]
    assert len(kept) == 4


def test_the_noise_level_scales_what_a_block_normalises_and_then_shifts_it():
    block = TimeBlock(4, 4, 8, dtype=F32, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    kernel = block.conv_out.kernel
    kernel.set_value(jnp.float32(rng.normal(size=kernel.get_value().shape)))  # it begins at 0
    x, time = (jnp.float32(rng.normal(size=shape)) for shape in ((2, 4, 4, 4, 4), (2, 8)))
    h = block.conv_in(block.norm_in(x))
    grouped = h.reshape(2, -1, block.norm_out.groups, 4 // block.norm_out.groups)
    mean, var = (f(grouped, axis=(1, 3), keepdims=True) for f in (jnp.mean, jnp.var))
    normal = ((grouped - mean) * jax.lax.rsqrt(var + block.norm_out.eps)).reshape(h.shape)
    scale, shift = jnp.split(block.time(jax.nn.silu(time))[:, None, None, None], 2, axis=-1)
    expected = x + block.conv_out(jax.nn.silu(normal * (1 + scale) + shift))
    # f32: sums of 64 numbers for the moments, of 108 products for the convolution, values up to 30
    np.testing.assert_allclose(block(x, time), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.long
def test_a_fresh_network_answers_zero():
    def init():
        return split(UNet(8, 4, **SMALL, remat="none", rngs=nnx.Rngs(1)))[1]

    fresh = jax.jit(init, compiler_options=RUNS_ONCE)()
    assert not np.any(fresh["conv_out"]["kernel"])
    assert not np.any(fresh["middle_0"]["conv_out"]["kernel"])
    assert np.any(fresh["middle_0"]["conv_in"]["kernel"])


@pytest.mark.long
def test_recomputation_gives_the_same_values_and_gradients():
    rng = np.random.default_rng(0)
    x = jnp.float32(rng.normal(size=(2, 2, 4, 4, 8)))
    _, shapes, _ = abstract(**SMALL)
    # Not the start, whose last convolutions are zero.
    params = jax.tree.map(lambda p: jnp.float32(0.2 * rng.normal(size=p.shape)), shapes)

    def values(remat):
        graphdef, _, _ = abstract(**SMALL, remat=remat)

        def total(params):
            return jnp.sum(nnx.merge(graphdef, params)(x, jnp.float32([0.3, 7.0])) ** 2)

        return jax.jit(jax.value_and_grad(total))(params)

    # the same operations: XLA may fuse and round them differently
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        values("none"),
        values("full"),
    )


def test_attention_mixes_all_cells_and_knows_no_places():
    attention = LinearAttention(8, 2, dtype=F32, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    x = jnp.float32(rng.normal(size=(1, 2, 3, 4, 8)))
    order = rng.permutation(24)

    def shuffled(x):
        return x.reshape(1, 24, 8)[:, order].reshape(x.shape)

    # sums over 24 cells in another order
    np.testing.assert_allclose(attention(shuffled(x)), shuffled(attention(x)), atol=2e-5)
    far = x.at[0, 0, 0, 0].add(3.0)
    assert np.abs(attention(far) - attention(x))[0, 1, 2, 3].max() > 1e-4


def test_a_tensor_that_is_no_part_of_the_network_is_named():
    _, params, _ = abstract(**PUBLISHED)
    tensors = golden.fill({"time_embed.0.weight": (128, 32), "nonsense.weight": (3,)})
    with pytest.raises(UserError, match=r"'nonsense.weight' of shape \(3,\) is not one of"):
        unet_names.import_params(params, tensors)
    tensors = golden.fill(golden.shapes("ldm_unet_main") | {"out.2.bias": (7,)})
    with pytest.raises(UserError, match=r"'out.2.bias' gives 'conv_out bias' the shape \(7,\)"):
        unet_names.import_params(params, tensors)
