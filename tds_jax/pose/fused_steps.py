"""What one program of `pose.fused` does: all steps of ROWS examples, and the way back.

A layer's columns are handled TILE at a time, each tile a value in registers.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

ROWS = 16  # the fewest that tensor cores multiply by
TILE = 64  # columns of a product at once: 64 x 64 weights are 16 KB of shared memory

Tiles = list[jax.Array]


@dataclasses.dataclass(frozen=True)
class Form:
    """What of a decoder is no array; see `decoders.Decoder`. hidden: of every layer."""

    output: str
    scale: float
    slope: float
    position_steps: int
    hidden: int
    layers: int

    @property
    def tile(self) -> int:
        """Columns that are one value in registers: a power of two that divides hidden."""
        return min(TILE, self.hidden & -self.hidden)

    @property
    def tiles(self) -> range:
        """Where each of the hidden columns' tiles begins."""
        return range(0, self.hidden, self.tile)


class Given(NamedTuple):
    """What goes in: prepared (N, B, 4H), masks (N, B, H) between layers or none, and the carry
    before: pose (B, P), cells and hidden (B, H) of every layer, step (B,)."""

    prepared: jax.Array
    masks: list[jax.Array]
    pose: jax.Array
    cells: list[jax.Array]
    hidden: list[jax.Array]
    step: jax.Array


class Weights(NamedTuple):
    """matrices (P + H, 4H), (2H, 4H) ... of the layers; biases (4H,) of all but the first; head
    (H, P), of 'hybrid' two beside each other, and its bias."""

    matrices: list[jax.Array]
    biases: list[jax.Array]
    head: jax.Array
    head_bias: jax.Array


class Kept(NamedTuple):
    """What a step ends with: poses (N + 1, B, P), cells and hidden (N + 1, B, H) of every layer,
    the first row what the first begins with; gates (N, B, 4H), activated. Not for the way back:
    one row, the last, of cells and hidden, no gates."""

    poses: jax.Array
    cells: list[jax.Array]
    hidden: list[jax.Array]
    gates: list[jax.Array]


class Cotangents(NamedTuple):
    """Of gates before they are activated (N, B, 4H), of the head's result (N, B, P or 2P), and of
    the carry before the first step."""

    gates: list[jax.Array]
    out: jax.Array
    pose: jax.Array
    cells: list[jax.Array]
    hidden: list[jax.Array]


def _dot(x: jax.Array, matrix: jax.Array) -> jax.Array:
    return jnp.dot(x.astype(matrix.dtype), matrix, preferred_element_type=jnp.float32)


def _product(parts: Sequence[tuple[int, jax.Array]], matrix: Any, column: int, size: int) -> Any:
    """Σ x @ matrix[start : start + K, column : column + size] over parts (start, x (R, K))."""
    columns = pl.ds(column, size)
    products = [_dot(x, matrix[pl.ds(start, x.shape[1]), columns]) for start, x in parts]
    return functools.reduce(jnp.add, products)


def _transposed(parts: Sequence[tuple[int, jax.Array]], matrix: Any, row: int, size: int) -> Any:
    """Σ g @ matrix[row : row + size, start : start + K]ᵀ over parts (start, g (R, K))."""
    rows = pl.ds(row, size)
    products = [_dot(g, matrix[rows, pl.ds(start, g.shape[1])].T) for start, g in parts]
    return functools.reduce(jnp.add, products)


def _placed(form: Form, first: int, tiles: Tiles) -> list[tuple[int, jax.Array]]:
    return [(first + start, tile) for start, tile in zip(form.tiles, tiles, strict=True)]


def _read(form: Form, ref: Any, *where: Any) -> Tiles:
    """The tiles of (..., H) at an index of its axes in front."""
    return [ref[(*where, pl.ds(start, form.tile))] for start in form.tiles]


def _write(form: Form, ref: Any, row: Any, tiles: Tiles) -> None:
    for start, tile in zip(form.tiles, tiles, strict=True):
        ref[row, :, pl.ds(start, form.tile)] = tile.astype(ref.dtype)


