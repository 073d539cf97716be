"""What a model measures on the train split before it learns: of the EMG, and of its powers."""

import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from tds_jax.data.hdf5 import RowFiles
from tds_jax.data.statistics import Moments, spread_slices, streamed_moments
from tds_jax.engine import processes
from tds_jax.pose.labels import valid_rows
from tds_jax.pose.table import SessionTable

# Windows whose powers are looked at, spread over the sessions: of so many a mean is known to a
# sixtieth of its spread or better, however much is recorded.
MOST_WINDOWS = 4096
AT_ONCE = 16  # windows, for one call of the device
# Labels that the mean pose is of, spread over the sessions: from it a model only begins.
MOST_LABELS = 2**18

Layer = Callable[[jax.Array], jax.Array]
Scale = dict[str, np.ndarray]
"""{'mean', 'scale'} of a `Normalizer`."""


def fit_normalizer(
    table: SessionTable, files: RowFiles, max_samples: int, block_rows: int
) -> Scale:
    """(C,) f32 of the EMG of a table's sessions; give the train split.

    max_samples 0 reads every row, otherwise that many rows spread over the sessions. Rows with
    NaN or Inf are left out, rows without a valid label count: the model sees their EMG. Processes
    read a part each.
    """
    limit = max_samples or int(table.samples.sum())
    own = processes.crew().share(spread_slices(table.samples, limit))

    def blocks() -> Iterator[np.ndarray]:
        for session, begin, end in own:
            for start in range(begin, end, block_rows):
                yield table.emg(files, session, start, min(start + block_rows, end))

    return _together(streamed_moments(blocks()) if own else None)


def fit_powers(
    table: SessionTable, files: RowFiles, window: int, scale: Scale, front: Sequence[Layer]
) -> Scale:
    """(F,) f32 of what `front` makes of a table's EMG, window by window; give the train split.

    scale: of the EMG, {} = as recorded. Frames with NaN or Inf are left out. Processes read a part
    each.
    """
    own = processes.crew().share(_tiles(table, window))
    mean, spread = scale.get("mean", np.float32(0)), scale.get("scale", np.float32(1))
    through = jax.jit(lambda x: functools.reduce(lambda x, layer: layer(x), front, x))

    def blocks() -> Iterator[np.ndarray]:
        for begin in range(0, len(own), AT_ONCE):
            batch = own[begin : begin + AT_ONCE]
            emg = np.stack([table.emg(files, n, start, start + window) for n, start in batch])
            frames = np.asarray(through((emg - mean) / spread))
            yield frames.reshape(-1, frames.shape[-1])

    return _together(streamed_moments(blocks()) if own else None)


def fit_mean_pose(table: SessionTable, files: RowFiles) -> np.ndarray:
    """(J,) f32 rad, the mean valid label of MOST_LABELS rows of a table; give the train split.

    Zeros if none of them is valid. Processes read a part each.
    """
    own = processes.crew().share(spread_slices(table.samples, MOST_LABELS))

    def blocks() -> Iterator[np.ndarray]:
        for session, start, stop in own:
            angles = table.rows(files, session, start, stop)[1]
            yield angles[valid_rows(angles)]

    return _together(streamed_moments(blocks()) if own else None)["mean"]


def _tiles(table: SessionTable, window: int) -> list[tuple[int, int]]:
    """(session, first row) of windows side by side, MOST_WINDOWS of them at most."""
    places = [
        (session, start)
        for session, rows in enumerate(table.samples.tolist())
        for start in range(0, rows - window + 1, window)
    ]
    chosen = np.linspace(0, len(places) - 1, min(len(places), MOST_WINDOWS)).round()
    return [places[n] for n in chosen.astype(int).tolist()]


def _together(own: Moments | None) -> Scale:
    """Of the rows of all processes."""
    parts = processes.crew().gather(own)
    moments = functools.reduce(Moments.merge, (part for part in parts if part))
    return {"mean": moments.mean.astype(np.float32), "scale": moments.scale().astype(np.float32)}
