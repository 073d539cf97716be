"""3-D convolutions over days and space, then an LSTM over the days of every pixel."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax.errors import UserError
from tds_jax.fields import require_choice
from tds_jax.forecast.conv_block import ConvBlock
from tds_jax.forecast.heads import LeadHead
from tds_jax.forecast.pixel_lstm import PixelLSTM
from tds_jax.nn.module import Module
from tds_jax.nn.normalizer import Statistic
from tds_jax.nn.precision import at_least_f32

LAYOUTS = ("pixels", "reference")


@dataclasses.dataclass(frozen=True)
class Structure:
    """What tells the three published networks apart; see `CNN3DLSTM`."""

    widths: tuple[int, ...]
    bins: int
    lstm_hidden: int
    bidirectional: bool
    head_width: int


def structure(name: str, hidden: int, lstm_hidden: int) -> Structure:
    """The structure of a published network at any width; the sizes published are given here.

    'cnn3d_lstm' (64, 32), 'cnn3d_lstm_lite' (32, 16), 'cnn3d_lstm_micro' (16, 8).
    """
    h = hidden
    known = {
        "cnn3d_lstm": Structure((h // 4, h // 2, h), 8, lstm_hidden, True, h // 2),
        "cnn3d_lstm_lite": Structure((h // 4, h // 2), 4, lstm_hidden, True, 0),
        "cnn3d_lstm_micro": Structure((h,), 2, lstm_hidden, False, 0),
    }
    require_choice("model.name", name, tuple(known))
    if min(known[name].widths) < 1:
        raise UserError(f"model.hidden={hidden} is too small for {name}; use 4 or more")
    return known[name]


class CNN3DLSTM(Module):
    """Fields of past days (B, T, H, W, C) -> maps of coming days (B, L, H, W), f32.

    widths: channels of the 3 x 3 x 3 `ConvBlock`s. Their result is averaged to `bins` times, an
    LSTM (`lstm_hidden`, `bidirectional`) reads these at every pixel, and its last output, after a
    3 x 3 `ConvBlock` of `head_width` channels if that is not 0, becomes one map per lead
    (head 'leads') or one that is repeated (head 'repeat').

    layout 'pixels': the LSTM reads the times of one pixel. 'reference': the published networks
    with head 'repeat' to the last number, parameters without effect included (114,833, 8,777 and
    2,617 with 4 channels). They read the memory of (bins, H, W) as (H, W, bins): a sequence is then
    `bins` neighbouring pixels at one time, its result belongs to another pixel, and weights do not
    fit other sizes of the map. For comparison only.

    cells: how many cells of the map count; 0: all. Otherwise their indices in the flat map are the
    `Statistic` `cells` (ascending, the first ones until it is set), LSTM and head run on them, and
    the maps are 0 elsewhere. norm, groups, periodic, remat, example_chunk: see `ConvBlock`;
    pixel_chunk: see `PixelLSTM`. dropout: of whole channels, after each block before the LSTM.
    """

    def __init__(
        self,
        *,
        num_channels: int,
        leads: int,
        widths: Sequence[int],
        bins: int,
        lstm_hidden: int,
        bidirectional: bool,
        head_width: int,
        head: str,
        layout: str,
        norm: str,
        groups: int,
        dropout: float,
        periodic: bool = False,
        cells: int,
        remat: str,
        example_chunk: int,
        pixel_chunk: int,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        require_choice("model.layout", layout, LAYOUTS)
        if cells and layout == "reference":
            raise UserError("model.layout='reference' mixes land and sea; use 'pixels' for land")
        self.blocks = len(widths)
        self.bins = bins
        self.layout = layout
        make = functools.partial(
            ConvBlock,
            norm=norm,
            groups=groups,
            periodic=periodic,
            remat=remat,
            example_chunk=example_chunk,
            dtype=dtype,
            rngs=rngs,
        )
        for n, (a, b) in enumerate(zip((num_channels, *widths), widths, strict=False)):
            setattr(self, f"block_{n}", make(a, b, (3, 3, 3), dropout=dropout))
        self.lstm = PixelLSTM(
            widths[-1],
            lstm_hidden,
            bins,
            bidirectional=bidirectional,
            published=layout == "reference",
            pixel_chunk=pixel_chunk,
            dtype=dtype,
            rngs=rngs,
        )
        features = self.lstm.features
        self.head = make(features, head_width, (3, 3), dropout=0.0) if head_width else None
        self.out = LeadHead(head_width or features, leads, head, dtype=dtype, rngs=rngs)
        self.cells = Statistic(jnp.arange(cells, dtype=jnp.int32)) if cells else None

    def __call__(self, x: jax.Array, train: bool, keys: jax.Array | None = None) -> jax.Array:
        """train: normalise by the batch and move its running statistics; keys (B, 2): dropout."""
        batch, *_, height, width, _ = x.shape
        cells = None if self.cells is None else self.cells[...]
        for n in range(self.blocks):
            last = n == self.blocks - 1
            then = functools.partial(sequences, bins=self.bins, layout=self.layout)
            block = getattr(self, f"block_{n}")
            x = block(x, train, keys, n, then if last else unchanged, cells)
        features = self.lstm(x.reshape(-1, *x.shape[2:])).reshape(batch, x.shape[1], -1)
        if self.head is not None:
            grid = self._placed(features, height * width).reshape(batch, height, width, -1)
            features = self.head(grid, train, keys, self.blocks, unchanged)
            features = _taken(features.reshape(batch, height * width, -1), cells)
        maps = jnp.swapaxes(self.out(features), 1, 2)
        return jnp.swapaxes(self._placed(maps, height * width), 1, 2).reshape(
            batch, -1, height, width
        )

    def _placed(self, values: jax.Array, total: int) -> jax.Array:
        """values (B, N, F) at the cells that count -> (B, total, F), 0 elsewhere."""
        if self.cells is None:
            return values
        zeros = jnp.zeros((values.shape[0], total, values.shape[2]), values.dtype)
        places = zeros.at[:, self.cells[...]]
        return places.set(values, indices_are_sorted=True, unique_indices=True)


def unchanged(maps: jax.Array, cells: jax.Array | None) -> jax.Array:
    """The maps."""
    del cells
    return maps


def sequences(maps: jax.Array, cells: jax.Array | None, *, bins: int, layout: str) -> jax.Array:
    """maps (B, T, H, W, F) -> what an LSTM reads, (B, H * W, bins, F), or at `cells` only.

    layout: see `CNN3DLSTM`.
    """
    batch, days, height, width, features = maps.shape
    wide = at_least_f32(maps.dtype)
    # Slices and not a product with a matrix: they fuse with what makes the maps.
    means = [jnp.mean(maps[:, a:b], axis=1, dtype=wide) for a, b in bin_days(days, bins)]
    shape = (batch, height * width, features)
    flat = [mean.astype(maps.dtype).reshape(shape) for mean in means]
    if layout == "reference":
        return jnp.stack(flat, axis=1).reshape(batch, -1, bins, features)
    return jnp.stack([_taken(mean, cells) for mean in flat], axis=2)


def bin_days(days: int, bins: int) -> list[tuple[int, int]]:
    """Which days bin i averages, as PyTorch's adaptive pooling: (floor(i T/O), ceil((i + 1) T/O)).

    Neighbouring bins may share a day; where there are more bins than days, bins repeat days.
    """
    return [(i * days // bins, -(-(i + 1) * days // bins)) for i in range(bins)]


def _taken(values: jax.Array, cells: jax.Array | None) -> jax.Array:
    """values (B, total, ...) at the cells."""
    if cells is None:
        return values
    return values.at[:, cells].get(indices_are_sorted=True, unique_indices=True)
