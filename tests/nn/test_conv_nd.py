"""Laws of the convolutions over time and space."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.nn.conv_nd import ConvNd, conv_nd
from tds_jax.nn.strided import native

F32 = jnp.float32


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), F32)


def by_definition(x, kernel, stride, pairs):
    """Every output as the product of its window, in f64."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    sizes = kernel.shape[:-2]
    x = np.pad(x, ((0, 0), *pairs, (0, 0)))
    counts = [(n - k) // s + 1 for n, k, s in zip(x.shape[1:-1], sizes, stride, strict=True)]
    y = np.zeros((x.shape[0], *counts, kernel.shape[-1]))
    for at in itertools.product(*map(range, counts)):
        cut = [slice(a * s, a * s + k) for a, s, k in zip(at, stride, sizes, strict=True)]
        window = x[(slice(None), *cut)].reshape(len(x), -1)
        y[(slice(None), *at)] = window @ kernel.reshape(-1, kernel.shape[-1])
    return y


@pytest.mark.parametrize(
    ("space", "sizes", "stride", "padding", "pairs"),
    [
        ((23,), (5,), 5, "valid", [(0, 0)]),
        ((5, 4), (3, 3), 1, "same", [(1, 1)] * 2),
        ((4, 5, 6), (3, 3, 3), (1, 2, 2), "same", [(1, 1)] * 3),
        ((4, 5, 6), (2, 3, 1), 1, [(1, 0), (0, 2), (0, 0)], [(1, 0), (0, 2), (0, 0)]),
        ((5, 6), (3, 2), 2, "valid", [(0, 0)] * 2),
    ],
)
def test_every_output_is_the_product_of_its_window(space, sizes, stride, padding, pairs):
    x, kernel = normal(2, *space, 3), normal(*sizes, 3, 4, seed=1)
    strides = (stride,) * len(space) if isinstance(stride, int) else stride
    ours = conv_nd(x, kernel, stride, padding)
    # sums of at most 81 products of order 1 in f32: 81 * 6e-8 * a few
    np.testing.assert_allclose(ours, by_definition(x, kernel, strides, pairs), atol=3e-5)


@pytest.mark.parametrize(
    ("space", "sizes", "strides", "zeros"),
    [
        ((23,), (5,), (2,), ((0, 0),)),  # the last input meets no output
        ((24,), (17,), (4,), ((0, 0),)),
        ((9,), (2,), (3,), ((0, 0),)),  # a kernel shorter than the stride: inputs between
        ((7,), (3,), (2,), ((1, 4),)),
        ((9, 8), (3, 3), (2, 2), ((1, 1), (1, 1))),
        ((5, 9, 8), (3, 2, 1), (1, 3, 2), ((1, 0), (0, 2), (0, 0))),
    ],
)
def test_strided_convolutions_have_the_gradients_of_the_native_ones(space, sizes, strides, zeros):
    x, kernel = normal(2, *space, 3), normal(*sizes, 3, 4, seed=1)
    plain = functools.partial(native, strides, zeros)
    g = normal(*plain(x, kernel).shape, seed=2)
    ours = jax.jit(lambda: jax.vjp(lambda *a: conv_nd(*a, strides, zeros), x, kernel)[1](g))()
    for a, b in zip(ours, jax.vjp(plain, x, kernel)[1](g), strict=True):
        # sums of at most 60 products of order 1 in f32: 60 * 6e-8 * a few
        np.testing.assert_allclose(a, b, atol=3e-5)


def test_layer_starts_as_torch_does_and_adds_its_bias():
    conv = ConvNd(3, 500, (3, 3, 3), dtype=F32, rngs=nnx.Rngs(0))
    bound = (3 * 27) ** -0.5
    for leaf in (conv.kernel[...], conv.bias[...]):
        assert np.abs(leaf).max() <= bound
        # 500 and 40 500 uniform draws: the deviation is bound / sqrt(3) to 3 %
        np.testing.assert_allclose(np.std(leaf), bound / 3**0.5, rtol=0.05)
    y = conv(jnp.zeros((1, 2, 2, 2, 3)))
    np.testing.assert_array_equal(y[0, 0, 0, 0], conv.bias[...])


def test_layer_computes_in_its_type_and_keeps_parameters_wide():
    conv = ConvNd(3, 4, (3, 3), dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    y = conv(normal(1, 4, 4, 3))
    assert y.dtype == jnp.bfloat16
    gradient = jax.grad(lambda k: jnp.sum(conv_nd(normal(1, 4, 4, 3), k, 1, "same")))
    assert conv.kernel[...].dtype == gradient(conv.kernel[...]).dtype == F32
