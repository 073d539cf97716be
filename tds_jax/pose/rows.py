"""Rows of a pose report: groups of sessions, and the numbers of each method in each."""

import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence

import jax
import numpy as np

from tds_jax.engine import metrics
from tds_jax.engine.report import ALL, MODEL, PER, Row
from tds_jax.pose.joints import fingers
from tds_jax.pose.metrics import States
from tds_jax.pose.table import SessionTable

# Sessions of seen users and stages carry the headline; other generalizations stand beside it.
SEEN = ("none", "session", "")
GROUPS = ("generalization", "user", "stage", "side")
# Hardest first: a new user in a new stage (session, user and stage are those of training or new).
GENERALIZATIONS = ("user_stage", "user", "stage", "session", "none")
PER_USER = f"{PER}user"

Sessions = dict[int, States]
"""What a method did in each session, by the session's number."""


def members_of(table: SessionTable, evaluated: Collection[int]) -> dict[str, list[int]]:
    """Session numbers of every group; a session may be too short of usable rows for a window."""
    present = [(i, n) for i, n in enumerate(table.number.tolist()) if n in evaluated]
    members = {ALL: whole(table, [n for _, n in present])}
    for column in GROUPS:
        names = table.group_of(column)
        for i, n in sorted(present, key=lambda pair: _ease(names[pair[0]])):
            if names[i]:
                members.setdefault(f"{column}/{names[i]}", []).append(n)
    return members


def whole(table: SessionTable, numbers: Collection[int]) -> list[int]:
    """Of the numbers those that the group 'all' is of: seen users and stages, or all if none is."""
    kinds = dict(zip(table.number.tolist(), table.group_of("generalization"), strict=True))
    return [n for n in numbers if kinds[n] in SEEN] or list(numbers)


def kinds_of(members: Mapping[str, list[int]]) -> list[str]:
    """Groups of generalizations that are not everything."""
    kinds = [group for group in members if group.startswith("generalization/")]
    return [group for group in kinds if set(members[group]) != set(members[ALL])]


def _ease(name: str) -> int:
    """Of a generalization; every other name stands where it came."""
    return GENERALIZATIONS.index(name) if name in GENERALIZATIONS else 0


def rows_of(
    split: str,
    found: dict[str, Sessions],
    table: SessionTable,
    joints: Sequence[str],
    members: Mapping[str, list[int]],
) -> list[Row]:
    """Rows of every group and method, the headline first; of sessions and joints at the end."""
    users = dict(zip(table.number.tolist(), table.group_of("user"), strict=True))
    rows = []
    for group, numbers in members.items():
        for method, sessions in found.items():
            each = _per_user(sessions, numbers, users)
            rows += _pooled_rows(split, group, method, list(each.values()))
            if not group.startswith("user/"):
                named = [states for user, states in each.items() if user]
                rows += _spread_rows(split, f"{PER_USER}/{group}", method, named)
    rows += [
        row
        for method, sessions in found.items()
        for row in _joint_rows(split, method, joints, [sessions[n] for n in members[ALL]])
    ]
    # Of the model alone: an emg2pose test split has 6,167 sessions.
    for i, number in enumerate(table.number.tolist()):
        if number in found[MODEL]:
            group = f"session/{table.path(i).rsplit('/', 1)[-1]}"
            rows += _pooled_rows(split, group, MODEL, [found[MODEL][number]])
    return rows


def _per_user(
    sessions: Sessions, numbers: Sequence[int], users: Mapping[int, str]
) -> dict[str, States]:
    """The chosen sessions' states, merged user by user; '' holds those of nobody in particular."""
    found: dict[str, States] = {}
    for n in numbers:
        old = found.get(users[n])
        found[users[n]] = sessions[n] if old is None else metrics.merge(old, sessions[n])
    return found


def _pooled_rows(split: str, group: str, method: str, states: list[States]) -> list[Row]:
    """One row per metric, over all label rows; count: how many there are."""
    pooled = functools.reduce(metrics.merge, states)
    count = float(pooled["angle"].weight.max())
    values = metrics.compute(pooled)
    return [Row(split, group, method, name, value, None, count) for name, value in values.items()]


def _spread_rows(split: str, group: str, method: str, states: list[States]) -> list[Row]:
    """Mean and standard deviation over users of each user's own pooled value, where it has one."""
    each = [metrics.compute(one) for one in states]
    rows = []
    for name in each[0] if each else ():
        values = np.array([one[name] for one in each])
        values = values[np.isfinite(values)]
        mean = float(values.mean()) if len(values) else float("nan")
        spread = float(values.std(ddof=1)) if len(values) > 1 else None
        rows.append(Row(split, group, method, name, mean, spread, float(len(values))))
    return rows


def _joint_rows(split: str, method: str, joints: Sequence[str], states: list[States]) -> list[Row]:
    pooled = functools.reduce(metrics.merge, states)["angle"]
    parts = {f"finger/{name}": part for name, part in fingers(joints).items()}
    parts |= {f"joint/{name}": [j] for j, name in enumerate(joints)}
    rows = []
    for group, part in parts.items():
        one = dataclasses.replace(pooled, names=())
        one = jax.tree.map(lambda leaf, part=part: leaf[part], one)
        rows += _pooled_rows(split, group, method, [{"angle": one}])
    return rows
