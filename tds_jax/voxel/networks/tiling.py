"""Chains of blocks run whole or tile by tile; a tile at a time gives what the whole gives.

A tile is a range of rows along the longest axis. It is computed from a window that reaches as far
beyond it as the chain's convolutions do, and that lies inside the volume: at the volume's own edge
the convolutions' zero padding is right, at the window's other edges what it spoils is cut off.
Normalisations take their moments from all tiles, one sweep over the volume per normalisation; each
sweep begins at the chain's input, so that nothing between input and output exists whole.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax.fields import require_choice
from tds_jax.nn.group_norm import merge, moments, spread
from tds_jax.nn.moments import Moments
from tds_jax.nn.precision import at_least_f32
from tds_jax.nn.remat import checkpoint
from tds_jax.voxel.networks.blocks import ONE, Block, State, Step

Tree = Any
SPANS = ("block", "stage", "coder")


def run(blocks: Sequence[Block], x: jax.Array, *, remat: str, tile: int) -> jax.Array:
    """The chain's output for x (B, D, H, W, C).

    tile: most voxels of a window, counted where the chain is widest; 0, or a volume that fits, runs
    it whole, keeping for the backward pass what `remat` says (see `nn.remat`). Tiles keep x
    only, and cost for every normalisation in the chain one more forward pass up to it, both ways.
    """
    chain = tuple(blocks)
    cut = plan(_steps(chain), x.shape, tile)
    if cut is None:
        return checkpoint(functools.partial(_whole, chain), remat)(x)
    graphdef, params = nnx.split(chain)
    return _tiled(graphdef, cut, nnx.to_pure_dict(params), x)


def spans(blocks: Sequence[Block], span: str) -> list[list[Block]]:
    """A chain cut where volumes are smallest: into "block"s, "stage"s, or not ("coder").

    A reduction belongs to the block before it, an enlargement and the first convolution to the one
    after. Attention, which reaches everywhere, is always apart, so that the rest can be tiled.
    """
    require_choice("model.span", span, SPANS)
    result: list[list[Block]] = [[]]
    for block in blocks:
        if result[-1] and _begins(block, _steps(result[-1]), span):
            result.append([])
        result[-1].append(block)
    return result


def _begins(block: Block, before: list[Step], span: str) -> bool:
    first = block.steps()[0]
    if not (first.local and all(step.local for step in before)):
        return True
    if span == "stage":
        return first.up != ONE or before[-1].down != ONE
    normalised = any(step.norm is not None for step in before)
    return span == "block" and normalised and first.down == ONE


def _whole(chain: tuple[Block, ...], x: jax.Array) -> jax.Array:
    return _last(_steps(chain), (x,))


def _steps(chain: Sequence[Block]) -> list[Step]:
    return [
        step._replace(apply=jax.named_call(step.apply, name=block.label))
        for block in chain
        for step in block.steps()
    ]


def _last(steps: Sequence[Step], state: State, found: Sequence[Moments] = ()) -> jax.Array:
    """The volume after `steps`, normalised by `found` in turn, or by itself when that is empty."""
    remaining = iter(found)
    for step in steps:
        state = step.apply(state, None if step.norm is None else next(remaining, None))
    return state[0]


@dataclasses.dataclass(frozen=True)
class Cut:
    """Rows of one array axis, counted where the chain is coarsest, cut into tiles.

    rows: of the volume. own: of a tile. window: of what a tile is computed from.
    """

    axis: int
    rows: int
    own: int
    window: int

    @property
    def tiles(self) -> int:
        """The last one is moved back to end with the volume; what it repeats is not counted."""
        return -(-self.rows // self.own)

    def start(self, tile: jax.Array) -> jax.Array:
        """The first row of a tile."""
        return jnp.minimum(tile * self.own, self.rows - self.own)

    def window_start(self, tile: jax.Array) -> jax.Array:
        """The first row of a tile's window, which never leaves the volume."""
        centred = self.start(tile) - (self.window - self.own) // 2
        return jnp.clip(centred, 0, self.rows - self.window)

    def read(self, x: jax.Array, tile: jax.Array) -> jax.Array:
        """The window of a volume at any resolution."""
        scale = x.shape[self.axis] // self.rows
        return _slice(x, self.window_start(tile) * scale, self.window * scale, self.axis)

    def owned(self, y: jax.Array, tile: jax.Array) -> jax.Array:
        """The tile's own rows of what was computed from its window."""
        scale = y.shape[self.axis] // self.window
        start = (self.start(tile) - self.window_start(tile)) * scale
        return _slice(y, start, self.own * scale, self.axis)

    def fresh(self, y: jax.Array, tile: jax.Array) -> jax.Array:
        """Which of a tile's own rows no earlier tile has, (1, .., rows, .., 1) bool."""
        scale = y.shape[self.axis] // self.own
        row = self.start(tile) * scale + jnp.arange(y.shape[self.axis])
        shape = [1] * y.ndim
        shape[self.axis] = -1
        return (row >= tile * self.own * scale).reshape(shape)


