"""What a pose model must beat: constants, the held initial pose, `linear` (see `pose.linear`).

Fits stream over chunks `(emg (T, C), joint_angles (T, J) rad, valid (T,) bool)` of any length, in
any order; only rows with valid labels count. Memory does not grow with the number of rows.
"""

import dataclasses
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from tds_jax.data.drive import blame_the_drive
from tds_jax.data.numpy_files import archive
from tds_jax.data.whole_file import whole_file
from tds_jax.errors import UserError
from tds_jax.pose.labels import require_rows
from tds_jax.pose.linear import Ridge
from tds_jax.pose.read_out import ReadOut

Chunk = tuple[np.ndarray, np.ndarray, np.ndarray]


class Fit(Protocol):
    """Accumulates chunks."""

    def update(self, emg: np.ndarray, joint_angles: np.ndarray, valid: np.ndarray) -> None:
        """Adds one chunk."""


def fit(chunks: Iterable[Chunk], *fits: Fit) -> None:
    """Feeds every chunk to every fit: all baselines from one pass over the data."""
    for emg, joint_angles, valid in chunks:
        for one in fits:
            one.update(emg, joint_angles, valid)


class ConstantMean:
    """Mean pose: the constant of least squared error. Sums in f64."""

    def __init__(self, joints: int) -> None:
        self._sum = np.zeros(joints)
        self._count = 0

    def update(self, emg: np.ndarray, joint_angles: np.ndarray, valid: np.ndarray) -> None:
        self._sum += joint_angles[valid].sum(axis=0, dtype=np.float64)
        self._count += int(valid.sum())

    def result(self) -> np.ndarray:
        """(J,) f32. Raises UserError without a single valid row."""
        require_rows(self._count)
        return (self._sum / self._count).astype(np.float32)


class ConstantMedian:
    """Median pose, the constant of least absolute error, from a histogram per joint.

    Within one bin (1 mrad in [-π, π], as many bins in any range) of the exact median for angles in
    [low, high]; angles beyond count as its ends. Memory: 1 MB of counts at 20 joints.
    """

    def __init__(self, joints: int, low: float = -np.pi, high: float = np.pi) -> None:
        self._bins = int(np.ceil(2 * np.pi / 1e-3))
        self._low, self._width = low, (high - low) / self._bins
        self._counts = np.zeros((joints, self._bins), np.int64)

    def update(self, emg: np.ndarray, joint_angles: np.ndarray, valid: np.ndarray) -> None:
        joints = len(self._counts)
        place = (joint_angles[valid].astype(np.float64) - self._low) / self._width
        index = np.clip(place, 0, self._bins - 1).astype(np.int64)
        flat = (index + np.arange(joints) * self._bins).ravel()
        self._counts += np.bincount(flat, minlength=self._counts.size).reshape(joints, -1)

    def result(self) -> np.ndarray:
        """(J,) f32. Raises UserError without a single valid row."""
        below = np.cumsum(self._counts, axis=1)
        require_rows(int(below[0, -1]))
        middle = (below >= below[:, -1:] / 2).argmax(axis=1)
        return (self._low + (middle + 0.5) * self._width).astype(np.float32)


# Of what is fitted, raised when a baseline changes: kept ones of another form are fitted anew.
FORM = 4


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What was fitted to the train split of sessions, as a file keeps it.

    digest: the task's. contents: fingerprint of the sessions' files.
    """

    digest: str
    contents: str
    mean: np.ndarray
    median: np.ndarray
    linear: Ridge
    read_out: ReadOut

    def write(self, path: Path) -> None:
        """An .npz; it is there whole or not at all."""
        parts = {"linear": self.linear, "read_out": self.read_out}
        fitted = {f"{part}_{n}": v for part, one in parts.items() for n, v in vars(one).items()}
        with whole_file(path) as temporary, temporary.open("wb") as file:
            plain = {name: getattr(self, name) for name in ("digest", "contents", "mean", "median")}
            np.savez(file, form=FORM, **plain, **fitted)

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """None if there is no such file, or one of another form."""
        if not path.exists():
            return None
        try:
            with archive(path) as arrays:
                found = dict(arrays)
            if int(found.get("form", 1)) != FORM:
                return None
            linear = Ridge(
                found["linear_weights"],
                found["linear_bias"],
                int(found["linear_bin_samples"]),
                int(found["linear_history"]),
                tuple(found["linear_stretches"].tolist()),
            )
            read_out = ReadOut(found["read_out_said"], found["read_out_median"])
            names = str(found["digest"]), str(found["contents"])
            return cls(*names, found["mean"], found["median"], linear, read_out)
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            blame_the_drive(error, path)
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{path} cannot be read ({reason}); delete it to fit anew") from error
