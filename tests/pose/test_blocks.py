"""Laws of what the intervals of an evaluation are drawn from."""

import types

import numpy as np
import pytest

from tds_jax.engine.intervals import Drawn
from tds_jax.engine.metrics import Regression
from tds_jax.pose import blocks


def states(value, weight=1.0):
    """Of one row whose absolute error is `value`."""
    row = np.full(2, value)
    return {"angle": Regression(np.full(2, weight), 0 * row, 0 * row, row**2, row)}


def table(users):
    return types.SimpleNamespace(number=np.arange(len(users)), group_of=lambda column: list(users))


def drawn(users, per_session=3, silent=()):
    """What is drawn of sessions that have the users, and Σ of absolute errors of each block."""
    numbers = list(range(len(users)))
    windows = blocks.Windows(numbers)
    found = {"model": {}}
    for n in numbers:
        for k in range(per_session):
            weight = 0.0 if (n, k) in silent else 1.0
            windows.add("model", n, states(10.0 * n + k, weight))
        found["model"][n] = states(10.0 * n)
    said, each = windows.blocks(found, numbers, table(users))
    return said, [float(one["angle"].absolute_error[0]) for one in each["model"]]


def test_five_users_are_drawn_whole():
    assert drawn("abcdea") == ((5, "users"), [50.0, 10.0, 20.0, 30.0, 40.0])


@pytest.mark.parametrize("users", ["aabbcc", ("a", "b", "c", "d", "")])
def test_sessions_are_drawn_where_fewer_users_are_named(users):
    said, errors = drawn(users)
    assert (said, errors) == ((len(users), "sessions"), [10.0 * n for n in range(len(users))])


def test_windows_are_drawn_of_fewer_sessions_but_for_those_without_labels():
    said, errors = drawn("aab", silent={(1, 2)})
    assert (said, errors) == ((8, "windows"), [0.0, 1.0, 2.0, 10.0, 11.0, 20.0, 21.0, 22.0])


def test_windows_of_groups_asked_for_beside_each_other_stay_apart():
    """And those of a group of many sessions are not kept at all."""
    windows = blocks.Windows([0, 1], [2], [3, 4, 5, 6, 7])
    found = {"model": {n: states(10.0 * n) for n in range(8)}}
    for n in range(8):
        for k in range(2):
            windows.add("model", n, states(10.0 * n + k))
    said = {}
    for group in ([0, 1], [2], [3, 4, 5, 6, 7]):
        drawn, each = windows.blocks(found, group, table("aabbbbbb"))
        said[str(drawn)] = [float(one["angle"].absolute_error[0]) for one in each["model"]]
    assert said == {
        "4 windows": [0.0, 1.0, 10.0, 11.0],
        "2 windows": [20.0, 21.0],
        "5 sessions": [30.0, 40.0, 50.0, 60.0, 70.0],
    }
    assert {n for n, _ in windows._found["model"]} == {0, 1, 2}


def test_a_note_says_so_unless_users_are_drawn():
    assert blocks.note(Drawn(5, "users"), table("abcde")) == ()
    (line,) = blocks.note(Drawn(8, "windows"), table("aab"))
    assert line == (
        "intervals are over 8 windows, for fewer than 5 users are named (2 in the split): "
        "they say nothing of other users"
    )
    (line,) = blocks.note(Drawn(3, "windows"), table("aab"))
    assert line.startswith("no intervals: fewer than 5 users are named")
