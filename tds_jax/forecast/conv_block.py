"""Convolution, normalisation, ReLU and dropout over maps, a few examples at a time.

BatchNorm ties the examples of a batch together, so that they cannot simply be taken one by one. But
all that ties them is two numbers per channel: one pass over the examples finds these, a second pass
makes the results; going backward, one pass sums the cotangents of the two, a second does the rest.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax.engine.step import split
from tds_jax.fields import require, require_choice
from tds_jax.forecast.chunks import loop, places, put, take
from tds_jax.nn import batch_norm
from tds_jax.nn.batch_norm import BatchNorm
from tds_jax.nn.conv_nd import ConvNd
from tds_jax.nn.dropout import keep_scale
from tds_jax.nn.group_norm import GroupNorm
from tds_jax.nn.module import Module
from tds_jax.nn.moments import Moments
from tds_jax.nn.precision import at_least_f32

NORMS = ("batch", "group", "none")
Then = Callable[[jax.Array, jax.Array | None], jax.Array]
"""(maps (B, *space, F), cells or None) -> (B, ...): what becomes of the maps of each example."""


def divisor(total: int, limit: int) -> int:
    """The largest divisor of `total` that is at most `limit`; total itself for 0."""
    return next(n for n in range(min(limit or total, total), 0, -1) if total % n == 0)


class ConvBlock(Module):
    """(B, *space, I) -> (B, *space, O): convolution, norm, ReLU, dropout of whole channels.

    kernel: a size per axis of space; zeros keep the size. norm: 'batch' (running statistics are
    `Statistic`s), 'group' (of `groups` groups, per example) or 'none'. periodic: see `ConvNd`.

    example_chunk: examples taken at once (rounded down to a divisor of the batch; 0: all). The
    results are the same, BatchNorm's statistics those of the whole batch; beside input and output
    only a chunk's values are alive. remat says what is kept for the backward pass beside the input:
    'none' and 'dots' the convolution's result; 'names' nothing, the convolution is done again, with
    BatchNorm its result held for the whole batch while the block goes backward; 'full' nothing, and
    BatchNorm's convolution runs once for each of the four passes: six convolutions in an update
    instead of three. XLA on CPU undoes 'names' and 'full' when there is only one chunk.
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
        periodic: bool = False,
        remat: str,
        example_chunk: int,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        require_choice("model.norm", norm, NORMS)
        self.dropout = dropout
        self.remat = remat
        self.example_chunk = example_chunk
        self.dtype = jnp.dtype(dtype)
        self.conv = ConvNd(
            in_features, out_features, kernel, periodic=periodic, dtype=dtype, rngs=rngs
        )
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
        """then(the block's maps, cells), by example; BatchNorm's statistics move if train.

        keys (B, 2) uint32: dropout, separated from other layers by `layer`; None: none. `then` must
        close over no traced values.
        """
        graphdef, params, rest = split(self)
        by_batch = train and isinstance(self.norm, BatchNorm)
        plan = _Plan(graphdef, divisor(len(x), self.example_chunk), self.remat, by_batch, then)
        y, found = _run(plan, params, rest, x, self._scales(keys, layer), cells)
        if isinstance(self.norm, BatchNorm) and found is not None:
            count = math.prod(x.shape[:-1])
            self.norm.update(batch_norm.unbiased(jax.lax.stop_gradient(found), count))
        return y

    def finish(self, z: jax.Array, by: Moments | None, scales: jax.Array | None) -> jax.Array:
        """What follows the convolution's z. by: moments for BatchNorm; scales (B, O) or None."""
        if isinstance(self.norm, BatchNorm):
            assert by is not None
            z = batch_norm.normalize(z, by, self.norm.scale[...], self.norm.bias[...])
        y = self.norm(z) if isinstance(self.norm, GroupNorm) else jax.nn.relu(z)
        if scales is not None:
            wide = (scales.shape[0], *(1,) * (y.ndim - 2), scales.shape[1])
            y = y * scales.reshape(wide).astype(y.dtype)
        return y.astype(self.dtype)

    def _scales(self, keys: jax.Array | None, layer: int) -> jax.Array | None:
        """(B, O) factors of dropout, or None."""
        if keys is None or self.dropout == 0:
            return None
        wide = at_least_f32(self.dtype)
        return keep_scale(keys, layer, self.conv.bias.shape, self.dropout, wide)


