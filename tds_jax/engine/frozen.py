"""Parameters that a run does not change, by patterns over their paths.

Trees are nested dicts with string keys. What is frozen is left out of all that an optimizer keeps:
it has neither moments nor a place in the accumulator, and the compiler drops its gradient, which
nothing reads.
"""

import fnmatch
from collections.abc import Sequence
from typing import Any

import jax

from tds_jax.errors import UserError, some

Tree = dict[str, Any]
SETTING = "optim.frozen"


def learnt(tree: Tree, patterns: Sequence[str], before: str = "") -> Tree:
    """The part of a tree that no pattern matches.

    A pattern is that of a path ('decoder/core/out/*'), or of a part and all in it ('encoder').

    >>> learnt({"up": {"bias": 1, "kernel": 2}, "down": {"bias": 3}}, ["down", "*/kernel"])
    {'up': {'bias': 1}}
    """
    found = {}
    for name, value in tree.items():
        path = f"{before}{name}"
        if any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns):
            continue
        part = learnt(value, patterns, f"{path}/") if isinstance(value, dict) else value
        if not isinstance(value, dict) or part:
            found[name] = part
    return found


def merged(tree: Tree, part: Tree) -> Tree:
    """The tree with the leaves of a part of it in their places.

    >>> merged({"up": {"bias": 1, "kernel": 2}}, {"up": {"bias": 5}})
    {'up': {'bias': 5, 'kernel': 2}}
    """
    return tree | {
        name: merged(tree[name], value) if isinstance(value, dict) else value
        for name, value in part.items()
    }


def require_some(params: Tree, patterns: Sequence[str]) -> None:
    """UserError for a pattern that matches nothing, and where nothing is left to learn."""
    leaves = len(jax.tree.leaves(params))
    for pattern in patterns:
        if len(jax.tree.leaves(learnt(params, [pattern]))) == leaves:
            raise UserError(
                f"{SETTING} has {pattern!r}, which matches no parameter; they are "
                f"{some(paths(params), 12)}"
            )
    if patterns and not learnt(params, patterns):
        raise UserError(f"{SETTING}={tuple(patterns)} leaves nothing to learn; free a part")


def paths(tree: Tree, before: str = "") -> list[str]:
    """The path of every leaf."""
    return [
        path
        for name, value in tree.items()
        for path in (
            paths(value, f"{before}{name}/") if isinstance(value, dict) else [f"{before}{name}"]
        )
    ]
