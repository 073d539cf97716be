"""Folders of recorded sessions: which files, which split, and the windows cut from them."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from tds_jax.config import SPLITS
from tds_jax.data.hdf5 import RowFiles
from tds_jax.data.index import FolderIndex, index_folder
from tds_jax.data.scan import Runs, contradiction
from tds_jax.errors import UserError, some
from tds_jax.pose.labels import bridged, label_step, reach
from tds_jax.pose.metadata import Metadata, junk, read_metadata, session_files
from tds_jax.pose.selection import Selection, joint_numbers, require_side, sampled
from tds_jax.pose.splits import split_by_hash
from tds_jax.pose.table import GROUPS, SessionTable, layout
from tds_jax.progress import Progress, silent

RATE_RTOL = 1e-3  # rates derived from time stamps carry their rounding


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
    warnings += junk(path) + (metadata.notes if metadata else [])
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
    table = _table(path, group, index, kept, groups, metadata, split_ratio, selection)
    warnings += _row_warnings(index, kept, table)
    warnings += _sparse_warnings(table)
    warnings += _rate_warnings(index, kept, table)
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
        split=split,
        codes=np.stack([codes for _, codes in columns], axis=1).astype(np.int32),
        group_names=tuple(names for names, _ in columns),
        lowest=index.lowest[kept],
        highest=index.highest[kept],
        valid=Runs.pack([bridged(of, reach(step)) for of, step in zip(runs, steps, strict=True)]),
        label_step=np.array(steps, np.int64),
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
