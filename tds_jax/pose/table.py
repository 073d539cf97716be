"""The sessions of a folder as columns, and their rows as a model gets them."""

import dataclasses
import os
from typing import Any

import numpy as np

from tds_jax.config import SPLITS
from tds_jax.data.hdf5 import RowFiles
from tds_jax.data.scan import Layout, Runs
from tds_jax.data.stored_rows import Wanted
from tds_jax.pose.labels import filled, in_radians, reach, valid_rows
from tds_jax.pose.selection import flip, select_channels

GROUPS = ("user", "session", "stage", "side", "generalization")
GROUP = "emg2pose"  # of the benchmark's files, which holds
DATASET = "timeseries"
FIELDS = ("emg", "joint_angles")
UNIT = "angle_unit"  # attribute: 'rad' or 'deg'
RANGE = ("lowest", "highest")
NUMBERS = ("number", "samples", "split", "first", "scale", *RANGE, "label_step")
COLUMNS = ("names", "codes", *NUMBERS, "valid", "broken")


def layout(group: str, channels: tuple[int, ...] = ()) -> Layout:
    """Names inside a session file whose HDF5 group is `group`; channels: those used, () = all."""
    texts = (*GROUPS[:4], UNIT)
    return Layout(group, DATASET, *FIELDS, "time", "sample_rate", texts, valid_rows, channels)


@dataclasses.dataclass(frozen=True)
class SessionTable:
    """Usable sessions as columns; row numbers of the full table are the group ids of reports.

    number: (S,) int32 row in the full table. names: (S,) bytes, file names in root. first, samples:
    (S,) rows of the file: a session may be a part of it, whose rows count from 0. scale: (S,)
    radians per unit of the file's angles; lowest, highest: radians, of all joints. split: (S,)
    index into SPLITS. codes: (S, 5) int32, columns GROUPS, positions in the five sorted arrays of
    group_names (texts per session would be 9 MB for 25,000 sessions). valid: runs of rows whose
    labels count, those between sparse labels included. label_step: (S,) rows from one label to the
    next, see `labels.label_step`. broken: runs of rows with NaN or Inf in the EMG. electrodes:
    columns of the files' EMG that are read, in this order; () = all. flipped: joints whose sign
    changes for left hands. channels counts the electrodes read.
    """

    root: str
    group: str
    rate_hz: float
    channels: int
    joints: int
    number: np.ndarray
    names: np.ndarray
    samples: np.ndarray
    split: np.ndarray
    codes: np.ndarray
    group_names: tuple[np.ndarray, ...]
    first: np.ndarray
    scale: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    valid: Runs
    label_step: np.ndarray
    broken: Runs
    electrodes: tuple[int, ...]
    flipped: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.names)

    def select(self, split: str) -> "SessionTable":
        """The sessions of one split, keeping their numbers in the full table."""
        return self.take(np.flatnonzero(self.split == SPLITS.index(split)))

    def take(self, rows: np.ndarray) -> "SessionTable":
        """The sessions at the given positions."""
        changed: dict[str, Any] = {
            name: value.take(rows) if isinstance(value, Runs) else value[rows]
            for name in COLUMNS
            for value in [getattr(self, name)]
        }
        return dataclasses.replace(self, **changed)

    def path(self, session: int) -> str:
        """File of the session at this position."""
        return os.path.join(self.root, os.fsdecode(bytes(self.names[session])))

    def emg(self, files: RowFiles, session: int, start: int, stop: int) -> np.ndarray:
        """(stop - start, C) f32 of the table's electrodes."""
        start, stop = start + int(self.first[session]), stop + int(self.first[session])
        (emg,) = files.rows(self.path(session), self.group, DATASET, start, stop, FIELDS[:1])
        return select_channels(emg, self.electrodes)

    def rows(
        self, files: RowFiles, session: int, start: int, stop: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """`emg` and the angles (stop - start, J) f32 radians, in the table's signs.

        Rows between sparse labels have theirs interpolated.
        """
        path, more = self.path(session), reach(int(self.label_step[session]))
        first, end = max(0, start - more), min(stop + more, int(self.samples[session]))
        skip = int(self.first[session])
        emg, angles = files.rows(path, self.group, DATASET, skip + first, skip + end, FIELDS)
        angles = in_radians(angles, float(self.scale[session]))
        wanted = slice(start - first, stop - first)
        emg, angles = emg[wanted], filled(angles, more)[wanted]
        return select_channels(emg, self.electrodes), self._flipped(angles, session)

    def windows(
        self, files: RowFiles, sessions: np.ndarray, starts: np.ndarray, length: int, labels: slice
    ) -> tuple[np.ndarray, np.ndarray]:
        """`rows` of many windows at once: EMG (B, length, C) and the angles (B, N, J) at `labels`.

        sessions, starts: (B,). labels: which rows of a window. Windows of sparse labels need rows
        beyond them and are read one by one.
        """
        count, label_rows = len(sessions), len(range(*labels.indices(length)))
        emg = np.empty((count, length, self.channels), np.float32)
        angles = np.empty((count, label_rows, self.joints), np.float32)
        wanted = (
            Wanted(FIELDS[0], slice(None), self.electrodes, emg),
            Wanted(FIELDS[1], labels, (), angles),
        )
        sparse = self.label_step[sessions] > 1
        dense = np.flatnonzero(~sparse).tolist()
        skipped = (starts + self.first[sessions]).tolist()
        places = [(self.path(sessions[n]), skipped[n], n) for n in dense]
        files.windows(self.group, DATASET, places, length, wanted)
        changed = ~sparse & ((self.scale[sessions] != 1) | bool(self.flipped))
        for n in np.flatnonzero(changed).tolist():
            scaled = in_radians(angles[n], float(self.scale[sessions[n]]))
            angles[n] = self._flipped(scaled, sessions[n])
        for n in np.flatnonzero(sparse).tolist():
            start = int(starts[n])
            emg[n], every = self.rows(files, int(sessions[n]), start, start + length)
            angles[n] = every[labels]
        return emg, angles

    def _flipped(self, angles: np.ndarray, session: int) -> np.ndarray:
        side = self._text(session, GROUPS.index("side")) if self.flipped else ""
        return flip(angles, self.flipped, side, self.path(session) if self.flipped else "")

    def _text(self, session: int, number: int) -> str:
        return self.group_names[number][self.codes[session, number]].decode()

    def group_of(self, column: str) -> list[str]:
        """Text per session of one of GROUPS, '' where neither metadata.csv nor the file has it."""
        number = GROUPS.index(column)
        names = [text.decode() for text in self.group_names[number].tolist()]
        return [names[code] for code in self.codes[:, number].tolist()]

    def __repr__(self) -> str:
        return f"SessionTable({self.root!r}, {len(self)} sessions)"
