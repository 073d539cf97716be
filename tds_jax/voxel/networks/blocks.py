"""Building blocks of volume networks, each a chain of steps that begin with a normalisation.

Between two normalisations everything is local, so that steps are what `tiling` cuts at.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax.nn.conv_nd import ConvNd
from tds_jax.nn.group_norm import GroupNorm
from tds_jax.nn.module import Module
from tds_jax.nn.moments import Moments
from tds_jax.nn.precision import at_least_f32
from tds_jax.nn.remat import keep
from tds_jax.voxel.config import ATTENTION_HEADS

State = tuple[jax.Array, ...]
"""What flows through a chain: the volume (B, D, H, W, C) and, inside a block, its skip."""

Scale = tuple[int, int, int]
ONE: Scale = (1, 1, 1)
RESAMPLING: tuple[Scale, ...] = ((1, 2, 2), (2, 2, 2), (1, 2, 2))
"""Of depth, height, width after level 0, 1, 2: of the encoder down, of the decoder up."""

QUERIES = 1024  # rows of the attention matrix alive at once


class Step(NamedTuple):
    """state -> state: normalise its volume, then something that reaches one voxel further.

    apply(state, moments): moments of the whole volume if state is a part of it, else None.
    norm: None for a step without. down, up: factors of the size. local False: reaches everywhere.
    """

    apply: Callable[[State, Moments | None], State]
    norm: GroupNorm | None = None
    down: Scale = ONE
    up: Scale = ONE
    local: bool = True


class Block(Protocol):
    """What a chain is made of."""

    label: str

    def steps(self) -> list[Step]: ...


def groups_of(channels: int) -> int:
    """The largest divisor of `channels` that is at most 32.

    The reference's min(32, channels) wherever that divides, as it must; so its preset of 24, 48, 72
    channels, which cannot be built, becomes one with 24 groups.
    """
    return max(n for n in range(1, min(32, channels) + 1) if channels % n == 0)


def norm_of(channels: int, dtype: jnp.dtype) -> GroupNorm:
    """Group normalisation followed by SiLU."""
    return GroupNorm(channels, groups_of(channels), dtype=dtype, activation=jax.nn.silu)


class Conv(Module):
    """3x3x3 convolution without a normalisation; `down` is its stride."""

    def __init__(
        self, inputs: int, outputs: int, *, down: Scale = ONE, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        self.down = down
        self.conv = ConvNd(inputs, outputs, (3, 3, 3), stride=down, dtype=dtype, rngs=rngs)

    def steps(self) -> list[Step]:
        return [Step(lambda state, _: (self.conv(state[0]),), down=self.down)]


class Up(Module):
    """Trilinear resize by `up` (each 1 or 2), then a 3x3x3 convolution."""

    def __init__(self, channels: int, up: Scale, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.up = up
        self.conv = ConvNd(channels, channels, (3, 3, 3), dtype=dtype, rngs=rngs)

    def steps(self) -> list[Step]:
        return [Step(lambda state, _: (self.conv(enlarge(state[0], self.up)),), up=self.up)]


class Res(Module):
    """x -> skip(x) + conv(silu(norm(conv(silu(norm(x)))))); skip is 1x1x1 where channels change."""

    def __init__(self, inputs: int, outputs: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.norm_1 = norm_of(inputs, dtype)
        self.conv_1 = ConvNd(inputs, outputs, (3, 3, 3), dtype=dtype, rngs=rngs)
        self.norm_2 = norm_of(outputs, dtype)
        self.conv_2 = ConvNd(outputs, outputs, (3, 3, 3), dtype=dtype, rngs=rngs)
        if inputs != outputs:
            self.skip = ConvNd(inputs, outputs, (1, 1, 1), dtype=dtype, rngs=rngs)

    def steps(self) -> list[Step]:
        return [Step(self._first, self.norm_1), Step(self._second, self.norm_2)]

    def _first(self, state: State, moments: Moments | None) -> State:
        return self.conv_1(self.norm_1(state[0], moments)), state[0]

    def _second(self, state: State, moments: Moments | None) -> State:
        h, x = state
        skip = self.skip(x) if hasattr(self, "skip") else x
        return (keep(skip + self.conv_2(self.norm_2(h, moments))),)


class Out(Module):
    """Normalisation, SiLU, 3x3x3 convolution."""

    def __init__(self, inputs: int, outputs: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.norm = norm_of(inputs, dtype)
        self.conv = ConvNd(inputs, outputs, (3, 3, 3), dtype=dtype, rngs=rngs)

    def steps(self) -> list[Step]:
        return [Step(lambda state, moments: (self.conv(self.norm(state[0], moments)),), self.norm)]


class Attention(Module):
    """x + projection of what every voxel attends to among all voxels; 4 heads, no position code.

    QUERIES rows of the attention matrix exist at a time, forward and backward.
    """

    def __init__(self, channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.norm = GroupNorm(channels, groups_of(channels), dtype=dtype)
        self.qkv = ConvNd(channels, 3 * channels, (1, 1, 1), dtype=dtype, rngs=rngs)
        self.proj = ConvNd(channels, channels, (1, 1, 1), dtype=dtype, rngs=rngs)

    def steps(self) -> list[Step]:
        return [Step(self._attend, self.norm, local=False)]

    def _attend(self, state: State, moments: Moments | None) -> State:
        (x,) = state
        batch, channels = x.shape[0], x.shape[-1]
        # (B, D, H, W, 3C) -> three of (B, tokens, heads, size)
        size = channels // ATTENTION_HEADS
        qkv = self.qkv(self.norm(x, moments)).reshape(batch, -1, 3, ATTENTION_HEADS, size)
        attended = attend(*(qkv[:, :, n] for n in range(3)))
        return (keep(x + self.proj(attended.reshape(x.shape))),)


def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Softmax attention of (B, N, heads, size) each; softmax in f32."""

    wide = at_least_f32(q.dtype)
    keys, values = k.astype(wide), v.astype(wide)  # so that their cotangents add up in f32

    def rows(q: jax.Array) -> jax.Array:
        k, v = keys.astype(q.dtype), values.astype(q.dtype)
        logits = jnp.einsum("bqhc,bkhc->bhqk", q, k, preferred_element_type=wide)
        weights = jax.nn.softmax(logits * q.shape[-1] ** -0.5, axis=-1).astype(q.dtype)
        return jnp.einsum("bhqk,bkhc->bqhc", weights, v)

    batch, tokens = q.shape[:2]
    if tokens <= QUERIES:
        return rows(q)
    q = jnp.pad(q, ((0, 0), (0, -tokens % QUERIES), (0, 0), (0, 0)))
    q = jnp.moveaxis(q.reshape(batch, -1, QUERIES, *q.shape[2:]), 1, 0)
    y = jax.lax.map(jax.checkpoint(rows), q)
    return jnp.moveaxis(y, 0, 1).reshape(batch, -1, *q.shape[3:])[:, :tokens]


def enlarge(x: jax.Array, factors: Scale) -> jax.Array:
    """x (B, D, H, W, C) with each axis resized linearly by 1 or 2, the edges held.

    Cells of equal width, as in PyTorch's trilinear with align_corners False.
    """
    for axis, factor in enumerate(factors, start=1):
        if factor == 2:
            x = _double(x, axis)
    return x


def _double(x: jax.Array, axis: int) -> jax.Array:
    # New cells lie a quarter of an old one from its centre: 3/4 of it, 1/4 of the neighbour.
    last = x.shape[axis] - 1
    before = jnp.concatenate([_part(x, 0, 1, axis), _part(x, 0, last, axis)], axis)
    after = jnp.concatenate([_part(x, 1, last + 1, axis), _part(x, last, last + 1, axis)], axis)
    near = 0.75 * x
    y = jnp.stack([near + 0.25 * before, near + 0.25 * after], axis + 1)
    return y.reshape(*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :])


def _part(x: jax.Array, start: int, stop: int, axis: int) -> jax.Array:
    return jax.lax.slice_in_dim(x, start, stop, axis=axis)
