"""Recordings cut in time: a part of each for training, for validation and for the test."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tds_jax.data.scan import Runs
from tds_jax.errors import UserError
from tds_jax.pose.splits import GAP_SECONDS, parts_in_time
from tds_jax.pose.table import SessionTable


def have_room(table: SessionTable, ratio: Sequence[float], window: int) -> bool:
    """Whether the parts of every recording hold a window."""
    _, rows, _ = _parts(table, ratio)
    return bool((rows[:, np.array(ratio) > 0] >= window).all())


def in_parts(table: SessionTable, ratio: Sequence[float], window: int) -> SessionTable:
    """Every recording as up to three sessions of the table; those without a label are left out.

    Windows, statistics and baselines of a part see no row of another. UserError where a part would
    hold no window.
    """
    first, rows, split = _parts(table, ratio)
    if not have_room(table, ratio, window):
        short = int(np.argmin(table.samples))
        raise UserError(
            f"{table.path(short)}: {table.samples[short]} samples are too few for train, val and "
            f"test parts, each of a window of {window} or more; lower data.window or use "
            "data.split_by='session'"
        )
    owner = np.repeat(np.arange(len(table)), rows.shape[1])
    begin, count = first.ravel(), rows.ravel()
    parts = dataclasses.replace(
        table.take(owner),
        number=np.arange(len(owner), dtype=np.int32),
        first=begin,
        samples=count,
        split=split.ravel().astype(np.int8),
        valid=_cut(table.valid, owner, begin, count),
        broken=_cut(table.broken, owner, begin, count),
    )
    kept = parts.take(np.flatnonzero(parts.valid.rows() > 0))
    return dataclasses.replace(kept, number=np.arange(len(kept), dtype=np.int32))


def _parts(
    table: SessionTable, ratio: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return parts_in_time(table.samples, ratio, round(GAP_SECONDS * table.rate_hz))


def _cut(runs: Runs, owner: np.ndarray, first: np.ndarray, rows: np.ndarray) -> Runs:
    """The runs inside each part, counted from its first row."""
    cut = []
    for session, begin, count in zip(owner, first, rows, strict=True):
        inside = np.clip(runs.of(session) - begin, 0, count)
        cut.append(inside[inside[:, 1] > inside[:, 0]])
    return Runs.pack(cut)
