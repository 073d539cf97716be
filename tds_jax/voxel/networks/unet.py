"""A U-Net over latent volumes that is told the noise level.

With the settings of configs/voxel_base.py (8 channels in, 4 out, width 32, multipliers 1, 2, 3, 4
heads) it is the 4D-Radar project's, of 4,732,548 parameters.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tds_jax.nn.conv_nd import ConvNd
from tds_jax.nn.group_norm import GroupNorm
from tds_jax.nn.linear import Linear
from tds_jax.nn.module import Module
from tds_jax.nn.precision import at_least_f32
from tds_jax.nn.remat import checkpoint, keep
from tds_jax.voxel.networks.blocks import enlarge, groups_of, norm_of

PERIODS = 1e4  # the slowest wave of the time embedding turns once in 2 pi times this
TIME_WIDTH = 4  # width of the time embedding / width of the first level


class TimeBlock(Module):
    """Residual block whose second norm is scaled and shifted by the time embedding.

    Its last convolution starts at zero: a fresh block passes its input on.
    """

    def __init__(
        self, inputs: int, outputs: int, time: int, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        self.norm_in = norm_of(inputs, dtype)
        self.conv_in = _conv(inputs, outputs, dtype=dtype, rngs=rngs)
        self.time = Linear(time, 2 * outputs, dtype=dtype, rngs=rngs)
        self.norm_out = norm_of(outputs, dtype)
        self.conv_out = _zero(_conv(outputs, outputs, dtype=dtype, rngs=rngs))
        wider = inputs != outputs
        self.skip = _conv(inputs, outputs, size=1, dtype=dtype, rngs=rngs) if wider else None

    def __call__(self, x: jax.Array, time: jax.Array) -> jax.Array:
        """x (B, D, H, W, inputs), time (B, T)."""
        h = self.conv_in(self.norm_in(x))
        scale, shift = jnp.split(self.time(jax.nn.silu(time)), 2, axis=-1)
        h = self.conv_out(self.norm_out(h, told=(scale, shift)))
        return keep((x if self.skip is None else self.skip(x)) + h)


class LinearAttention(Module):
    """Attention whose work and memory grow with the number of cells, not with its square.

    Scores are products of elu + 1 of queries and keys, so keys and values are summed once, within
    each of `heads` equal parts of the features. Sums are f32 at least. The result is normalised and
    added to the input. No weight has a shape that tells the number of heads.
    """

    def __init__(self, features: int, heads: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        if features % heads:
            raise ValueError(f"heads={heads} does not divide features={features}")
        self.heads = heads
        self.norm = _norm(features, dtype)
        self.qkv = _conv(features, 3 * features, size=1, dtype=dtype, rngs=rngs)
        self.out = _conv(features, features, size=1, dtype=dtype, rngs=rngs)
        self.norm_out = _norm(features, dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        batch, *space, features = x.shape
        tokens = self.qkv(self.norm(x)).astype(at_least_f32(x.dtype))
        tokens = tokens.reshape(batch, -1, 3, self.heads, features // self.heads)
        q, k, v = (tokens[:, :, part] for part in range(3))  # (B, N, heads, size) each
        q, k = jax.nn.elu(q) + 1, jax.nn.elu(k) + 1
        k = k / jnp.maximum(jnp.sum(k, axis=1, keepdims=True), 1e-6)
        context = jnp.einsum("bnhd,bnhe->bhde", k, v)
        scale = jnp.einsum("bnhd,bhd->bnh", q, jnp.sum(k, axis=1))
        mixed = jnp.einsum("bnhd,bhde->bnhe", q, context) / jnp.maximum(scale, 1e-6)[..., None]
        mixed = mixed.reshape(batch, *space, features).astype(x.dtype)
        return x + self.norm_out(self.out(mixed))


class UNet(Module):
    """(B, D, H, W, in_channels), times (B,) -> (B, D, H, W, out_channels), f32; 0 if fresh.

    One residual block per level going down, two going up; level i has width * multipliers[i]
    channels and half the cells of the one above along every axis, so D, H and W must be multiples
    of 2 ** (levels - 1). The middle has linear attention of `heads`. remat: see `nn.remat`, per
    block. Times are embedded in f32, f64 for f64.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int,
        multipliers: Sequence[int],
        heads: int,
        remat: str,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        self.width, self.remat, self.levels = width, remat, len(multipliers)
        time = TIME_WIDTH * width
        channels = [width * m for m in multipliers]
        self.wide = at_least_f32(dtype)
        self.time_in = Linear(width, time, dtype=self.wide, rngs=rngs)
        self.time_out = Linear(time, time, dtype=self.wide, rngs=rngs)
        self.conv_in = _conv(in_channels, width, dtype=dtype, rngs=rngs)
        skips, before = [width], width
        for level, c in enumerate(channels):
            setattr(self, f"down_{level}", TimeBlock(before, c, time, dtype=dtype, rngs=rngs))
            skips, before = [*skips, c], c
            if level < self.levels - 1:
                conv = _conv(c, c, stride=2, dtype=dtype, rngs=rngs)
                setattr(self, f"shrink_{level}", conv)
                skips.append(c)
        self.middle_0 = TimeBlock(before, before, time, dtype=dtype, rngs=rngs)
        self.attention = LinearAttention(before, heads, dtype=dtype, rngs=rngs)
        self.middle_1 = TimeBlock(before, before, time, dtype=dtype, rngs=rngs)
        for n in range(2 * self.levels):  # two for every level, the deepest first
            c = channels[-1 - n // 2]
            block = TimeBlock(before + skips.pop(), c, time, dtype=dtype, rngs=rngs)
            setattr(self, f"up_{n}", block)
            before = c
            if self._grows_after(n):
                setattr(self, f"grow_{n}", _conv(c, c, dtype=dtype, rngs=rngs))
        self.norm_out = norm_of(before, dtype)
        self.conv_out = _zero(_conv(before, out_channels, dtype=dtype, rngs=rngs))

    def __call__(self, x: jax.Array, times: jax.Array) -> jax.Array:
        time = self.time_out(jax.nn.silu(self.time_in(embed(times.astype(self.wide), self.width))))
        h = self.conv_in(x)
        skips = [h]
        for level in range(self.levels):
            h = self._block(f"down_{level}", h, time)
            skips.append(h)
            if level < self.levels - 1:
                h = getattr(self, f"shrink_{level}")(h)
                skips.append(h)
        h = self._block("middle_0", h, time)
        h = self._block("middle_1", self.attention(h), time)
        for n in range(2 * self.levels):
            h = self._block(f"up_{n}", jnp.concatenate([h, skips.pop()], axis=-1), time)
            if self._grows_after(n):
                h = getattr(self, f"grow_{n}")(enlarge(h, (2, 2, 2)))
        return self.conv_out(self.norm_out(h)).astype(self.wide)

    def _grows_after(self, n: int) -> bool:
        return n % 2 == 1 and n < 2 * self.levels - 1

    def _block(self, name: str, x: jax.Array, time: jax.Array) -> jax.Array:
        return checkpoint(getattr(self, name), self.remat)(x, time)


def embed(times: jax.Array, width: int) -> jax.Array:
    """(B,) -> (B, width): cosines, then sines, of width / 2 geometric frequencies from 1 down."""
    half = width // 2
    frequency = np.exp(-math.log(PERIODS) * np.arange(half) / half).astype(times.dtype)
    angle = times[:, None] * frequency[None]
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def _norm(features: int, dtype: jnp.dtype) -> GroupNorm:
    return GroupNorm(features, groups_of(features), dtype=dtype)


def _conv(
    inputs: int, outputs: int, *, size: int = 3, stride: int = 1, dtype: jnp.dtype, rngs: nnx.Rngs
) -> ConvNd:
    return ConvNd(inputs, outputs, (size,) * 3, stride=stride, dtype=dtype, rngs=rngs)


def _zero(conv: ConvNd) -> ConvNd:
    conv.kernel[...] = jnp.zeros_like(conv.kernel[...])
    conv.bias[...] = jnp.zeros_like(conv.bias[...])
    return conv