def _make_norm(
    norm: str, features: int, groups: int, dtype: jnp.dtype
) -> BatchNorm | GroupNorm | None:
    if norm == "batch":
        return BatchNorm(features)
    if norm == "group":
        require(
            features % groups == 0,
            f"model.groups={groups} does not divide a width of {features}; use one that does",
        )
        return GroupNorm(features, groups, dtype=dtype, activation=jax.nn.relu)
    return None


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What is static about a pass. by_batch: normalise by the batch's own moments."""

    graphdef: nnx.GraphDef
    chunk: int
    remat: str
    by_batch: bool
    then: Then

    @property
    def keeps(self) -> bool:
        """Whether the convolution's result stays for the backward pass."""
        return self.remat in ("none", "dots")

    @property
    def holds(self) -> bool:
        """Whether it stays from the first to the second pass, in either direction."""
        return self.by_batch and self.remat != "full"

    def convolve(self, params: Any, rest: Any, x: jax.Array) -> jax.Array:
        return nnx.merge(self.graphdef, params, rest).conv(x)

    def finish(
        self, params: Any, by: Moments | None, z: jax.Array, rest: Any, scales: Any, cells: Any
    ) -> jax.Array:
        block = nnx.merge(self.graphdef, params, rest)
        if isinstance(block.norm, BatchNorm) and by is None:
            by = block.norm.running()
        return self.then(block.finish(z, by, scales), cells)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(
    plan: _Plan, params: Any, rest: Any, x: jax.Array, scales: Any, cells: Any
) -> tuple[jax.Array, Moments | None]:
    """(y, moments of the batch if it is normalised by them); no gradient flows by the latter."""
    return _forward(plan, params, rest, x, scales, cells)[0]


def _forward(
    plan: _Plan, params: Any, rest: Any, x: jax.Array, scales: Any, cells: Any
) -> tuple[tuple[jax.Array, Moments | None], tuple[Any, ...]]:
    by, z = None, None
    if plan.by_batch:
        by, z = _first_pass(plan, params, rest, x)

    def finish(x: jax.Array, scales: Any, z: Any) -> tuple[jax.Array, Any]:
        z = plan.convolve(params, rest, x) if z is None else z
        y = plan.finish(params, by, z, rest, scales, cells)
        return y, z if plan.keeps and not plan.holds else None

    def body(start: Any, rows: int, made: Any) -> Any:
        return put(made, finish(*take((x, scales, z), start, rows)), start)

    shapes = jax.eval_shape(finish, x, scales, z)
    y, kept = loop(len(x), plan.chunk, body, places(len(x), shapes, x if by is None else by.mean))
    kept = z if plan.keeps and plan.holds else kept
    return (y, by), (params, rest, x, scales, cells, by, kept)


def _first_pass(plan: _Plan, params: Any, rest: Any, x: jax.Array) -> tuple[Moments, Any]:
    """(moments of the convolution over all examples, its result if it is held)."""

    def look(x: jax.Array) -> tuple[Moments, Any]:
        z = plan.convolve(params, rest, x)
        return batch_norm.moments(z), z if plan.holds else None

    def body(start: Any, rows: int, carry: Any) -> Any:
        parts, held = carry
        found, z = look(take(x, start, rows))
        parts = put(parts, jax.tree.map(lambda part: part[None], found), start // plan.chunk)
        return parts, put(held, z, start)

    found, z = jax.eval_shape(look, x)
    parts = jax.tree.map(lambda s: jnp.zeros((len(x) // plan.chunk, *s.shape), s.dtype), found)
    parts, held = loop(len(x), plan.chunk, body, (parts, places(len(x), z, x)))
    return batch_norm.merge(parts), held


def _backward(
    plan: _Plan, saved: tuple[Any, ...], cotangents: tuple[jax.Array, Any]
) -> tuple[Any, ...]:
    params, rest, x, scales, cells, by, z = saved
    g, count = cotangents[0], math.prod(x.shape[:-1])

    def pull(z: jax.Array, scales: Any, g: jax.Array) -> tuple[Any, Any, jax.Array]:
        """Cotangents of params, moments and z by `finish`, the latter not yet rounded."""
        finish = functools.partial(plan.finish, rest=rest, scales=scales, cells=cells)
        return jax.vjp(finish, params, by, z.astype(at_least_f32(z.dtype)))[1](g)

    def first(start: Any, rows: int, carry: Any) -> Any:
        d_by, held = carry
        x_, scales_, g_, z_ = take((x, scales, g, z), start, rows)
        remade = plan.convolve(params, rest, x_) if z_ is None else None
        more = pull(z_ if remade is None else remade, scales_, g_)[1]
        return jax.tree.map(jnp.add, d_by, more), put(held, remade if hold else None, start)

    def second(start: Any, rows: int, carry: Any) -> Any:
        d_params, dx = carry
        x_, scales_, g_, z_ = take((x, scales, g, z), start, rows)
        remade, pull_conv = jax.vjp(lambda p, x: plan.convolve(p, rest, x), params, x_)
        z_ = remade if z_ is None else z_
        by_finish, _, dz = pull(z_, scales_, g_)
        if by is not None:
            dz = dz + batch_norm.pull_moments(d_by, by, z_, count)
        by_conv, dx_ = pull_conv(dz.astype(z_.dtype))
        d_params = jax.tree.map(lambda *parts: sum(parts), d_params, by_finish, by_conv)
        return d_params, put(dx, dx_, start)

    hold = z is None and plan.holds
    d_by = jax.tree.map(jnp.zeros_like, by)
    if by is not None:
        shape = jax.eval_shape(plan.convolve, params, rest, x) if hold else None
        d_by, held = loop(len(x), plan.chunk, first, (d_by, places(len(x), shape, g)))
        z = held if hold else z
    after = g if by is None else d_by.mean
    carry = jax.tree.map(jnp.zeros_like, params), places(len(x), x, after)
    d_params, dx = loop(len(x), plan.chunk, second, carry)
    return d_params, None, dx, None, None


_run.defvjp(_forward, _backward)
