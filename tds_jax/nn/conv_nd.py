"""Convolutions over one to three axes, channels last."""

import functools
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tds_jax.nn.linear import add_bias, uniform
from tds_jax.nn.module import Module
from tds_jax.nn.strided import Pair, Strides, Zeros, convolve, native, pulled_natively

Padding = Literal["same", "valid"] | Sequence[tuple[int, int]]


def conv_nd(
    x: jax.Array, kernel: jax.Array, stride: int | Sequence[int], padding: Padding
) -> jax.Array:
    """x (B, *space, I), kernel (*sizes, I, O) -> (B, *space', O), for one to three axes of space.

    stride: one for all axes or one per axis. padding: zeros put (before, after) each axis; "same"
    is k // 2 on both sides whatever the stride, as PyTorch's `padding=k // 2` (Flax's "SAME" pads
    0 and 1 at stride 2 and size 3); "valid" is none. space' = (space + zeros - k) // stride + 1.
    """
    sizes = kernel.shape[:-2]
    strides = (stride,) * len(sizes) if isinstance(stride, int) else tuple(stride)
    if padding == "same":
        padding = [(size // 2, size // 2) for size in sizes]
    elif padding == "valid":
        padding = [(0, 0)] * len(sizes)
    zeros = tuple((before, after) for before, after in padding)
    form = _volume_conv if len(sizes) == 3 else convolve
    return form(strides, zeros, x, kernel)


def encircled(x: jax.Array, size: int) -> jax.Array:
    """x (B, *space, I) with size // 2 columns of its other end on both sides of the last axis.

    A convolution of that size without zeros there then sees the axis as a circle.
    """
    edge = size // 2
    return jnp.concatenate([x[..., x.shape[-2] - edge :, :], x, x[..., :edge, :]], axis=-2)


def by_depth(strides: Strides, zeros: Zeros, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """One convolution over height and width, the depths under the kernel side by side as channels.

    XLA's three-dimensional convolutions are slow on CPU. Milliseconds for forward, gradient of x,
    of the kernel, (1, 8, 32, 32, 16) to 16: 35, 36, 63; like this 1.0, 0.9, 5.2, and 2.2 as
    `_pulled_by_depth` has it. One convolution for each layer of the kernel, added up: 7.3, 3.9,
    3.9, and as many results of full size.
    """
    x = jnp.pad(x, ((0, 0), zeros[0], (0, 0), (0, 0), (0, 0)))
    batch, depth, height, width, _ = x.shape
    layers, *plane, _, outputs = kernel.shape
    count = (depth - layers) // strides[0] + 1
    end = (count - 1) * strides[0] + 1
    rows = jnp.concatenate([x[:, k : k + end : strides[0]] for k in range(layers)], axis=-1)
    rows = rows.reshape(batch * count, height, width, -1)
    flat = jnp.moveaxis(kernel, 0, 2).reshape(*plane, -1, outputs)
    y = convolve(strides[1:], zeros[1:], rows, flat)
    return y.reshape(batch, count, *y.shape[1:])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _volume_conv(strides: Strides, zeros: Zeros, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`native`, on CPU `by_depth`; keeps x and kernel for the backward pass, whichever it is."""
    cpu, default = (functools.partial(form, strides, zeros) for form in (by_depth, native))
    return jax.lax.platform_dependent(x, kernel, cpu=cpu, default=default)


def _forward(
    strides: Strides, zeros: Zeros, x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, Pair]:
    return _volume_conv(strides, zeros, x, kernel), (x, kernel)


def _backward(strides: Strides, zeros: Zeros, saved: Pair, g: jax.Array) -> Pair:
    forms = (_pulled_by_depth, pulled_natively)
    cpu, default = (functools.partial(form, strides, zeros) for form in forms)
    return jax.lax.platform_dependent(*saved, g, cpu=cpu, default=default)


def _pulled_by_depth(
    strides: Strides, zeros: Zeros, x: jax.Array, kernel: jax.Array, g: jax.Array
) -> Pair:
    """Cotangents of `by_depth`, the kernel's layer by layer in a loop.

    Of all layers at once it would read the depths side by side, the forward pass's own: XLA would
    keep these, as many volumes as the kernel has layers, and not x. Without a loop it would make
    what each layer reads as soon as it can, in the forward pass, and keep that.
    """
    (dx,) = jax.vjp(lambda x: by_depth(strides, zeros, x, kernel), x)[1](g)
    padded = jnp.pad(x, ((0, 0), zeros[0], (0, 0), (0, 0), (0, 0)))
    end, g = (g.shape[1] - 1) * strides[0] + 1, g.reshape(-1, *g.shape[2:])

    def layer(k: jax.Array) -> jax.Array:
        seen = jax.lax.dynamic_slice_in_dim(padded, k, end, axis=1)[:, :: strides[0]]
        conv = functools.partial(convolve, strides[1:], zeros[1:], seen.reshape(-1, *x.shape[2:]))
        return jax.vjp(conv, kernel[0])[1](g)[0]

    return dx, jax.lax.map(layer, jnp.arange(len(kernel)))


_volume_conv.defvjp(_forward, _backward)


class ConvNd(Module):
    """`conv_nd` with a kernel (*sizes, in, out) and a bias, computed in `dtype`.

    Parameters are f32 and start as PyTorch's: U(-1/sqrt(fan), 1/sqrt(fan)), fan = inputs * sizes.
    periodic: the last axis of space, padded as "same" at stride 1, is a circle, not between zeros.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel: Sequence[int],
        *,
        stride: int | Sequence[int] = 1,
        padding: Padding = "same",
        periodic: bool = False,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        fan = in_features * int(np.prod(kernel))
        self.stride = stride if isinstance(stride, int) else tuple(stride)
        self.padding = padding if isinstance(padding, str) else tuple(padding)
        self.periodic = periodic
        self.dtype = dtype
        self.kernel = nnx.Param(uniform(rngs, (*kernel, in_features, out_features), fan))
        self.bias = nnx.Param(uniform(rngs, (out_features,), fan))

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...].astype(self.dtype)
        x = x.astype(self.dtype)
        if not self.periodic:
            return add_bias(conv_nd(x, kernel, self.stride, self.padding), self.bias[...])
        *sizes, last = kernel.shape[:-2]
        zeros = [*((size // 2, size // 2) for size in sizes), (0, 0)]
        y = conv_nd(encircled(x, last), kernel, self.stride, zeros)
        return add_bias(y, self.bias[...])
