"""Convolution, normalisation, ReLU and dropout over maps, a few examples at a time.

BatchNorm ties the examples of a batch together, so that they cannot simply be taken one by one. But
all that ties them is two numbers per channel: one pass over the examples finds these, a second pass
makes the results; going backward, one pass sums the cotangents of the two, a second does the rest.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax.config import require_choice
from tds_jax.engine.remat import checkpoint
from tds_jax.nn import batch_norm
from tds_jax.nn.batch_norm import BatchNorm, Moments
from tds_jax.nn.conv_nd import ConvNd, conv_nd
from tds_jax.nn.dropout import keep_scale
from tds_jax.nn.dtypes import at_least_f32
from tds_jax.nn.group_norm import GroupNorm
from tds_jax.nn.linear import add_bias

NORMS = ("batch", "group", "none")
Then = Callable[..., jax.Array]
"""(maps (B, *space, F), cells or None) -> anything with leading B: what becomes of the maps."""


def divisor(total: int, limit: int) -> int:
    """The largest divisor of `total` that is at most `limit`; total itself for 0."""
    return next(n for n in range(min(limit or total, total), 0, -1) if total % n == 0)


class ConvBlock(nnx.Module):
    """(B, *space, I) -> (B, *space, O): convolution, norm, ReLU, dropout of whole channels.

    kernel: a size per axis of space; zeros keep the size. norm: 'batch' (running statistics are
    `Statistic`s), 'group' (of `groups` groups, per example) or 'none'.

    example_chunk: examples taken at once (rounded down to a divisor of the batch; 0: all). The
    results are the same, BatchNorm's statistics those of the whole batch; beside input and output
    only a chunk's values are alive. remat says what is kept for the backward pass beside the input:
    'none' and 'dots' the convolution's result; 'names' nothing, the convolution is done again and
    its result held for the whole batch while the block goes backward; 'full' nothing, BatchNorm's
    convolution runs once for each of the four passes: six convolutions in an update instead of
    three. XLA on CPU undoes 'names' and 'full' when there is only one chunk.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel: Sequence[int],
        *,
        norm: str,
        groups: int,
        dropout: float,
        remat: str,
        example_chunk: int,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        require_choice("model.norm", norm, NORMS)
        self.dropout = dropout
        self.remat = remat
        self.example_chunk = example_chunk
        self.dtype = dtype
        self.conv = ConvNd(in_features, out_features, kernel, dtype=dtype, rngs=rngs)
        self.norm = _make_norm(norm, out_features, groups, dtype)

    def __call__(
        self,
        x: jax.Array,
        train: bool,
        keys: jax.Array | None,
        layer: int,
        then: Then,
        cells: jax.Array | None = None,
    ) -> jax.Array:
        """then(the block's maps, cells), example by example; BatchNorm's statistics move if train.

        keys (B, 2) uint32: dropout, separated from other layers by `layer`; None: none. `then` must
        close over no traced values.
        """
        scales = self._scales(x, keys, layer)
        chunk = divisor(len(x), self.example_chunk)
        if not (train and isinstance(self.norm, BatchNorm)):
            one = checkpoint(lambda x, scales: self._one(x, scales, then, cells), self.remat)
            return _joined(_chunkwise(one, *_split(chunk, x, scales)))
        plan = _Plan(chunk, self.remat, jnp.dtype(self.dtype), then)
        conv, norm = self.conv, self.norm
        weights = _Weights(conv.kernel[...], conv.bias[...], norm.scale[...], norm.bias[...])
        y, found = _batch_normalized(plan, weights, x, scales, cells)
        count = math.prod(x.shape[:-1])
        norm.update(batch_norm.unbiased(jax.lax.stop_gradient(found), count))
        return y

    def _scales(self, x: jax.Array, keys: jax.Array | None, layer: int) -> jax.Array | None:
        """(B, O) factors of dropout, or None."""
        if keys is None or self.dropout == 0:
            return None
        features = self.conv.bias.shape
        return keep_scale(keys, layer, features, self.dropout, at_least_f32(self.dtype))

    def _one(
        self, x: jax.Array, scales: jax.Array | None, then: Then, cells: jax.Array | None
    ) -> jax.Array:
        y = self.conv(x)
        if isinstance(self.norm, BatchNorm):
            y = self.norm(y, train=False)[0]
        y = y if isinstance(self.norm, GroupNorm) else jax.nn.relu(y)
        return then(_drop(y, scales).astype(self.dtype), cells)


def _make_norm(
    norm: str, features: int, groups: int, dtype: jnp.dtype
) -> BatchNorm | GroupNorm | None:
    if norm == "batch":
        return BatchNorm(features)
    if norm == "group":
        return GroupNorm(features, groups, dtype=dtype, activation=jax.nn.relu)
    return None


class _Weights(NamedTuple):
    kernel: jax.Array
    bias: jax.Array
    scale: jax.Array
    shift: jax.Array


