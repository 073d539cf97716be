"""Valid convolutions over time."""

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax.nn.linear import add_bias, uniform


def conv1d(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """x (B, T, I), kernel (K, I, O) -> (B, (T - K) // stride + 1, O), no padding."""
    return jax.lax.conv_general_dilated(
        x, kernel, (stride,), "VALID", dimension_numbers=("NTC", "TIO", "NTC")
    )


def width_conv1d(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x (B, T, G * W), kernel (K, G, H) -> (B, T - K + 1, H * W).

    The W columns of each group are convolved over time alike; channel index = group * W + column.
    """
    batch, length, channels = x.shape
    size, groups, out = kernel.shape
    y = jax.lax.conv_general_dilated(
        x.reshape(batch, length, groups, channels // groups),
        kernel[:, None],
        (1, 1),
        "VALID",
        dimension_numbers=("NTCW", "TWIO", "NTCW"),
    )
    return y.reshape(batch, length - size + 1, out * channels // groups)


class Conv1d(nnx.Module):
    """`conv1d` with a kernel (K, in, out) and optionally a bias, computed in `dtype`."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        stride: int,
        *,
        bias: bool,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        fan = in_features * kernel_size
        self.stride = stride
        self.dtype = dtype
        self.kernel = nnx.Param(uniform(rngs, (kernel_size, in_features, out_features), fan))
        self.bias = nnx.Param(uniform(rngs, (out_features,), fan)) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = conv1d(x.astype(self.dtype), self.kernel[...].astype(self.dtype), self.stride)
        return y if self.bias is None else add_bias(y, self.bias[...])