_ALL = slice(None)


def forward(form: Form, steps: int, weights: Any, given: Any, kept: Any) -> None:
    keep = bool(kept.gates)
    wide = given.pose.shape[1]
    first_step = given.step[:]

    def record(row: Any, pose: jax.Array, cells: list[Tiles], hidden: list[Tiles]) -> None:
        kept.poses[row, :, :] = pose
        for refs, layers in ((kept.cells, cells), (kept.hidden, hidden)):
            for ref, tiles in zip(refs, layers, strict=True):
                _write(form, ref, row if keep else 0, tiles)

    def step(n: jax.Array, carry: Any) -> Any:
        pose, cells, hidden = carry
        below: list[tuple[int, jax.Array]] = [(0, pose)]
        new_cells, new_hidden = [], []
        for layer in range(form.layers):
            before = _placed(form, wide if layer == 0 else form.hidden, hidden[layer])
            matrix = weights.matrices[layer]
            c_tiles, h_tiles = [], []
            for tile, start in enumerate(form.tiles):
                gates = []
                for gate in range(4):
                    column = gate * form.hidden + start
                    columns = pl.ds(column, form.tile)
                    added = (
                        weights.biases[layer - 1][columns][None, :]
                        if layer
                        else given.prepared[n, :, columns]
                    )
                    total = _product([*below, *before], matrix, column, form.tile)
                    total = total + added.astype(total.dtype)
                    gates.append(jnp.tanh(total) if gate == 2 else jax.nn.sigmoid(total))
                    if keep:
                        kept.gates[layer][n, :, columns] = gates[-1]
                i, f, g, o = gates
                c_tiles.append(f * cells[layer][tile] + i * g)
                h_tiles.append(o * jnp.tanh(c_tiles[-1]))
            new_cells.append(c_tiles)
            new_hidden.append(h_tiles)
            masked = h_tiles
            if layer < len(given.masks):
                masks = _read(form, given.masks[layer], n, _ALL)
                masked = [h * m for h, m in zip(h_tiles, masks, strict=True)]
            below = _placed(form, 0, masked)
        read = [jax.nn.leaky_relu(h, form.slope) for h in new_hidden[-1]]
        pose = _pose(form, weights, _placed(form, 0, read), pose, first_step + n)
        record(n + 1, pose, new_cells, new_hidden)
        return pose, new_cells, new_hidden

    start = given.pose[:, :]
    cells, hidden = ([_read(form, x, _ALL) for x in refs] for refs in (given.cells, given.hidden))
    record(0, start, cells, hidden)
    jax.lax.fori_loop(0, steps, step, (start, cells, hidden))


def _pose(form: Form, weights: Any, read: Any, previous: jax.Array, step: jax.Array) -> jax.Array:
    wide = previous.shape[1]

    def out(part: int) -> jax.Array:
        bias = weights.head_bias[pl.ds(part * wide, wide)][None, :]
        return (_product(read, weights.head, part * wide, wide) + bias) * form.scale

    if form.output == "position":
        return out(0)
    if form.output == "velocity":
        return previous + out(0)
    return jnp.where(_placing(form, step), out(0), previous + out(1))


def _placing(form: Form, step: jax.Array) -> jax.Array:
    return (step < form.position_steps)[:, None]


