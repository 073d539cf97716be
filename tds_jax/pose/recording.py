"""What poses are predicted for: a recording in a file, or one in memory."""

from typing import Any, Protocol

import numpy as np

from tds_jax.data.scan import SCAN_ROWS, require_columns, stamped_rate, times_of
from tds_jax.errors import UserError
from tds_jax.pose.labels import (
    declared,
    filled,
    first_label_step,
    in_radians,
    radians_per_unit,
    reach,
    seem_degrees,
    valid_rows,
)
from tds_jax.pose.selection import flip, joint_numbers, select_channels
from tds_jax.pose.sessions import RATE_RTOL
from tds_jax.pose.table import DATASET, FIELDS, UNIT
from tds_jax.pose.task import PoseTask


class Recording(Protocol):
    """EMG on demand. name: in errors. rows: samples in all. tracked: whether models that can begin
    by themselves shall begin at its pose all the same."""

    name: str
    rows: int
    tracked: bool

    def emg(self, start: int, stop: int) -> np.ndarray:
        """(stop - start, C) f32 of the model's electrodes, as recorded."""

    def known(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """(time (n,) f8 seconds, (n,) bool whether the EMG is finite)."""

    def given_pose(self, row: int) -> np.ndarray:
        """(1, J) radians in the model's signs, from which tracking starts; or UserError."""


class FileRecording:
    """A `Recording` read from a file of sessions, a stretch at a time."""

    tracked = False

    def __init__(self, task: PoseTask, path: str) -> None:
        self._task, self.name = task, path
        self._header = task.files.header(path, task.config.data.group, DATASET)
        self.rows = self._header.rows

    def require_fit(self, needs_pose: bool) -> None:
        """UserError unless electrodes and rate are the model's; needs_pose: labels, too."""
        require_fit(self._task, self.name, self._header.width(self.name, FIELDS[0]), self._rate())
        if needs_pose:
            self._header.width(self.name, FIELDS[1])

    def _rate(self) -> float | None:
        """Samples per second by the file's attribute or else its times; None without either."""
        rate = self._header.attributes.get("sample_rate")
        if isinstance(rate, float):
            return rate
        if rate is not None:
            raise UserError(
                f"{self.name}: attribute 'sample_rate' is {rate!r}; write it as a number"
            )
        if "time" not in self._header.fields:
            return None
        return stamped_rate(times_of(self._raw(0, SCAN_ROWS), "time", self.name)) or None

    def _raw(self, start: int, stop: int) -> np.ndarray:
        return self._task.files.raw(self.name, self._task.config.data.group, DATASET, start, stop)

    def _column(self, column: int, start: int, stop: int) -> np.ndarray:
        group, fields = self._task.config.data.group, FIELDS[column : column + 1]
        return self._task.files.rows(self.name, group, DATASET, start, stop, fields)[0]

    def emg(self, start: int, stop: int) -> np.ndarray:
        """See `Recording`."""
        return select_channels(self._column(0, start, stop), self._task.config.data.channels)

    def known(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Recording`."""
        raw = self._raw(start, stop)
        emg = select_channels(raw["emg"], self._task.config.data.channels)
        if "time" in self._header.fields:
            time: Any = times_of(raw, "time", self.name)
        else:
            time = np.arange(start, stop) / self._task.recorded.sample_rate
        return np.asarray(time, np.float64), np.isfinite(emg).all(axis=1)

    def given_pose(self, row: int) -> np.ndarray:
        """See `Recording`: the file's own label."""
        data, header = self._task.config.data, self._header

        def labels(start: int, stop: int) -> np.ndarray:
            return self._column(1, start, stop)

        more = reach(first_label_step(labels, header.rows, self._task.recorded.sample_rate))
        start = max(0, row - more)
        unit = str(header.attributes.get(UNIT, ""))
        scale = radians_per_unit(data.angle_unit, unit, self.name)
        around = filled(labels(start, min(row + 1 + more, header.rows)), more)
        angles = in_radians(around[row - start : row - start + 1], scale)
        if degrees := seem_degrees(declared(data.angle_unit, unit), float(np.abs(angles).max())):
            raise UserError(f"{self.name}: {degrees}")
        if not valid_rows(angles).all():
            raise UserError(
                f"{self.name} has no valid joint angles at row {row}, where tracking starts; "
                "cut the file to begin earlier or later"
            )
        side = str(header.attributes.get("side", ""))
        return flip(angles, joint_numbers(data.flip_left, self._task.joint_names), side, self.name)


class ArrayRecording:
    """A `Recording` in memory. emg (T, C) in the recordings' unit; pose: None or (1, J) radians."""

    name = "emg"

    def __init__(
        self, task: PoseTask, emg: np.ndarray, rate_hz: float, pose: np.ndarray | None
    ) -> None:
        if not isinstance(rate_hz, int | float | np.number):
            raise UserError(f"rate_hz={rate_hz!r} is no number; give samples per second")
        self._rate_hz, self._pose, self.tracked = rate_hz, pose, pose is not None
        require_fit(task, self.name, band_of(emg), rate_hz)
        self._emg = select_channels(np.asarray(emg), task.config.data.channels)
        self.rows = len(self._emg)

    def emg(self, start: int, stop: int) -> np.ndarray:
        """See `Recording`."""
        return self._emg[start:stop].astype(np.float32)

    def known(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Recording`; time 0 is that of the first row."""
        finite = np.isfinite(self._emg[start:stop]).all(axis=1)
        return np.arange(start, stop) / self._rate_hz, finite

    def given_pose(self, row: int) -> np.ndarray:
        """See `Recording`."""
        if self._pose is None:
            raise UserError(
                "initial_pose is missing: a tracking model needs the pose at which it starts; give "
                f"the joint angles of row {row} in radians"
            )
        return self._pose


def band_of(emg: np.ndarray) -> int:
    """The electrodes of an array; UserError unless it is numbers of samples x electrodes."""
    emg = np.asarray(emg)
    if emg.ndim != 2 or emg.dtype.kind not in "fiu":
        raise UserError(
            f"emg is an array of {emg.dtype} with shape {emg.shape}; give numbers with shape "
            "(samples, electrodes)"
        )
    return emg.shape[1]


def require_fit(task: PoseTask, name: str, channels: int, rate: float | None) -> None:
    """UserError unless a recording has the electrodes and the rate (None: unknown) of the model."""
    chosen = task.config.data.channels
    require_columns(name, chosen, channels)
    if not chosen and channels != task.recorded.num_channels:
        raise UserError(
            f"{name} has {channels} EMG channels, the model was trained on "
            f"{task.recorded.num_channels}; give recordings of the same band"
        )
    if rate is not None and not abs(rate / task.recorded.sample_rate - 1) <= RATE_RTOL:
        raise UserError(
            f"{name} has {rate:g} samples per second, the model was trained on "
            f"{task.recorded.sample_rate:g}; resample it first with python -m tds_jax.prepare"
        )


def finite_emg(recording: Recording, start: int, stop: int) -> np.ndarray:
    """(stop - start, C) f32 of the model's electrodes; zeros for rows with NaN or Inf, so that the
    decoder survives them."""
    emg = recording.emg(start, stop)
    return np.where(np.isfinite(emg).all(axis=1, keepdims=True), emg, np.float32(0))
