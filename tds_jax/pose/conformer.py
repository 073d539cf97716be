"""A conformer block whose attention looks back a fixed number of frames: exact when streamed.

Gulati et al. 2020 (arXiv 2005.08100) with what streaming asks for: valid convolutions, LayerNorm in
place of BatchNorm, and attention of a frame over itself and the `frames` before it, never fewer. So
a feature depends on its receptive field alone, wherever the window was cut, as in `pose.tds`.
"""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tds_jax.nn.dropout import dropout
from tds_jax.nn.linear import Linear, spread, uniform
from tds_jax.nn.module import Module
from tds_jax.nn.norm import LayerNorm
from tds_jax.nn.precision import at_least_f32
from tds_jax.nn.remat import keep

DRAWS = 3  # of dropout in a block
LEAST_BLOCK = (
    16  # queries that share a span of keys: fewer would copy each key more than W / 16 times
)


class FeedForward(Module):
    """LayerNorm -> linear -> SiLU -> linear, per frame."""

    def __init__(self, channels: int, expansion: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.norm = LayerNorm(channels, dtype=dtype)
        self.up = Linear(channels, expansion * channels, dtype=dtype, rngs=rngs)
        self.down = Linear(expansion * channels, channels, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down(jax.nn.silu(self.up(self.norm(x))))


class ConformerBlock(Module):
    """(B, T, heads * width) -> (B, T - frames - K + 1, heads * width).

    Half a feed-forward, attention over `frames` frames back, a convolution of K frames per channel,
    half a feed-forward; each adds its input (its last frames), and one LayerNorm ends it.
    """

    def __init__(
        self,
        heads: int,
        width: int,
        kernel_size: int,
        *,
        frames: int,
        expansion: int,
        dropout: float,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        channels = heads * width
        self.heads, self.frames, self.dropout, self.dtype = heads, frames, dropout, dtype
        self.ff_1 = FeedForward(channels, expansion, dtype=dtype, rngs=rngs)
        self.attention_norm = LayerNorm(channels, dtype=dtype)
        self.attention_in = Linear(channels, 3 * channels, dtype=dtype, rngs=rngs)
        self.distance = nnx.Param(jnp.zeros((heads, frames + 1), jnp.float32))
        self.attention_out = Linear(channels, channels, dtype=dtype, rngs=rngs)
        self.conv_norm = LayerNorm(channels, dtype=dtype)
        self.gate = Linear(channels, 2 * channels, dtype=dtype, rngs=rngs)
        self.kernel = nnx.Param(uniform(rngs, (kernel_size, channels), kernel_size))
        self.kernel_norm = LayerNorm(channels, dtype=dtype)
        self.conv_out = Linear(channels, channels, dtype=dtype, rngs=rngs)
        self.ff_2 = FeedForward(channels, expansion, dtype=dtype, rngs=rngs)
        self.norm = LayerNorm(channels, dtype=dtype)

    def layers(self) -> Iterator[tuple[Callable[[jax.Array], jax.Array], int]]:
        """See `tds.TDSNetwork.layers`; what `attend` reads again are its keys and values."""
        yield self.enter, 0
        yield self.attend, self.frames
        yield self.convolve, self.kernel.shape[0] - 1

    def __call__(self, x: jax.Array, keys: jax.Array | None = None, layer: int = 0) -> jax.Array:
        x = self.enter(x, keys, layer)
        return keep(self.convolve(self.attend(x, keys, layer + 1), keys, layer + 2))

    def enter(self, x: jax.Array, keys: jax.Array | None = None, layer: int = 0) -> jax.Array:
        """(B, T, C) -> (B, T, 4 C): frames after the first half, their queries, keys and values."""
        x = x.astype(self.dtype) + 0.5 * dropout(self.ff_1(x), self.dropout, keys, layer)
        return jnp.concatenate([x, self.attention_in(self.attention_norm(x))], axis=2)

    def attend(self, x: jax.Array, keys: jax.Array | None = None, layer: int = 0) -> jax.Array:
        """(B, T, 4 C) -> (B, T - frames, C)."""
        batch, length, _ = x.shape
        x, *parts = jnp.split(x, 4, axis=2)
        q, k, v = (part.reshape(batch, length, self.heads, -1) for part in parts)
        found = look_back(q[:, self.frames :], k, v, self.distance[...])
        found = self.attention_out(found.reshape(batch, length - self.frames, -1))
        return x[:, self.frames :] + dropout(found, self.dropout, keys, layer)

    def convolve(self, x: jax.Array, keys: jax.Array | None = None, layer: int = 0) -> jax.Array:
        """(B, T, C) -> (B, T - K + 1, C)."""
        size, kernel = self.kernel.shape[0], self.kernel[...].astype(self.dtype)
        value, gate = jnp.split(self.gate(self.conv_norm(x)), 2, axis=2)
        y, count = value * jax.nn.sigmoid(gate), x.shape[1] - size + 1
        shifted = (y[:, n : n + count] for n in range(size))
        y = sum(
            (part * spread(kernel[n], part) for n, part in enumerate(shifted)),
            jnp.zeros((), y.dtype),
        )
        y = self.conv_out(jax.nn.silu(self.kernel_norm(y)))
        x = x[:, size - 1 :] + dropout(y, self.dropout, keys, layer)
        return self.norm(x + 0.5 * self.ff_2(x))


def look_back(q: jax.Array, k: jax.Array, v: jax.Array, distance: jax.Array) -> jax.Array:
    """Attention of N queries over W + 1 keys each; key W + n is query n's own frame.

    q (B, N, H, D); k, v (B, N + W, H, D); distance (H, W + 1): added to the scores, oldest key
    first. Returns (B, N, H, D). Blocks of about W queries share 2 W keys: B · H · N · 2 W scores
    are held, not N². Softmax in f32.
    """
    batch, count, heads, size = q.shape
    back = distance.shape[1] - 1
    block = min(count, max(back, LEAST_BLOCK))
    blocks = -(-count // block)
    filled = ((0, 0), (0, blocks * block - count), (0, 0), (0, 0))
    rows = np.arange(blocks)[:, None] * block + np.arange(block + back)
    k, v = (jnp.pad(x, filled)[:, rows] for x in (k, v))
    q = jnp.pad(q, filled).reshape(batch, blocks, block, heads, size)
    scores = jnp.einsum("bnqhd,bnkhd->bnhqk", q, k).astype(at_least_f32(q.dtype)) / size**0.5
    apart = np.arange(block + back) - np.arange(block)[:, None]
    seen = (apart >= 0) & (apart <= back)
    scores = scores + spread(distance[:, np.clip(apart, 0, back)][None, None], scores)
    scores = jnp.where(np.broadcast_to(seen, scores.shape), scores, -jnp.inf)
    found = jnp.einsum("bnhqk,bnkhd->bnqhd", jax.nn.softmax(scores, axis=-1).astype(v.dtype), v)
    return found.reshape(batch, blocks * block, heads, size)[:, :count]