def backward(
    form: Form, steps: int, weights: Any, given: Any, kept: Any, above: Any, d: Any
) -> None:
    wide = given.pose.shape[1]
    first_step = given.step[:]

    def step(back: jax.Array, carry: Any) -> Any:
        n = steps - 1 - back
        d_pose, d_cells, d_hidden = carry
        d_pose = d_pose + above.poses[n + 1, :, :]
        outs, d_before = _pose_back(form, d_pose, first_step + n)
        for part, d_out in enumerate(outs):
            d.out[n, :, pl.ds(part * wide, wide)] = d_out.astype(d.out.dtype)
        placed = [(part * wide, d_out) for part, d_out in enumerate(outs)]
        into = []
        for tile, (start, h) in enumerate(
            zip(form.tiles, _read(form, kept.hidden[-1], n + 1, _ALL), strict=True)
        ):
            slope = jnp.where(h >= 0, 1.0, form.slope)
            d_read = _transposed(placed, weights.head, start, form.tile)
            into.append(d_hidden[-1][tile] + d_read * slope)
        new_cells: list[Tiles] = [[]] * form.layers
        new_hidden: list[Tiles] = [[]] * form.layers
        for layer in reversed(range(form.layers)):
            parts, new_cells[layer] = _layer_back(
                form, n, kept, layer, d_cells[layer], into, d.gates[layer]
            )
            matrix, first = weights.matrices[layer], form.hidden if layer else wide
            new_hidden[layer] = [
                _transposed(parts, matrix, first + start, form.tile) for start in form.tiles
            ]
            if layer == 0:
                d_before = d_before + _transposed(parts, matrix, 0, wide)
                continue
            into = [_transposed(parts, matrix, start, form.tile) for start in form.tiles]
            if layer - 1 < len(given.masks):
                masks = _read(form, given.masks[layer - 1], n, _ALL)
                into = [x * m for x, m in zip(into, masks, strict=True)]
            into = [x + own for x, own in zip(into, d_hidden[layer - 1], strict=True)]
        return d_before, new_cells, new_hidden

    last = ([_read(form, x, 0, _ALL) for x in refs] for refs in (above.cells, above.hidden))
    start = (jnp.zeros(given.pose.shape, jnp.float32), *last)
    d_pose, d_cells, d_hidden = jax.lax.fori_loop(0, steps, step, start)
    d.pose[:, :] = d_pose
    for refs, layers in ((d.cells, d_cells), (d.hidden, d_hidden)):
        for ref, tiles in zip(refs, layers, strict=True):
            for start_, tile in zip(form.tiles, tiles, strict=True):
                ref[:, pl.ds(start_, form.tile)] = tile


def _pose_back(form: Form, d_pose: jax.Array, step: jax.Array) -> tuple[Tiles, jax.Array]:
    """Cotangents of the head's results, and of the pose before that comes not by the layers."""
    scaled, nothing = d_pose * form.scale, jnp.zeros_like(d_pose)
    if form.output == "position":
        return [scaled], nothing
    if form.output == "velocity":
        return [scaled], d_pose
    placing = _placing(form, step)
    outs = [jnp.where(placing, scaled, nothing), jnp.where(placing, nothing, scaled)]
    return outs, jnp.where(placing, nothing, d_pose)


def _layer_back(
    form: Form, n: Any, kept: Any, layer: int, d_cells: Tiles, d_hidden: Tiles, d_gates: Any
) -> tuple[list[tuple[int, jax.Array]], Tiles]:
    """Cotangents of a layer's gates with their columns, also written, and of its cells before."""
    parts, before = [], []
    cells = (_read(form, kept.cells[layer], row, _ALL) for row in (n, n + 1))
    for tile, (start, old, new) in enumerate(zip(form.tiles, *cells, strict=True)):
        columns = [pl.ds(gate * form.hidden + start, form.tile) for gate in range(4)]
        i, f, g, o = (kept.gates[layer][n, :, where] for where in columns)
        out = jnp.tanh(new)
        d_new = d_cells[tile] + d_hidden[tile] * o * (1 - out * out)
        before.append(d_new * f)
        found = (
            d_new * g * i * (1 - i),
            d_new * old * f * (1 - f),
            d_new * i * (1 - g * g),
            d_hidden[tile] * out * o * (1 - o),
        )
        for gate, (where, value) in enumerate(zip(columns, found, strict=True)):
            d_gates[n, :, where] = value.astype(d_gates.dtype)
            parts.append((gate * form.hidden + start, value))
    return parts, before
