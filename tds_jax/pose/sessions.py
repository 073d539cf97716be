"""Folders of recorded sessions: which files, which split, and the windows cut from them."""

import csv
import dataclasses
import hashlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from tds_jax.data.hdf5 import RowFiles
from tds_jax.data.index import FolderIndex, Layout, Progress, Runs, index_folder
from tds_jax.errors import UserError

SPLITS = ("train", "val", "test")
GROUPS = ("user", "session", "stage", "side", "generalization")
SUFFIXES = (".hdf5", ".h5")
DATASET = "timeseries"
FIELDS = ("emg", "joint_angles")
FAILURE_ATOL = 1e-8  # rad; inverse kinematics marks a failed row with all angles zero
RATE_RTOL = 1e-3  # rates derived from time stamps carry their rounding


def valid_rows(joint_angles: np.ndarray) -> np.ndarray:
    """(n, J) radians -> (n,) bool: False where all angles are 0 within 1e-8 (a failed row).

    Rows with NaN or Inf are False too.
    """
    finite = np.isfinite(joint_angles).all(axis=1)
    return np.asarray(finite & (np.abs(joint_angles) > FAILURE_ATOL).any(axis=1))


def layout(group: str) -> Layout:
    """Names inside a session file whose HDF5 group is `group`."""
    return Layout(group, DATASET, *FIELDS, "time", "sample_rate", GROUPS[:4], valid_rows)


