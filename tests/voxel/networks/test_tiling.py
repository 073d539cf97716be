"""A tile at a time gives what the whole gives: values, latents, gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.voxel.networks import tiling
from tds_jax.voxel.networks.blocks import Attention, Conv, Out, Res, Up
from tests.voxel.filled import make, random, volume, widened


class Chain(nnx.Module):
    """Blocks of one kind of span: at its start and end volumes are small."""

    def __init__(self, kind, dtype):
        given = {"dtype": jnp.dtype(dtype), "rngs": nnx.Rngs(0)}
        if kind == "reducing":
            self.one, self.two = Conv(2, 4, **given), Res(4, 6, **given)
            self.three = Conv(6, 6, down=(1, 2, 2), **given)
        else:
            self.one, self.two = Up(2, (2, 1, 2), **given), Res(2, 4, **given)
            self.three = Out(4, 2, **given)

    def blocks(self):
        return [self.one, self.two, self.three]


def result(kind, dtype, tile):
    """(value, gradients of parameters and input) of a chain on (2, 3, 22, 4, 2)."""
    graphdef, params, _ = random(lambda: Chain(kind, dtype))

    def value(params, x):
        y = tiling.run(nnx.merge(graphdef, params).blocks(), x, remat="none", tile=tile)
        # Every output has its own weight, and its square counts too.
        weights = jnp.sin(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
        return jnp.sum(weights * y * (1 + y))

    x = volume(2, 3, 22, 4, 2)
    params, x = widened((params, x)) if dtype == "float64" else (params, x)
    return jax.jit(jax.value_and_grad(value, argnums=(0, 1)))(params, x)


# f64: eps 1e-16, f32: 6e-8, times sums of some 1000 roundings. Tiles of 2 and 3 coarse rows, the
# last one repeated in part: 11 rows cut by 2, 22 by 3.
@pytest.mark.parametrize(
    ("kind", "tile", "dtype", "tolerance"),
    [
        ("reducing", 72 * 2, "float64", 1e-12),
        pytest.param("enlarging", 48 * 11, "float64", 1e-12, marks=pytest.mark.long),
        pytest.param("enlarging", 48 * 11, "float32", 1e-5, marks=pytest.mark.long),
    ],
)
def test_training_by_tiles_has_the_value_and_gradients_of_the_whole(kind, tile, dtype, tolerance):
    with jax.enable_x64(dtype == "float64"):
        value, gradients = result(kind, dtype, tile)
        expected, exact = result(kind, dtype, 0)
        assert float(value) == pytest.approx(float(expected), rel=tolerance)
        largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(exact))
        for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(exact), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize(
    "shape", [(1, 19, 4, 6, 2), pytest.param((1, 3, 34, 4, 2), marks=pytest.mark.long)]
)
def test_encoding_and_decoding_by_tiles_is_the_whole_at_any_size(shape):
    def both(tile):
        graphdef, params, rest = make(tile=tile)

        def f(params, x):
            model = nnx.merge(graphdef, params, rest)
            z = model.latent(x)
            return z, model.decode(z)

        return jax.jit(f)(params, volume(*shape))

    for whole, tiled in zip(both(0), both(90), strict=True):
        assert np.abs(tiled - whole).max() <= 1e-5 * np.abs(whole).max()  # f32, 20 layers


def chain(*blocks):
    return [step for block in blocks for step in block.steps()]


def layers(*makers):
    """Blocks, of shapes only."""
    return [nnx.eval_shape(lambda m=m: m(dtype=jnp.float32, rngs=nnx.Rngs(0))) for m in makers]


def test_a_plan_stays_below_the_tile_and_leaves_a_halo_on_both_sides():
    conv, up, res, down = layers(
        functools.partial(Conv, 2, 2),
        functools.partial(Up, 2, (1, 2, 2)),
        functools.partial(Res, 2, 2),
        functools.partial(Conv, 2, 2, down=(1, 2, 2)),
    )
    # 600 rows of 8 x 10 voxels; three convolutions reach 3 rows.
    cut = tiling.plan(chain(conv, res), (1, 8, 600, 10, 2), 8 * 10 * 20)
    assert (cut.axis, cut.rows, cut.window, cut.own) == (2, 600, 20, 14)
    # Enlarged rows count, 2 x 8 x 20 voxels each; three fine rows reach two coarse ones.
    cut = tiling.plan(chain(up, res), (1, 8, 300, 10, 2), 2 * 8 * 20 * 9)
    assert (cut.axis, cut.rows, cut.window, cut.own) == (2, 300, 9, 5)
    # Never less than a row and its halo: four rows, two when they are halved.
    cut = tiling.plan(chain(conv, res, down), (1, 8, 600, 10, 2), 1)
    assert (cut.rows, cut.window, cut.own) == (300, 5, 1)


def test_what_fits_or_reaches_everywhere_is_not_cut():
    conv, attention = layers(functools.partial(Conv, 4, 4), functools.partial(Attention, 4))
    assert tiling.plan(chain(conv), (1, 4, 8, 8, 4), 256) is None
    assert tiling.plan(chain(conv), (1, 4, 8, 8, 4), 0) is None
    assert tiling.plan(chain(attention), (1, 40, 8, 8, 4), 10) is None
    spans = tiling.spans([conv, attention, conv], "coder")
    assert [len(span) for span in spans] == [1, 1, 1]


# encoder: in res down | res | middle | middle | out
# decoder: in middle | middle | res | res | up res | res | out
@pytest.mark.parametrize(
    ("span", "encoder", "decoder"),
    [
        ("block", [3, 1, 1, 1, 1], [2, 1, 1, 1, 2, 1, 1]),
        ("stage", [3, 4], [5, 4]),
        ("coder", [7], [9]),
    ],
)
def test_spans_are_cut_where_volumes_are_smallest(span, encoder, decoder):
    model = nnx.merge(*make())
    for coder, sizes in ((model.encoder, encoder), (model.decoder, decoder)):
        assert [len(one) for one in tiling.spans(coder.blocks(), span)] == sizes


def test_backward_of_tiles_keeps_the_input_only():
    graphdef, params, _ = random(lambda: Res(4, 4, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    x = volume(1, 4, 32, 8, 4).astype(jnp.bfloat16)

    def kept(tile):
        def f(params, x):
            return tiling.run([nnx.merge(graphdef, params)], x, remat="none", tile=tile)

        pullback = jax.eval_shape(lambda *a: jax.vjp(f, *a)[1], params, x)
        leaves = jax.tree.leaves(pullback)
        return sum(n.size * n.dtype.itemsize for n in leaves if n.size >= x.size)

    assert kept(400) == x.size * 2 < kept(0)
