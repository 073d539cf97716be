"""Folders of recorded sessions: which files, which split, and the windows cut from them."""

import dataclasses
import os
from collections.abc import Mapping, Sequence

import numpy as np

from tds_jax.config import SPLITS
from tds_jax.data.crew import ALONE, Crew
from tds_jax.data.hdf5 import RowFiles
from tds_jax.data.index import FolderIndex, index_folder, index_given
from tds_jax.data.scan import Runs, contradiction
from tds_jax.errors import UserError, some
from tds_jax.pose.folds import split_by_fold, ungeneralized
from tds_jax.pose.joints import joint_names
from tds_jax.pose.labels import (
    bridged,
    declared,
    label_step,
    radians_per_unit,
    reach,
    seem_degrees,
)
from tds_jax.pose.metadata import Metadata, junk, read_metadata, session_files
from tds_jax.pose.own_recordings import OwnRecordings
from tds_jax.pose.parts import have_room, in_parts
from tds_jax.pose.selection import Selection, joint_numbers, require_side, sampled
from tds_jax.pose.splits import GAP_SECONDS, split_by_hash
from tds_jax.pose.table import GROUPS, SessionTable, layout
from tds_jax.progress import Progress, silent

RATE_RTOL = 1e-3  # rates derived from time stamps carry their rounding


def load_sessions(
    path: str,
    *,
    group: str,
    window: int,
    split_by: str,
    split_ratio: Sequence[float],
    fold: str,
    angle_unit: str,
    max_bad_sessions: int,
    selection: Selection,
    seed: int,
    cache_dir: str | None,
    files: RowFiles,
    crew: Crew = ALONE,
    progress: Progress = silent,
) -> tuple[SessionTable, list[str]]:
    """Table of the sessions in a folder, and warnings (one line each) for the caller to print.

    window: sessions shorter than this many samples are skipped. selection: the filters come first,
    files that metadata.csv rules out are not even opened; seed fixes which train sessions its
    subsample keeps. Splits come from metadata.csv when the folder has one (columns filename, split
    and any of GROUPS; files it does not name are left out), otherwise whole sessions, or users, are
    dealt by split_ratio (see `split_by_hash`), or each recording is cut in time (see `parts`), as
    are those of fewer sessions than splits; a fold (see `folds`) wins over all of these.
    angle_unit: see `labels.radians_per_unit`. Unusable files are skipped with a warning, more than
    max_bad_sessions of them are a UserError. crew: those who read the index together.
    """
    own = files if isinstance(files, OwnRecordings) else None
    names = own.names if own else session_files(path, "data.path")
    metadata = own.metadata() if own else read_metadata(path, names)
    if metadata and metadata.problems:
        raise UserError(metadata.problems[0])
    named = [name for name in names if metadata is None or name in metadata.rows]
    chosen = [n for n in named if metadata is None or selection.admits(metadata.rows[n])]
    inside = layout(group, selection.channels)
    warnings = list(metadata.notes) if metadata else []
    if own:
        index = index_given(path, chosen, inside, files, progress)
    else:
        index, said = index_folder(path, chosen, inside, files, cache_dir, progress, crew)
        warnings = said + junk(path) + warnings
    warnings += _unnamed_warnings(path, names, named)
    groups = _groups(index, metadata)
    selection.require_known([*groups, *(metadata.rows.values() if metadata else ())])
    # What is known of an unreadable file may not suffice to rule it out: it is then warned of.
    asked = [i for i, row in enumerate(groups) if selection.admits(row)]
    skips = _skips(index, path, window, angle_unit)
    skipped = {i: skips[i] for i in asked if i in skips}
    _require_few(skipped, max_bad_sessions, path)
    kept = np.array([i for i in asked if i not in skipped], np.int64)
    if not len(kept):
        raise UserError(_nothing_left(path, asked, skipped, named, selection))
    table = _table(path, group, index, kept, groups, selection, angle_unit)
    warnings += [*skipped.values(), *_table_warnings(index, kept, table)]
    table, said = _split(table, metadata, split_by, split_ratio, fold, window)
    warnings += said + _missing_splits(table)
    return _subsampled(table, selection.subsample, seed), warnings


def _unnamed_warnings(path: str, names: Sequence[str], named: Sequence[str]) -> list[str]:
    """A line if files have no row in metadata.csv."""
    known = set(named)
    extra = [name for name in names if name not in known]
    return [
        f"{path}: {len(extra)} files are not in metadata.csv and stay unused "
        f"(first: {first}); add rows to use them"
        for first in extra[:1]
    ]