def plan(steps: Sequence[Step], shape: Sequence[int], tile: int) -> Cut | None:
    """How to cut a volume of `shape` (B, D, H, W, C) so that a window has at most `tile` voxels.

    None: not at all, because tile is 0, the volume fits, or a step reaches everywhere. A window is
    never less than one row and its halo, whatever `tile`.
    """
    if tile <= 0 or not all(step.local for step in steps):
        return None
    cuts, widest = [], 1
    for axis, size in enumerate(shape[1:4]):
        down, up = (math.prod(s[axis] for s in scales) for scales in _scales(steps))
        cuts.append((size // down, axis + 1, -(-_reach(steps, axis) // down)))
        widest *= size // down * max(down, up)
    rows, axis, halo = max(cuts)
    window = max(tile * rows // widest, 1 + 2 * halo)
    return None if window >= rows else Cut(axis, rows, window - 2 * halo, window)


def _scales(steps: Sequence[Step]) -> tuple[list[Any], list[Any]]:
    return [step.down for step in steps], [step.up for step in steps]


def _reach(steps: Sequence[Step], axis: int) -> int:
    """Rows of the input beyond an output's own that it depends on."""
    reach = 0
    for step in reversed(steps):
        reach = reach * step.down[axis] + 1
        if step.up[axis] > 1:  # a new cell reads the old one and its nearer neighbour
            reach = reach // step.up[axis] + 1
    return reach


Saved = tuple[Tree, jax.Array, list[Moments]]
"""Parameters, input, moments of every normalisation: all that is kept for the backward pass."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _tiled(graphdef: nnx.GraphDef, cut: Cut, params: Tree, x: jax.Array) -> jax.Array:
    return _forward(graphdef, cut, params, x)[0]


def _forward(
    graphdef: nnx.GraphDef, cut: Cut, params: Tree, x: jax.Array
) -> tuple[jax.Array, Saved]:
    found: list[Moments] = []

    def volume(count: int | None) -> Callable[[jax.Array], jax.Array]:
        return lambda tile: _own_rows(graphdef, cut, count, tile, params, cut.read(x, tile), found)

    for count, groups in _norms(graphdef, params):
        found.append(_gather(volume(count), cut, groups))
    return _paste(volume(None), cut), (params, x, found)


def _backward(
    graphdef: nnx.GraphDef, cut: Cut, saved: Saved, g: jax.Array
) -> tuple[Tree, jax.Array]:
    params, _, found = saved
    scale = g.shape[cut.axis] // cut.rows

    def of_output(tile: jax.Array, y: jax.Array) -> jax.Array:
        return _slice(g, cut.start(tile) * scale, y.shape[cut.axis], cut.axis)

    sums: Saved = jax.tree.map(jnp.zeros_like, saved)
    sums = _add_gradients(graphdef, cut, None, saved, sums, of_output)
    for n, (count, _) in reversed(list(enumerate(_norms(graphdef, params)))):
        # The sums for these moments are complete by now: only later sweeps read them.
        pull = _moments_pullback(cut, found[n], sums[2][n])
        sums = _add_gradients(graphdef, cut, count, saved, sums, pull)
    return sums[0], sums[1]


_tiled.defvjp(_forward, _backward)


def _norms(graphdef: nnx.GraphDef, params: Tree) -> list[tuple[int, int]]:
    """(steps before it, groups) of every normalisation of a chain."""
    steps = _steps(nnx.merge(graphdef, params))
    return [(n, step.norm.groups) for n, step in enumerate(steps) if step.norm is not None]


def _own_rows(
    graphdef: nnx.GraphDef,
    cut: Cut,
    count: int | None,
    tile: jax.Array,
    params: Tree,
    window: jax.Array,
    found: list[Moments],
) -> jax.Array:
    """A tile's own rows of the volume after `count` steps (None: all)."""
    steps = _steps(nnx.merge(graphdef, params))[:count]
    return cut.owned(_last(steps, (window,), found), tile)


def _gather(f: Callable[[jax.Array], jax.Array], cut: Cut, groups: int) -> Moments:
    """Moments of a volume of which f gives the tiles."""

    def add(tile: jax.Array, total: tuple[Moments, jax.Array]) -> tuple[Moments, jax.Array]:
        before, rows = total
        y = f(tile)
        fresh = cut.fresh(y, tile)
        after = rows + jnp.sum(fresh, dtype=rows.dtype)
        return merge(before, rows / after, moments(y, groups, fresh)), after

    y = jax.eval_shape(f, jnp.int32(0))
    zeros = jnp.zeros((y.shape[0], groups), at_least_f32(y.dtype))
    start = Moments(zeros, zeros), jnp.zeros((), zeros.dtype)
    return jax.lax.fori_loop(0, cut.tiles, add, start)[0]


def _paste(f: Callable[[jax.Array], jax.Array], cut: Cut) -> jax.Array:
    """The volume of which f gives the tiles."""

    def put(tile: jax.Array, volume: jax.Array) -> jax.Array:
        y = f(tile)
        start = cut.start(tile) * (y.shape[cut.axis] // cut.own)
        return jax.lax.dynamic_update_slice_in_dim(volume, y, start, cut.axis)

    y = jax.eval_shape(f, jnp.int32(0))
    shape = list(y.shape)
    shape[cut.axis] = shape[cut.axis] // cut.own * cut.rows
    return jax.lax.fori_loop(0, cut.tiles, put, jnp.zeros(shape, y.dtype))


def _add_gradients(
    graphdef: nnx.GraphDef,
    cut: Cut,
    count: int | None,
    saved: Saved,
    sums: Saved,
    cotangent: Callable[[jax.Array, jax.Array], jax.Array],
) -> Saved:
    """sums + the gradients that flow from the volume after `count` steps.

    cotangent(tile, y): the gradient of the tile's own rows y; rows counted before get none. The
    sums are the loop's carry, so that there is one gradient of x, added to in place.
    """
    params, x, found = saved

    def add(tile: jax.Array, sums: Saved) -> Saved:
        def f(params: Tree, window: jax.Array, found: list[Moments]) -> jax.Array:
            return _own_rows(graphdef, cut, count, tile, params, window, found)

        y, pull = jax.vjp(f, params, cut.read(x, tile), found)
        d_params, d_window, d_found = pull(jnp.where(cut.fresh(y, tile), cotangent(tile, y), 0))
        plus = functools.partial(jax.tree.map, jnp.add)
        start = cut.window_start(tile) * (x.shape[cut.axis] // cut.rows)
        d_window = d_window + cut.read(sums[1], tile)
        d_x = jax.lax.dynamic_update_slice_in_dim(sums[1], d_window, start, cut.axis)
        return plus(sums[0], d_params), d_x, plus(sums[2], d_found)

    return jax.lax.fori_loop(0, cut.tiles, add, sums)


def _moments_pullback(
    cut: Cut, of: Moments, g: Moments
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Gradient of a tile y of a volume from the gradient g of the volume's moments."""

    def cotangent(tile: jax.Array, y: jax.Array) -> jax.Array:
        del tile
        per_group = math.prod(y.shape[1:]) // y.shape[cut.axis] // of.mean.shape[1]
        count = per_group * (y.shape[cut.axis] // cut.own) * cut.rows
        centred = y.astype(of.mean.dtype) - spread(of.mean, y)
        return ((spread(g.mean, y) + 2 * spread(g.var, y) * centred) / count).astype(y.dtype)

    return cotangent


def _slice(x: jax.Array, start: jax.Array, size: int, axis: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(x, start, size, axis)
