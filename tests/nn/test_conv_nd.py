"""Laws of the convolutions over time and space."""

import itertools
import re

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
        ((7,), (2,), (1,), ((3, 0),)),  # more zeros than the kernel has entries beside its first
        ((5, 6), (3, 2), (1, 1), ((1, 0), (0, 2))),
        ((4, 3, 5), (3, 3, 3), (1, 1, 1), ((1, 1), (1, 1), (1, 1))),
        ((1, 3, 4), (3, 3, 3), (2, 1, 2), ((1, 1), (1, 1), (1, 1))),  # layers that meet zeros alone
    ],
)
def test_convolutions_have_the_gradients_of_the_native_ones(space, sizes, strides, zeros):
    x, kernel = normal(2, *space, 3), normal(*sizes, 3, 4, seed=1)

    def plain(x, kernel):
        """Zeros put there: of more zeros than kernel XLA's own gradient on CPU is wrong."""
        nothing = ((0, 0),) * len(space)
        return native(strides, nothing, jnp.pad(x, ((0, 0), *zeros, (0, 0))), kernel)

    g = normal(*plain(x, kernel).shape, seed=2)
    ours = jax.jit(lambda: jax.vjp(lambda *a: conv_nd(*a, strides, zeros), x, kernel)[1](g))()
    for a, b in zip(ours, jax.vjp(plain, x, kernel)[1](g), strict=True):
        # sums of at most 60 products of order 1 in f32: 60 * 6e-8 * a few
        np.testing.assert_allclose(a, b, atol=3e-5)


@pytest.mark.parametrize(("axes", "stride"), [(1, 1), (2, 1), (2, 2), (3, 1), (3, (1, 2, 2))])
def test_gradients_on_cpu_are_convolutions_that_are_fast_in_loops_too(axes, stride):
    """XLA brings other layouts in order outside of loops only: inside, that of the kernel of a
    3 x 3 convolution took 50 times as long as in this one."""

    def update(x, kernel):
        y, pull = jax.vjp(lambda *a: conv_nd(*a, stride, "same"), x, kernel)
        return pull(y)

    arrays = normal(2, *(5,) * axes, 3), normal(*(3,) * axes, 3, 4)
    text = jax.jit(update).trace(*arrays).lower(lowering_platforms=("cpu",)).as_text()
    layouts = re.findall(r"dim_numbers = (.*?), window", text)
    plane = ", ".join(map(str, range(min(axes, 2))))  # those over three axes are made of these
    assert len(layouts) >= 3
    assert set(layouts) == {f"[b, {plane}, f]x[{plane}, i, o]->[b, {plane}, f]"}
    assert set(re.findall(r"lhs_dilate = \[(.*?)\]", text)) <= {"1", "1, 1"}
    assert "true" not in "".join(re.findall(r"reverse = \[.*?\]", text))


def test_convolutions_of_volumes_keep_their_input_once():
    """Not the depths under the kernel side by side, which is three of it; nor anything else that
    its gradients read."""
    x = normal(1, 8, 16, 16, 8)

    def temporaries(layers):
        def loss(kernels, x):
            for kernel in kernels:
                x = jnp.sin(conv_nd(x, kernel, 1, "same"))
            return jnp.sum(x)

        kernels = [normal(3, 3, 3, 8, 8, seed=n) for n in range(layers)]
        compiled = jax.jit(jax.grad(loss)).lower(kernels, x).compile()
        return compiled.memory_analysis().temp_size_in_bytes / (4 * x.size)

    assert temporaries(6) - temporaries(2) < 4 * 2.5  # also what the sine's gradient reads


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