def _nothing_left(
    path: str,
    asked: Sequence[int],
    skipped: Mapping[int, str],
    named: Sequence[str],
    selection: Selection,
) -> str:
    """Why there is no session."""
    if skipped:
        first = next(iter(skipped.values()))
        return f"{path}: none of the {len(asked)} sessions is usable; first: {first}"
    if named:
        return f"{path}: no session has all of {selection.wanted()}; ask for fewer at once"
    return f"{path}: metadata.csv names no session; add one row per file"


def _missing_splits(table: SessionTable) -> list[str]:
    return [
        f"{table.root}: the {name} split has no session"
        for i, name in enumerate(SPLITS)
        if i not in table.split
    ]


def _skips(index: FolderIndex, path: str, window: int, angle_unit: str) -> dict[int, str]:
    """One line for every session that cannot be used, by its position."""
    usable = index.valid.rows()
    reached = np.fmax(np.abs(index.lowest), np.abs(index.highest))
    lines = {}
    for i, raw in enumerate(index.names):
        where = os.path.join(path, os.fsdecode(bytes(raw)))
        if index.problem[i]:
            lines[i] = f"skipped {os.fsdecode(index.problem[i])}"
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
        elif wrong := _wrong_unit(index, i, angle_unit, where, float(reached[i])):
            lines[i] = f"skipped {wrong}"
    return lines


def _wrong_unit(index: FolderIndex, i: int, angle_unit: str, where: str, reached: float) -> str:
    try:
        scale = _scale(index, i, angle_unit, where)
        degrees = seem_degrees(declared(angle_unit, _unit(index, i)), reached * scale)
    except UserError as error:
        return str(error)
    return f"{where}: {degrees}" if degrees else ""


def _scale(index: FolderIndex, i: int, angle_unit: str, where: str) -> float:
    return radians_per_unit(angle_unit, _unit(index, i), where)


def _unit(index: FolderIndex, i: int) -> str:
    return index.attributes[i, -1].decode()


def _require_few(skipped: dict[int, str], limit: int, path: str) -> None:
    if len(skipped) > limit:
        first = "; ".join(list(skipped.values())[:3])
        raise UserError(
            f"{path}: {len(skipped)} sessions cannot be used, more than "
            f"data.max_bad_sessions={limit}: {first}"
        )


def _table_warnings(index: FolderIndex, kept: np.ndarray, table: SessionTable) -> list[str]:
    """Of rows, sparse labels, rates and units, in this order."""
    rows, rates = (said(index, kept, table) for said in (_row_warnings, _rate_warnings))
    return rows + _sparse_warnings(table) + rates + _unit_warnings(table)


def _row_warnings(index: FolderIndex, kept: np.ndarray, table: SessionTable) -> list[str]:
    broken = table.broken.rows()
    bad = np.where(table.label_step > 1, 0, index.bad_labels[kept])  # sparse ones have a line
    return [
        f"{table.path(i)}: {broken[i]} of {table.samples[i]} rows have NaN or Inf in emg (windows "
        f"with them are left out), {bad[i]} in joint_angles (weight 0)"
        for i in np.flatnonzero((broken > 0) | (bad > 0)).tolist()
    ]


def _sparse_warnings(table: SessionTable) -> list[str]:
    sparse = np.flatnonzero(table.label_step > 1)
    if not len(sparse):
        return []
    steps = some(np.unique(table.label_step[sparse]).tolist())
    left = int((table.samples - table.valid.rows())[sparse].sum())
    return [
        f"{table.root}: labels stand on every {steps}th row in {len(sparse)} of {len(table)} "
        f"sessions (first: {table.path(int(sparse[0]))}): those of the rows between are "
        f"interpolated, {left} rows have none near (weight 0)"
    ]


def _rate_warnings(index: FolderIndex, kept: np.ndarray, table: SessionTable) -> list[str]:
    pairs = zip(index.rate_hz[kept], index.stamped_hz[kept], strict=True)
    found = {i: contradiction(*rates) for i, rates in enumerate(pairs)}
    wrong = [i for i, text in found.items() if text]
    return [
        f"{table.path(i)}: {found[i]} (so in {len(wrong)} of {len(table)} sessions); the attribute "
        "counts, correct it if it is wrong"
        for i in wrong[:1]
    ]