@dataclasses.dataclass(frozen=True)
class SessionTable:
    """Usable sessions as columns; row numbers of the full table are the group ids of reports.

    number: (S,) int32 row in the full table. names: (S,) bytes, file names in root. samples: (S,)
    rows. split: (S,) index into SPLITS. codes: (S, 5) int32, columns GROUPS, positions in the five
    sorted arrays of group_names (texts per session would be 9 MB for 25,000 sessions). valid:
    runs of rows whose labels count. broken: runs of rows with NaN or Inf in the EMG.
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
    cache_dir: str | None,
    files: RowFiles,
    progress: Progress | None = None,
) -> tuple[SessionTable, list[str]]:
    """Table of the sessions in a folder, and warnings (one line each) for the caller to print.

    window: sessions shorter than this many samples are skipped. Splits come from metadata.csv
    when the folder has one (columns filename, split and any of GROUPS; files it does not name are
    left out), otherwise whole sessions are dealt by split_ratio (see `split_by_hash`).
    Unusable files are skipped with a warning, more than max_bad_sessions of them are a UserError.
    """
    names = _discover(path)
    metadata = _read_metadata(path, names)
    chosen = [name for name in names if metadata is None or name in metadata]
    index, warnings = index_folder(path, chosen, layout(group), files, cache_dir, progress)
    if metadata is not None and len(chosen) < len(names):
        extra = next(name for name in names if name not in metadata)
        warnings.append(
            f"{path}: {len(names) - len(chosen)} files are not in metadata.csv and stay unused "
            f"(first: {extra}); add rows to use them"
        )
    skipped = _skips(index, path, window)
    _require_few(skipped, max_bad_sessions, path)
    warnings += list(skipped.values())
    kept = np.array([i for i in range(len(chosen)) if i not in skipped], np.int64)
    if not len(kept):
        first = next(iter(skipped.values()), "")
        raise UserError(
            f"{path}: none of the {len(chosen)} sessions is usable; first: {first}"
            if skipped
            else f"{path}: metadata.csv names no session; add one row per file"
        )
    warnings += _row_warnings(index, kept, path)
    return _table(path, group, index, kept, metadata, split_ratio, warnings), warnings


def _discover(path: str) -> list[str]:
    if os.path.isfile(path):
        raise UserError(f"data.path={path} is a file; give the folder that holds the sessions")
    if not os.path.isdir(path):
        raise UserError(f"data.path={path}: no such folder; check the path")
    names = sorted(name for name in os.listdir(path) if name.lower().endswith(SUFFIXES))
    if not names:
        raise UserError(
            f"data.path={path}: no session files ({', '.join(SUFFIXES)}) in the folder; "
            f"give the folder that holds them directly"
        )
    return names


def _read_metadata(path: str, names: list[str]) -> dict[str, dict[str, str]] | None:
    """Rows of metadata.csv by file name with suffix, or None without one."""
    file = os.path.join(path, "metadata.csv")
    if not os.path.exists(file):
        return None
    with open(file, newline="", encoding="utf-8-sig") as text:
        reader = csv.DictReader(text)
        columns = reader.fieldnames or []
        rows = list(reader)
    missing = [name for name in ("filename", "split") if name not in columns]
    if missing:
        raise UserError(
            f"{file}: missing column {', '.join(missing)}, found {list(columns)}; "
            f"add it or remove the file to split by data.split_ratio"
        )
    present = set(names)
    found: dict[str, dict[str, str]] = {}
    absent = []
    for line, row in enumerate(rows, start=2):
        if row["split"] not in SPLITS:
            raise UserError(
                f"{file}: line {line} has split {row['split']!r}, expected one of "
                f"{', '.join(SPLITS)}; correct it or remove the row"
            )
        stem = row["filename"]
        name = next((n for n in (stem, *(stem + s for s in SUFFIXES)) if n in present), stem)
        if name in found:
            raise UserError(f"{file}: line {line} names {stem} again; keep one row per file")
        found[name] = row
        absent += [] if name in present else [name]
    if absent:
        raise UserError(
            f"{file}: {len(absent)} of {len(rows)} named files are not in the folder "
            f"(first: {absent[0]}); copy them there or remove their rows"
        )
    return found


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


def _require_equal(values: np.ndarray, names: np.ndarray, what: str, rtol: float) -> None:
    other = np.flatnonzero(np.abs(values - values[0]) > rtol * values[0])
    if len(other):
        a, b = (os.fsdecode(bytes(names[i])) for i in (0, other[0]))
        raise UserError(
            f"sessions differ in {what}: {a} has {values[0]:g}, {b} has {values[other[0]]:g}; "
            f"train on one kind at a time, in separate folders"
        )


def _table(
    path: str,
    group: str,
    index: FolderIndex,
    kept: np.ndarray,
    metadata: dict[str, dict[str, str]] | None,
    split_ratio: Sequence[float],
    warnings: list[str],
) -> SessionTable:
    names = index.names[kept]
    _require_equal(index.rate_hz[kept], names, "sample rate (Hz)", RATE_RTOL)
    _require_equal(index.channels[kept], names, "EMG channels", 0)
    _require_equal(index.labels[kept], names, "joints", 0)
    texts = [os.fsdecode(name) for name in names.tolist()]
    stored = index.attributes[kept].tolist()
    if metadata is None:
        keys = [row[1].decode() or text for row, text in zip(stored, texts, strict=True)]
        split = split_by_hash(keys, split_ratio)
        groups = [[*row, b""] for row in stored]
    else:
        split = np.array([SPLITS.index(metadata[text]["split"]) for text in texts], np.int8)
        groups = [
            [
                (metadata[text].get(g) or "").encode() or own
                for g, own in zip(GROUPS, [*row, b""], strict=True)
            ]
            for text, row in zip(texts, stored, strict=True)
        ]
    warnings += [
        f"{path}: the {name} split has no session"
        for i, name in enumerate(SPLITS)
        if i not in split
    ]
    texts_by_column = np.array(groups, np.bytes_).reshape(len(kept), len(GROUPS)).T
    columns = [np.unique(column, return_inverse=True) for column in texts_by_column]
    return SessionTable(
        root=path,
        group=group,
        rate_hz=float(index.rate_hz[kept[0]]),
        channels=int(index.channels[kept[0]]),
        joints=int(index.labels[kept[0]]),
        number=np.arange(len(kept), dtype=np.int32),
        names=names,
        samples=index.samples[kept],
        split=split,
        codes=np.stack([codes for _, codes in columns], axis=1).astype(np.int32),
        group_names=tuple(names for names, _ in columns),
        valid=index.valid.take(kept),
        broken=index.broken.take(kept),
    )


def split_by_hash(keys: Sequence[str], ratio: Sequence[float]) -> np.ndarray:
    """(S,) int8 index into SPLITS; equal keys stay together (both hands of one session).

    ratio: train, val, test shares, normalised by their sum. Keys are ranked by a hash of their
    text: no seed, and a new key moves at most the few keys at the borders of the shares. With at
    least three keys every split of a positive ratio gets one; with fewer, train is filled first.
    """
    if len(ratio) != 3 or min(ratio) < 0 or not ratio[0] > 0:
        raise UserError(
            f"data.split_ratio={tuple(ratio)} must be three shares for train, val and test, "
            f"none negative and train above 0, such as (0.7, 0.15, 0.15)"
        )
    ranked = sorted(set(keys), key=lambda key: hashlib.blake2b(key.encode()).digest())
    n, total, held = len(ranked), sum(ratio), [0, 0]
    for i, share in enumerate(ratio[1:]):
        wanted = max(1, round(n * share / total)) if share else 0
        held[i] = min(wanted, n - 1 - held[0] - (1 if i == 0 and ratio[2] and n > 2 else 0))
    bounds = dict.fromkeys(ranked[held[0] + held[1] :], 0)
    bounds |= dict.fromkeys(ranked[: held[0]], 1)
    bounds |= dict.fromkeys(ranked[held[0] : held[0] + held[1]], 2)
    return np.array([bounds[key] for key in keys], np.int8)