@dataclasses.dataclass(frozen=True)
class _Plan:
    chunk: int
    remat: str
    dtype: jnp.dtype
    then: Then

    @property
    def keeps(self) -> bool:
        """Whether the convolution's result stays for the backward pass."""
        return self.remat in ("none", "dots")

    @property
    def holds(self) -> bool:
        """Whether it stays from the first to the second pass, in either direction."""
        return self.remat != "full"

    def convolve(self, weights: _Weights, x: jax.Array) -> jax.Array:
        y = conv_nd(x.astype(self.dtype), weights.kernel.astype(self.dtype), 1, "same")
        return add_bias(y, weights.bias)

    def finish(
        self,
        weights: _Weights,
        by: Moments,
        z: jax.Array,
        scales: jax.Array | None,
        cells: jax.Array | None,
    ) -> jax.Array:
        """What follows once the moments of all z are known."""
        y = jax.nn.relu(batch_norm.normalize(z, by, weights.scale, weights.shift))
        return self.then(_drop(y, scales).astype(self.dtype), cells)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _batch_normalized(
    plan: _Plan,
    weights: _Weights,
    x: jax.Array,
    scales: jax.Array | None,
    cells: jax.Array | None,
) -> tuple[jax.Array, Moments]:
    """(finished convolution of x, its moments over the whole batch); no gradient by the latter."""
    return _forward(plan, weights, x, scales, cells)[0]


def _forward(
    plan: _Plan,
    weights: _Weights,
    x: jax.Array,
    scales: jax.Array | None,
    cells: jax.Array | None,
) -> tuple[tuple[jax.Array, Moments], tuple[Any, ...]]:
    def look(x: jax.Array) -> tuple[Moments, jax.Array | None]:
        z = plan.convolve(weights, x)
        return batch_norm.moments(z), z if plan.holds else None

    def finish(z: jax.Array | None, x: jax.Array, scales: jax.Array | None) -> jax.Array:
        z = plan.convolve(weights, x) if z is None else z
        return plan.finish(weights, by, z, scales, cells)

    parts, z = _chunkwise(look, *_split(plan.chunk, x))
    by = batch_norm.merge(parts)
    y = _joined(_chunkwise(finish, z, *_split(plan.chunk, x, scales)))
    return (y, by), (weights, x, scales, cells, z if plan.keeps else None, by)


def _backward(
    plan: _Plan, saved: tuple[Any, ...], cotangents: tuple[jax.Array, Moments]
) -> tuple[Any, ...]:
    weights, x, scales, cells, z, by = saved
    count = math.prod(x.shape[:-1])
    x, scales, g = _split(plan.chunk, x, scales, cotangents[0])

    def pull(z: jax.Array, scales: jax.Array | None, g: jax.Array) -> tuple[Any, Moments, Any]:
        """Cotangents of weights, moments and z by `finish`, the latter not yet rounded."""
        finish = functools.partial(plan.finish, scales=scales, cells=cells)
        return jax.vjp(finish, weights, by, z.astype(at_least_f32(z.dtype)))[1](g)

    def first(d_by: Moments, chunk: Any) -> tuple[Moments, jax.Array | None]:
        z, x, scales, g = chunk
        remade = plan.convolve(weights, x) if z is None else None
        _, more, _ = pull(z if remade is None else remade, scales, g)
        return jax.tree.map(jnp.add, d_by, more), remade if plan.holds else None

    def second(d_weights: _Weights, chunk: Any) -> tuple[_Weights, jax.Array]:
        z, x, scales, g = chunk
        remade, pull_conv = jax.vjp(plan.convolve, weights, x)
        z = remade if z is None else z
        by_finish, _, dz = pull(z, scales, g)
        dz = dz + batch_norm.pull_moments(d_by, by, z, count)
        by_conv, dx = pull_conv(dz.astype(z.dtype))
        return jax.tree.map(lambda *parts: sum(parts), d_weights, by_finish, by_conv), dx

    zeros = jax.tree.map(jnp.zeros_like, (by, weights))
    d_by, held = jax.lax.scan(first, zeros[0], (z, x, scales, g))
    z = held if z is None else z
    d_weights, dx = jax.lax.scan(second, zeros[1], (z, x, scales, g))
    return d_weights, _joined(dx), None, None


_batch_normalized.defvjp(_forward, _backward)


def _drop(y: jax.Array, scales: jax.Array | None) -> jax.Array:
    """y (B, *space, F) times scales (B, F)."""
    if scales is None:
        return y
    wide = (scales.shape[0], *(1,) * (y.ndim - 2), scales.shape[1])
    return y * scales.reshape(wide).astype(y.dtype)


def _split(chunk: int, *trees: Any) -> Any:
    """(B, ...) leaves -> (B / chunk, chunk, ...)."""
    return jax.tree.map(lambda x: x.reshape(-1, chunk, *x.shape[1:]), trees)


def _joined(x: jax.Array) -> jax.Array:
    return x.reshape(-1, *x.shape[2:])


def _chunkwise(f: Callable[..., Any], *xs: Any) -> Any:
    return jax.lax.map(lambda chunk: f(*chunk), xs)
