"""Folders of recorded sessions: which files, which split, and the windows cut from them."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tds_jax.config import SPLITS
from tds_jax.data.hdf5 import RowFiles
from tds_jax.data.index import FolderIndex, index_folder
from tds_jax.data.scan import Layout, Runs
from tds_jax.data.stored_rows import Wanted
from tds_jax.errors import UserError
from tds_jax.pose.metadata import Metadata, read_metadata, session_files
from tds_jax.pose.selection import (
    Selection,
    flip,
    joint_numbers,
    require_side,
    sampled,
    select_channels,
)
from tds_jax.progress import Progress, silent

GROUPS = ("user", "session", "stage", "side", "generalization")
GROUP = "emg2pose"  # of the benchmark's files, which holds
DATASET = "timeseries"
FIELDS = ("emg", "joint_angles")
FAILURE_ATOL = 1e-8  # rad; inverse kinematics marks a failed row with all angles zero
RATE_RTOL = 1e-3  # rates derived from time stamps carry their rounding


def valid_rows(joint_angles: np.ndarray) -> np.ndarray:
    """(n, J) radians -> (n,) bool: False where all angles are 0 within 1e-8 (a failed row).

    Rows with NaN or Inf are False too.
    """
    largest = np.abs(joint_angles).max(axis=1)  # NaN where an angle is
    return np.asarray((largest > FAILURE_ATOL) & (largest < np.inf))


def layout(group: str, channels: tuple[int, ...] = ()) -> Layout:
    """Names inside a session file whose HDF5 group is `group`; channels: those used, () = all."""
    return Layout(group, DATASET, *FIELDS, "time", "sample_rate", GROUPS[:4], valid_rows, channels)


@dataclasses.dataclass(frozen=True)
class SessionTable:
    """Usable sessions as columns; row numbers of the full table are the group ids of reports.

    number: (S,) int32 row in the full table. names: (S,) bytes, file names in root. samples: (S,)
    rows. split: (S,) index into SPLITS. codes: (S, 5) int32, columns GROUPS, positions in the five
    sorted arrays of group_names (texts per session would be 9 MB for 25,000 sessions). valid:
    runs of rows whose labels count. broken: runs of rows with NaN or Inf in the EMG. electrodes:
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
    valid: Runs
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
        columns = ("number", "names", "samples", "split", "codes", "valid", "broken")
        changed: dict[str, Any] = {
            name: value.take(rows) if isinstance(value, Runs) else value[rows]
            for name in columns
            for value in [getattr(self, name)]
        }
        return dataclasses.replace(self, **changed)

    def path(self, session: int) -> str:
        """File of the session at this position."""
        return os.path.join(self.root, os.fsdecode(bytes(self.names[session])))

    def emg(self, files: RowFiles, session: int, start: int, stop: int) -> np.ndarray:
        """(stop - start, C) f32 of the table's electrodes."""
        (emg,) = files.rows(self.path(session), self.group, DATASET, start, stop, FIELDS[:1])
        return select_channels(emg, self.electrodes)

    def rows(
        self, files: RowFiles, session: int, start: int, stop: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """`emg` and the angles (stop - start, J) f32 radians, in the table's signs."""
        path = self.path(session)
        emg, angles = files.rows(path, self.group, DATASET, start, stop, FIELDS)
        side = self._side(session) if self.flipped else ""
        return select_channels(emg, self.electrodes), flip(angles, self.flipped, side, path)

    def windows(
        self, files: RowFiles, sessions: np.ndarray, starts: np.ndarray, length: int, labels: slice
    ) -> tuple[np.ndarray, np.ndarray]:
        """`rows` of many windows at once: EMG (B, length, C) and the angles (B, N, J) at `labels`.

        sessions, starts: (B,). labels: which rows of a window.
        """
        count, label_rows = len(sessions), len(range(*labels.indices(length)))
        emg = np.empty((count, length, self.channels), np.float32)
        angles = np.empty((count, label_rows, self.joints), np.float32)
        places = [(self.path(i), start) for i, start in zip(sessions, starts.tolist(), strict=True)]
        wanted = (
            Wanted(FIELDS[0], slice(None), self.electrodes, emg),
            Wanted(FIELDS[1], labels, (), angles),
        )
        files.windows(self.group, DATASET, places, length, wanted)
        if self.flipped:
            for i, (path, _) in enumerate(places):
                angles[i] = flip(angles[i], self.flipped, self._side(sessions[i]), path)
        return emg, angles

    def _side(self, session: int) -> str:
        return self._text(session, GROUPS.index("side"))

    def _text(self, session: int, number: int) -> str:
        return self.group_names[number][self.codes[session, number]].decode()

    def group_of(self, column: str) -> list[str]:
        """Text per session of one of GROUPS, '' where neither metadata.csv nor the file has it."""
        number = GROUPS.index(column)
        names = [text.decode() for text in self.group_names[number].tolist()]
        return [names[code] for code in self.codes[:, number].tolist()]

    def __repr__(self) -> str:
        return f"SessionTable({self.root!r}, {len(self)} sessions)"


def load_sessions(
    path: str,
    *,
    group: str,
    window: int,
    split_ratio: Sequence[float],
    max_bad_sessions: int,
    selection: Selection,
    seed: int,
    cache_dir: str | None,
    files: RowFiles,
    progress: Progress = silent,
) -> tuple[SessionTable, list[str]]:
    """Table of the sessions in a folder, and warnings (one line each) for the caller to print.

    window: sessions shorter than this many samples are skipped. selection: the filters come first,
    files that metadata.csv rules out are not even opened; seed fixes which train sessions its
    subsample keeps. Splits come from metadata.csv when the folder has one (columns filename, split
    and any of GROUPS; files it does not name are left out), otherwise whole sessions are dealt by
    split_ratio (see `split_by_hash`). Unusable files are skipped with a warning, more than
    max_bad_sessions of them are a UserError.
    """
    names = session_files(path, "data.path")
    metadata = read_metadata(path, names)
    if metadata and metadata.problems:
        raise UserError(metadata.problems[0])
    named = [name for name in names if metadata is None or name in metadata.rows]
    chosen = [n for n in named if metadata is None or selection.admits(metadata.rows[n])]
    index, warnings = index_folder(
        path, chosen, layout(group, selection.channels), files, cache_dir, progress
    )
    if len(named) < len(names):
        extra = next(name for name in names if name not in named)
        warnings.append(
            f"{path}: {len(names) - len(named)} files are not in metadata.csv and stay unused "
            f"(first: {extra}); add rows to use them"
        )
    groups = _groups(index, metadata)
    selection.require_known([*groups, *(metadata.rows.values() if metadata else ())])
    # What is known of an unreadable file may not suffice to rule it out: it is then warned of.
    asked = [i for i, row in enumerate(groups) if selection.admits(row)]
    skips = _skips(index, path, window)
    skipped = {i: skips[i] for i in asked if i in skips}
    _require_few(skipped, max_bad_sessions, path)
    warnings += list(skipped.values())
    kept = np.array([i for i in asked if i not in skipped], np.int64)
    if not len(kept):
        first = next(iter(skipped.values()), "")
        raise UserError(
            f"{path}: none of the {len(asked)} sessions is usable; first: {first}"
            if skipped
            else f"{path}: no session has all of {selection.wanted()}; ask for fewer at once"
            if named
            else f"{path}: metadata.csv names no session; add one row per file"
        )
    warnings += _row_warnings(index, kept, path)
    table = _table(path, group, index, kept, groups, metadata, split_ratio, selection)
    warnings += [
        f"{path}: the {name} split has no session"
        for i, name in enumerate(SPLITS)
        if i not in table.split
    ]
    return _subsampled(table, selection.subsample, seed), warnings


def _skips(index: FolderIndex, path: str, window: int) -> dict[int, str]:
    """One line for every session that cannot be used, by its position."""
    usable = index.valid.rows()
    lines = {}
    for i, raw in enumerate(index.names):
        where = os.path.join(path, os.fsdecode(bytes(raw)))
        if index.problem[i]:
            lines[i] = f"skipped {index.problem[i].decode()}"
        elif index.backwards[i] >= 0:
            lines[i] = (
                f"skipped {where}: time runs backwards at row {index.backwards[i]}; "
                f"sort the rows or cut the file there"
            )
        elif index.samples[i] < window:
            lines[i] = (
                f"skipped {where}: {index.samples[i]} samples are shorter than a window of "
                f"{window}; lower data.window or leave the file out"
            )
        elif not usable[i]:
            lines[i] = f"skipped {where}: no row has valid joint angles; leave the file out"
    return lines


def _require_few(skipped: dict[int, str], limit: int, path: str) -> None:
    if len(skipped) > limit:
        first = "; ".join(list(skipped.values())[:3])
        raise UserError(
            f"{path}: {len(skipped)} sessions cannot be used, more than "
            f"data.max_bad_sessions={limit}: {first}"
        )


def _row_warnings(index: FolderIndex, kept: np.ndarray, path: str) -> list[str]:
    broken = index.broken.rows()
    lines = []
    for i in kept[(broken[kept] > 0) | (index.bad_labels[kept] > 0)]:
        where = os.path.join(path, os.fsdecode(bytes(index.names[i])))
        lines.append(
            f"{where}: {broken[i]} of {index.samples[i]} rows have NaN or Inf in emg (windows with "
            f"them are left out), {index.bad_labels[i]} in joint_angles (weight 0)"
        )
    return lines


def _require_equal(
    values: np.ndarray, names: np.ndarray, what: str, rtol: float, other_way: str = ""
) -> None:
    other = np.flatnonzero(np.abs(values - values[0]) > rtol * values[0])
    if len(other):
        a, b = (os.fsdecode(bytes(names[i])) for i in (0, other[0]))
        raise UserError(
            f"sessions differ in {what}: {a} has {values[0]:g}, {b} has {values[other[0]]:g}; "
            f"train on one kind at a time, in separate folders{other_way}"
        )


def session_groups(given: Mapping[str, str], own: Sequence[str]) -> dict[str, str]:
    """Texts of GROUPS: metadata.csv's row, or else the file's attributes (in that order)."""
    return {g: given.get(g) or text for g, text in zip(GROUPS, [*own, ""], strict=True)}


def _groups(index: FolderIndex, metadata: Metadata | None) -> list[dict[str, str]]:
    """Texts of GROUPS per session of the index."""
    pairs = zip(index.names.tolist(), index.attributes.tolist(), strict=True)
    return [
        session_groups(
            metadata.rows[os.fsdecode(name)] if metadata else {}, [text.decode() for text in own]
        )
        for name, own in pairs
    ]


def _table(
    path: str,
    group: str,
    index: FolderIndex,
    kept: np.ndarray,
    groups: list[dict[str, str]],
    metadata: Metadata | None,
    split_ratio: Sequence[float],
    selection: Selection,
) -> SessionTable:
    names, electrodes = index.names[kept], selection.channels
    resample = ", or make them one with python -m tds_jax.prepare"
    _require_equal(index.rate_hz[kept], names, "sample rate (Hz)", RATE_RTOL, resample)
    _require_equal(index.channels[kept], names, "EMG channels", 0)
    _require_equal(index.labels[kept], names, "joints", 0)
    texts = [os.fsdecode(name) for name in names.tolist()]
    if selection.flip_left:
        for i, text in zip(kept, texts, strict=True):
            require_side(groups[i]["side"], os.path.join(path, text))
    if metadata is None:
        keys = [groups[i]["session"] or text for i, text in zip(kept, texts, strict=True)]
        split = split_by_hash(keys, split_ratio)
    else:
        split = np.array([SPLITS.index(metadata.rows[text]["split"]) for text in texts], np.int8)
    by_column = [np.array([groups[i][g].encode() for i in kept], np.bytes_) for g in GROUPS]
    columns = [np.unique(column, return_inverse=True) for column in by_column]
    joints = int(index.labels[kept[0]])
    return SessionTable(
        root=path,
        group=group,
        rate_hz=float(index.rate_hz[kept[0]]),
        channels=len(electrodes) or int(index.channels[kept[0]]),
        joints=joints,
        number=np.arange(len(kept), dtype=np.int32),
        names=names,
        samples=index.samples[kept],
        split=split,
        codes=np.stack([codes for _, codes in columns], axis=1).astype(np.int32),
        group_names=tuple(names for names, _ in columns),
        valid=index.valid.take(kept),
        broken=index.broken.take(kept),
        electrodes=electrodes,
        flipped=joint_numbers(selection.flip_left, joints),
    )


def _subsampled(table: SessionTable, share: float, seed: int) -> SessionTable:
    """The table with that share of its train sessions, and all others."""
    train = np.flatnonzero(table.split == SPLITS.index("train"))
    if share == 1 or not len(train):
        return table
    used = train[sampled(table.names[train].tolist(), share, seed)]
    others = np.flatnonzero(table.split != SPLITS.index("train"))
    return table.take(np.sort(np.concatenate([used, others])))


def split_by_hash(keys: Sequence[str], ratio: Sequence[float]) -> np.ndarray:
    """(S,) int8 index into SPLITS; equal keys stay together (both hands of one session).

    ratio: train, val, test shares, normalised by their sum. Keys are ranked by a hash of their
    text: no seed, and a new key moves at most the few keys at the borders of the shares. With at
    least three keys every split of a positive ratio gets one; with fewer, train is filled first.
    """
    ranked = sorted(set(keys), key=lambda key: hashlib.blake2b(key.encode()).digest())
    n, total, held = len(ranked), sum(ratio), [0, 0]
    for i, share in enumerate(ratio[1:]):
        wanted = max(1, round(n * share / total)) if share else 0
        held[i] = min(wanted, n - 1 - held[0] - (1 if i == 0 and ratio[2] and n > 2 else 0))
    bounds = dict.fromkeys(ranked[held[0] + held[1] :], 0)
    bounds |= dict.fromkeys(ranked[: held[0]], 1)
    bounds |= dict.fromkeys(ranked[held[0] : held[0] + held[1]], 2)
    return np.array([bounds[key] for key in keys], np.int8)
