"""Convolutions over two or three axes of space, channels last."""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tds_jax.nn.linear import add_bias, uniform

Padding = Literal["same", "valid"] | Sequence[tuple[int, int]]
_AXES = {1: "W", 2: "HW", 3: "DHW"}


def conv_nd(
    x: jax.Array, kernel: jax.Array, stride: int | Sequence[int], padding: Padding
) -> jax.Array:
    """x (B, *space, I), kernel (*sizes, I, O) -> (B, *space', O), for one to three axes of space.

    stride: one for all axes or one per axis. padding: zeros put (before, after) each axis; "same"
    is k // 2 on both sides whatever the stride, as PyTorch's `padding=k // 2` (Flax's "SAME" pads
    0 and 1 at stride 2 and size 3); "valid" is none. space' = (space + zeros - k) // stride + 1.
    """
    axes = _AXES[x.ndim - 2]
    sizes = kernel.shape[:-2]
    strides = (stride,) * len(axes) if isinstance(stride, int) else tuple(stride)
    if padding == "same":
        padding = [(size // 2, size // 2) for size in sizes]
    elif padding == "valid":
        padding = [(0, 0)] * len(sizes)
    numbers = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=numbers)


class ConvNd(nnx.Module):
    """`conv_nd` with a kernel (*sizes, in, out) and a bias, computed in `dtype`.

    Parameters are f32 and start as PyTorch's: U(-1/sqrt(fan), 1/sqrt(fan)), fan = inputs * sizes.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel: Sequence[int],
        *,
        stride: int | Sequence[int] = 1,
        padding: Padding = "same",
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        fan = in_features * int(np.prod(kernel))
        self.stride = stride if isinstance(stride, int) else tuple(stride)
        self.padding = padding if isinstance(padding, str) else tuple(padding)
        self.dtype = dtype
        self.kernel = nnx.Param(uniform(rngs, (*kernel, in_features, out_features), fan))
        self.bias = nnx.Param(uniform(rngs, (out_features,), fan))

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...].astype(self.dtype)
        return add_bias(
            conv_nd(x.astype(self.dtype), kernel, self.stride, self.padding), self.bias[...]
        )
