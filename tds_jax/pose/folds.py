"""Parts of the recordings that are the test in turn: k of them, or every user."""

import dataclasses

import numpy as np

from tds_jax.config import SPLITS
from tds_jax.fields import require
from tds_jax.pose.selection import require_name
from tds_jax.pose.splits import ranked
from tds_jax.pose.table import GROUPS, SessionTable

SETTING = "data.fold"
USER = "user="
LEAST = 3  # one to test, one to choose by, one to learn from


def parse(fold: str) -> tuple[int, int]:
    """(which, of how many), counted from 1, of '2/5'; UserError of anything else."""
    number, _, count = fold.partition("/")
    good = number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)
    require(
        good and int(count) >= LEAST,
        f"{SETTING}={fold!r} must be a part of {LEAST} or more, such as '2/5', or '{USER}NAME'; "
        "'' for none",
    )
    return int(number), int(count)


def require_fold(fold: str) -> None:
    """UserError unless it is '', '2/5' or 'user=NAME'."""
    if fold and not fold.startswith(USER):
        parse(fold)


def split_by_fold(table: SessionTable, fold: str, split_by: str) -> np.ndarray:
    """(S,) int8 index into SPLITS: one part of the recordings is test, the next val.

    '2/5': users with split_by 'user', else sessions, ranked as `splits.split_by_hash` does and
    dealt in turn. 'user=NAME': that user is test, the next by name val, recordings of nobody train.
    """
    users = table.group_of("user")
    names = [name.decode(errors="replace") for name in table.names.tolist()]
    if fold.startswith(USER):
        known = sorted(set(users) - {""})
        require_name(SETTING, fold.removeprefix(USER), known)
        _require_parts(fold, known, LEAST, "users")
        test, parts = (
            known.index(fold.removeprefix(USER)),
            [known.index(u) if u else -1 for u in users],
        )
        count = len(known)
    else:
        what = "user" if split_by == "user" else "session"
        given = users if what == "user" else table.group_of("session")
        keys = [key or name for key, name in zip(given, names, strict=True)]
        number, count = parse(fold)
        order = ranked(keys)
        _require_parts(fold, order, count, f"{what}s")
        place = {key: i % count for i, key in enumerate(order)}
        test, parts = number - 1, [place[key] for key in keys]
    split = {test: SPLITS.index("test"), (test + 1) % count: SPLITS.index("val")}
    return np.array([split.get(part, SPLITS.index("train")) for part in parts], np.int8)


def ungeneralized(table: SessionTable) -> SessionTable:
    """Without what metadata.csv says of how far its own test lies from its own training."""
    column = GROUPS.index("generalization")
    codes, names = table.codes.copy(), list(table.group_names)
    codes[:, column], names[column] = 0, np.array([b""])
    return dataclasses.replace(table, codes=codes, group_names=tuple(names))


def _require_parts(fold: str, found: list[str], least: int, what: str) -> None:
    require(
        len(found) >= least,
        f"{SETTING}={fold!r} needs {least} {what} or more, the data have {len(found)}; use fewer "
        "parts",
    )