def _unit_warnings(table: SessionTable) -> list[str]:
    converted = int(np.sum(table.scale != 1))
    line = f"{table.root}: joint angles of {converted} of {len(table)} sessions are in degrees"
    return [f"{line} and converted to radians"] * bool(converted)


def _split(
    table: SessionTable,
    metadata: Metadata | None,
    split_by: str,
    ratio: Sequence[float],
    fold: str,
    window: int,
) -> tuple[SessionTable, list[str]]:
    """The table with its splits, and a line where they are other than asked for."""
    if fold:
        line = f"{table.root}: splits are those of data.fold={fold}, not of metadata.csv"
        split = split_by_fold(table, fold, split_by)
        return dataclasses.replace(ungeneralized(table), split=split), [line] * bool(metadata)
    names = [os.fsdecode(name) for name in table.names.tolist()]
    if metadata is not None:
        given = [SPLITS.index(metadata.rows[name]["split"]) for name in names]
        return dataclasses.replace(table, split=np.array(given, np.int8)), []
    if split_by == "time":
        return in_parts(table, ratio, window), []
    groups = table.group_of(split_by)
    keys = [group or name for group, name in zip(groups, names, strict=True)]
    few = len(set(keys)) < sum(share > 0 for share in ratio)
    if few and have_room(table, ratio, window):
        return in_parts(table, ratio, window), [
            f"{table.root}: {len(set(keys))} {split_by}s are fewer than the splits: each recording "
            f"is cut in time, {GAP_SECONDS:g} s between the parts"
        ]
    return dataclasses.replace(table, split=split_by_hash(keys, ratio)), []


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
    texts = [*own[: len(GROUPS) - 1], ""]
    return {g: given.get(g) or text for g, text in zip(GROUPS, texts, strict=True)}


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
    selection: Selection,
    angle_unit: str,
) -> SessionTable:
    """The sessions kept, all of them in the first split."""
    names, electrodes = index.names[kept], selection.channels
    resample = ", or make them one with python -m tds_jax.prepare"
    _require_equal(index.rate_hz[kept], names, "sample rate (Hz)", RATE_RTOL, resample)
    _require_equal(index.channels[kept], names, "EMG channels", 0)
    _require_equal(index.labels[kept], names, "joints", 0)
    texts = [os.fsdecode(name) for name in names.tolist()]
    if selection.flip_left:
        for i, text in zip(kept, texts, strict=True):
            require_side(groups[i]["side"], os.path.join(path, text))
    by_column = [np.array([groups[i][g].encode() for i in kept], np.bytes_) for g in GROUPS]
    columns = [np.unique(column, return_inverse=True) for column in by_column]
    joints = int(index.labels[kept[0]])
    scale = np.array([_scale(index, int(i), angle_unit, path) for i in kept])
    runs = [index.valid.of(i) for i in kept]
    steps = [label_step(of, index.rate_hz[i]) for of, i in zip(runs, kept, strict=True)]
    return SessionTable(
        root=path,
        group=group,
        rate_hz=float(index.rate_hz[kept[0]]),
        channels=len(electrodes) or int(index.channels[kept[0]]),
        joints=joints,
        number=np.arange(len(kept), dtype=np.int32),
        names=names,
        samples=index.samples[kept],
        split=np.zeros(len(kept), np.int8),
        codes=np.stack([codes for _, codes in columns], axis=1).astype(np.int32),
        group_names=tuple(names for names, _ in columns),
        first=np.zeros(len(kept), np.int64),
        scale=scale,
        lowest=index.lowest[kept] * scale,
        highest=index.highest[kept] * scale,
        valid=Runs.pack([bridged(of, reach(step)) for of, step in zip(runs, steps, strict=True)]),
        label_step=np.array(steps, np.int64),
        broken=index.broken.take(kept),
        electrodes=electrodes,
        flipped=joint_numbers(selection.flip_left, joint_names(joints, selection.joint_names)),
    )


def _subsampled(table: SessionTable, share: float, seed: int) -> SessionTable:
    """The table with that share of its train sessions, and all others."""
    train = np.flatnonzero(table.split == SPLITS.index("train"))
    if share == 1 or not len(train):
        return table
    used = train[sampled(table.names[train].tolist(), share, seed)]
    others = np.flatnonzero(table.split != SPLITS.index("train"))
    return table.take(np.sort(np.concatenate([used, others])))
