"""The one exception that means "the user can fix this", and how its lines name many things."""

from collections.abc import Sequence
from typing import Any


class UserError(Exception):
    """Bad input or configuration: one line naming the thing, its value, what was expected, the fix.

    Doors print the text on stderr without a traceback and exit with status 2.
    """


class NoSplitError(UserError):
    """A split of the data has nothing in it."""


def some(things: Sequence[Any], shown: int = 3) -> str:
    """The first of them in words, and how many more there are.

    >>> some(["a", "b", "c"], shown=2)
    'a, b and 1 more'
    """
    more = f" and {len(things) - shown} more" if len(things) > shown else ""
    return ", ".join(map(str, things[:shown])) + more
