"""Windows and blocks of rows read from the sessions of a table."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from tds_jax.data.hdf5 import RowFiles
from tds_jax.data.scan import Runs
from tds_jax.data.windows import RunWindows, Windows, WindowSpec, difference
from tds_jax.errors import UserError, some
from tds_jax.pose.calibration import Calibrations
from tds_jax.pose.labels import valid_rows
from tds_jax.pose.table import SessionTable

Example = dict[str, np.ndarray]

REFERENCE_LOSS = 2  # rows at the end of each run that the published windowing never reaches


class PoseWindows:
    """Random-access windows of a table's sessions (a `data.pipeline.BatchSource`).

    spec.stride None tiles every session for evaluation: each supervised row counts once. With
    jitter, training windows start up to stride - 1 rows later, inside the session and clear of
    rows with NaN or Inf; a move that would leave no valid row is not made. rotation: training
    windows are rolled by -rotation … rotation electrodes, each as likely, as if the band sat so.
    failures: how rows without a valid label are met, see `place_windows`. calibrations: of the
    table's sessions, in their order.
    """

    def __init__(
        self,
        table: SessionTable,
        files: RowFiles,
        spec: WindowSpec,
        jitter: bool,
        rotation: int = 0,
        failures: str = "mask",
        calibrations: Calibrations | None = None,
    ) -> None:
        if jitter and spec.stride is None:
            raise ValueError("jitter would count rows of tiled windows twice; give a stride")
        self.table = table
        self.spec = spec
        self._files = files
        self._jitter = jitter
        self._rotation = rotation
        self._calibrations = calibrations
        self._windows = place_windows(table, spec, failures)
        if not len(self._windows):
            raise UserError(
                f"{table.root}: {len(table)} sessions hold no window of {spec.window} samples "
                f"{'with a valid row' if failures == 'mask' else 'whose rows are all valid'} on "
                f"the model's grid (every {spec.label_stride} samples); lower data.window, add "
                "sessions, or set loss.every_sample=True, which meets every row"
            )

    def __len__(self) -> int:
        return len(self._windows)

    def __repr__(self) -> str:
        return f"PoseWindows({len(self)} windows of {self.spec.window}, {self.table!r})"

    def empty(self) -> list[str]:
        """A line if there are sessions without a window: nothing of them is seen."""
        without = np.setdiff1d(np.arange(len(self.table)), self._windows.sessions())
        paths = [self.table.path(int(i)) for i in without]
        if not paths:
            return []
        spec = self.spec
        return [
            f"{len(paths)} of {len(self.table)} sessions hold no window of {spec.window} samples "
            f"with a label on the model's grid (every {spec.label_stride} samples) and no NaN or "
            f"Inf in emg, and are left out: {some(paths)}"
        ]

    def example(self, index: int, rng: np.random.Generator | None) -> Example:
        """Window `index`: `examples` of one, without their leading axis."""
        batch = self.examples([index], None if rng is None else [rng])
        return {name: leaf[0] for name, leaf in batch.items()}

    def examples(
        self, indices: Sequence[int], rngs: Sequence[np.random.Generator] | None
    ) -> Example:
        """Windows by index; rngs move them when jitter is on and roll electrodes by `rotation`.

        emg (B, T, C) f32, finite. joint_angles (B, N, J) f32 radians, zeros where the label is not
        valid. weight (B, N) f32, 1 where a row counts: it is valid and no earlier window of a
        tiling counts it. session (B,) int32: rows of the full session table. With calibrations,
        calibration (B, K) f32 of a stretch of its user.
        """
        session, start, repeated = self._windows.places(indices)
        moved = start + self._moves(session, start, rngs)
        batch = self._read(session, moved, repeated)
        lost = np.flatnonzero((moved != start) & ~batch["weight"].any(axis=1))
        if lost.size:
            unmoved = self._read(session[lost], start[lost], repeated[lost])
            for name, leaf in unmoved.items():
                batch[name][lost] = leaf
        if rngs is not None and self._rotation:
            for emg, rng in zip(batch["emg"], rngs, strict=True):
                shift = int(rng.integers(-self._rotation, self._rotation + 1))
                emg[...] = np.roll(emg, shift, axis=1)
        if self._calibrations:
            batch["calibration"] = self._calibrations.of(session, rngs)
        return batch

    def _moves(
        self, session: np.ndarray, start: np.ndarray, rngs: Sequence[np.random.Generator] | None
    ) -> np.ndarray:
        if rngs is None or not self._jitter:
            return np.zeros_like(start)
        most = np.minimum(self.spec.step, self._windows.room(session, start) + 1).tolist()
        return np.array([rng.integers(m) for rng, m in zip(rngs, most, strict=True)])

    def with_history(self, index: int, rows: int) -> tuple[np.ndarray, int]:
        """EMG of window `index` (unmoved) and up to `rows` rows before it.

        Returns ((offset + T, C) f32 as recorded, offset): rows before the window may have NaN or
        Inf.
        """
        session, start, _ = self._windows.locate(index)
        begin = max(0, start - rows)
        emg = self.table.emg(self._files, session, begin, start + self.spec.window)
        return emg, start - begin

    def _read(self, session: np.ndarray, start: np.ndarray, repeated: np.ndarray) -> Example:
        table, spec = self.table, self.spec
        labels = slice(spec.label_offset, None, spec.label_stride)
        emg, angles = table.windows(self._files, session, start, spec.window, labels)
        valid = valid_rows(angles.reshape(-1, angles.shape[2])).reshape(angles.shape[:2])
        angles[~valid] = 0
        first = np.arange(angles.shape[1]) >= repeated[:, None]
        return {
            "emg": emg,
            "joint_angles": angles,
            "weight": (valid & first).astype(np.float32),
            "session": table.number[session].astype(np.int32),
        }


def place_windows(table: SessionTable, spec: WindowSpec, failures: str) -> Windows | RunWindows:
    """Where windows lie. None holds a row whose EMG has NaN or Inf.

    failures 'mask': anywhere with a valid row; failed rows inside get weight 0, so none is lost.
    'blocks': inside runs of valid rows, every row of which can be reached. 'reference': inside the
    runs as the published code cuts them, whose last two rows belong to no window.
    """
    if failures == "mask":
        return Windows(table.samples, table.valid, table.broken, spec)
    runs = difference(table.samples, table.valid, table.broken)
    if failures == "reference":
        runs = Runs(runs.offsets, runs.start, np.maximum(runs.stop - REFERENCE_LOSS, runs.start))
    return RunWindows(runs, spec)


@dataclasses.dataclass(frozen=True)
class Block:
    """Consecutive rows of a session starting at row `start`.

    emg (n, C) f32 as recorded. joint_angles (n, J) f32 radians, zeros where the label is not valid.
    valid (n,) bool: EMG and label are both usable.
    """

    start: int
    emg: np.ndarray
    joint_angles: np.ndarray
    valid: np.ndarray


def session_blocks(
    table: SessionTable, files: RowFiles, session: int, block_rows: int
) -> Iterator[Block]:
    """All rows of the session at this position of the table, at most block_rows at a time."""
    rows = int(table.samples[session])
    for start in range(0, rows, block_rows):
        stop = min(start + block_rows, rows)
        emg, angles = table.rows(files, session, start, stop)
        finite = np.isfinite(emg).all(axis=1)
        labelled = valid_rows(angles)
        angles = np.where(labelled[:, None], angles, np.float32(0))
        yield Block(start, emg, angles, finite & labelled)
