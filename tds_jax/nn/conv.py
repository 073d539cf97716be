"""Valid convolutions over time."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tds_jax.nn.conv_nd import conv_nd
from tds_jax.nn.linear import add_bias, uniform
from tds_jax.nn.module import Module

BLOCK = 16  # outputs per row of the banded product; 8 and 32 were within 10 %


@jax.custom_vjp
def width_conv1d(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x (B, T, G * W), kernel (K, G, H) -> (B, T - K + 1, H * W).

    The W columns of each group are convolved over time alike; channel index = group * W + column.
    Computed in the form that FORMS has for the backend; in any of them only x and kernel are kept
    for the backward pass (so no forward-mode derivative).
    """
    return jax.lax.platform_dependent(x, kernel, **FORMS)


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return width_conv1d(x, kernel), (x, kernel)


def _backward(saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    def pull(
        f: Callable[[jax.Array, jax.Array], jax.Array],
    ) -> Callable[..., tuple[jax.Array, jax.Array]]:
        return lambda x, kernel, g: jax.vjp(f, x, kernel)[1](g)

    pulled = {backend: pull(form) for backend, form in FORMS.items()}
    return jax.lax.platform_dependent(*saved, g, **pulled)


width_conv1d.defvjp(_forward, _backward)


def native(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`width_conv1d` by the backend's own convolution."""
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


def banded(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`width_conv1d` by products with a banded matrix of (span * G, BLOCK * H), BLOCK outputs each.

    8 outputs per column are too few for a CPU's matrix product; 8 * 16 are not. The zeros of the
    band cost span / K = 36 / 21 more operations, which a CPU makes up for twice, see FORMS.
    """
    batch, length, channels = x.shape
    size, groups, _ = kernel.shape
    count, span = length - size + 1, BLOCK + size - 1
    if count < BLOCK:  # a stream's one or two frames: the band would be mostly made for nothing
        x = x.reshape(batch, length, groups, channels // groups)
        spans = jnp.stack([x[:, k : k + count] for k in range(size)], axis=2)
        return jnp.einsum("bnkgw,kgh->bnhw", spans, kernel).reshape(batch, count, -1)
    blocks, reach = -(-count // BLOCK), -(-span // BLOCK)
    # Row s of the span meets output j of the block through kernel entry s - j.
    entry = np.arange(span)[:, None] - np.arange(BLOCK)
    place = jnp.asarray(entry[..., None] == np.arange(size), kernel.dtype)
    band = jnp.einsum("sjk,kgh->sgjh", place, kernel)
    x = jnp.pad(x, ((0, 0), (0, (blocks + reach - 1) * BLOCK - length), (0, 0)))
    x = x.reshape(batch, -1, BLOCK, groups, channels // groups)
    parts = [x[:, j : j + blocks, : span - j * BLOCK] for j in range(reach)]
    spans = jnp.concatenate(parts, axis=2)
    y = jnp.einsum("bnsgw,sgjh->bnjhw", spans, band)
    return y.reshape(batch, blocks * BLOCK, -1)[:, :count]


# Which form a backend takes. Forward and backward, ms, f32:
#
#                      (16, 998, 32), K 21    (16, 470, 64), K 11
#                       native     banded      native     banded
#   CPU, 2 cores          14.2        6.6         9.8        5.9
#   card, TPU          not measured: python -m experiments.card --only=width_conv
FORMS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "cpu": banded,
    "default": native,
}


class Conv1d(Module):
    """x (B, T, in) -> (B, (T - K) // stride + 1, out); kernel (K, in, out), a bias if asked for.

    Computed in `dtype`.
    """

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
        y = conv_nd(x.astype(self.dtype), self.kernel[...].astype(self.dtype), self.stride, "valid")
        return y if self.bias is None else add_bias(y, self.bias[...])
