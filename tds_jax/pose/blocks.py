"""Over what the intervals of a pose evaluation are drawn: users, or else sessions, or windows."""

import functools
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from tds_jax.engine import metrics
from tds_jax.engine.intervals import LEAST, Drawn
from tds_jax.pose.metrics import States
from tds_jax.pose.table import SessionTable


class Windows:
    """Each method's windows of sessions, kept only where the sessions are too few to draw from.

    groups: sessions of which intervals are asked for together.
    """

    def __init__(self, *groups: Collection[int]) -> None:
        few = (set(sessions) for sessions in groups if len(sessions) < LEAST)
        self._sessions: set[int] = set().union(*few)
        self._found: dict[str, list[tuple[int, States]]] = {}

    def add(self, method: str, session: int, states: States) -> None:
        """The states of one window."""
        if session in self._sessions:
            self._found.setdefault(method, []).append((session, states))

    def blocks(
        self,
        found: Mapping[str, Mapping[int, States]],
        sessions: Sequence[int],
        table: SessionTable,
    ) -> tuple[Drawn, dict[str, list[States]]]:
        """(what, {method: states of each}): users where LEAST are named, sessions, or windows.

        found: {method: {session: states}}. sessions: those that the whole is of.
        """
        names = dict(zip(table.number.tolist(), table.group_of("user"), strict=True))
        users: dict[str, list[int]] = {}
        for n in sessions:
            users.setdefault(names[n], []).append(n)
        if "" not in users and len(users) >= LEAST:
            return Drawn(len(users), "users"), _merged(found, list(users.values()))
        if len(sessions) >= LEAST or not self._found:
            return Drawn(len(sessions), "sessions"), _merged(found, [[n] for n in sessions])
        own = set(sessions)
        counted = {
            method: [states for n, states in each if n in own and _counts(states)]
            for method, each in self._found.items()
        }
        return Drawn(min(map(len, counted.values())), "windows"), counted


def note(drawn: Drawn, table: SessionTable) -> tuple[str, ...]:
    """Why intervals are not over users, or not there, if so."""
    if drawn.of == "users":
        return ()
    named = len(set(table.group_of("user")) - {""})
    few = f"fewer than {LEAST} users are named ({named} in the split)"
    if drawn.number < LEAST:
        return (f"no intervals: {few}, and there are {drawn}",)
    return (f"intervals are over {drawn}, for {few}: they say nothing of other users",)


def _merged(
    found: Mapping[str, Mapping[int, States]], parts: Sequence[Sequence[int]]
) -> dict[str, list[States]]:
    return {
        method: [functools.reduce(metrics.merge, (each[n] for n in part)) for part in parts]
        for method, each in found.items()
    }


def _counts(states: States) -> bool:
    return bool(np.any(states["angle"].weight > 0))
