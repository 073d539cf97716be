"""Kernels that a card starts to run a compiled program once: the cost of a small step.

Each start takes a microsecond or two, whatever the kernel does. They are counted in the optimised
program's text (HLO): every operation that is left after fusion is one, a loop's body counts as
often as it turns. Libraries may start several for one product; that is not in the text.
"""

import re
from collections.abc import Iterator

_COMPUTATION = re.compile(r"^(ENTRY )?%([\w.\-]+) \(")
_TURNS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CALLED = re.compile(r"(?:body|to_apply)=%([\w.\-]+)")
_FUSED = re.compile(r" fusion\(.* calls=%([\w.\-]+)")

# Views, names and the ends of what was started elsewhere.
_NOTHING = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant", "after-all"}


def launches(program: str) -> int:
    """Kernels of one run of an optimised program (HLO text)."""
    return sum(times for _, _, times in walked(program))


def walked(program: str, fused: bool = False) -> Iterator[tuple[str, str, int]]:
    """(operation, its line, how often it is started) in one run of an optimised program.

    A loop whose turns are not known counts one turn. fused: after a fusion, what is in it.
    """
    bodies, entry = _computations(program)

    def walk(name: str, times: int) -> Iterator[tuple[str, str, int]]:
        for line in bodies[name]:
            operation = _operation(line)
            if operation in ("while", "call"):
                called = _CALLED.search(line)
                assert called, line
                turns = _TURNS.search(line)
                yield from walk(called[1], times * (int(turns[1]) if turns else 1))
            elif operation not in _NOTHING and not operation.endswith("-done"):
                yield operation, line, times
                if fused and (inside := _FUSED.search(line)):
                    yield from walk(inside[1], times)

    return walk(entry, 1)


def _computations(program: str) -> tuple[dict[str, list[str]], str]:
    """Lines of every computation by its name, and the name of the one that is run."""
    bodies: dict[str, list[str]] = {}
    name = entry = ""
    for line in program.splitlines():
        if head := _COMPUTATION.match(line):
            name = head[2]
            bodies[name] = []
            entry = name if head[1] else entry
        elif name and " = " in line and line.startswith("  "):
            bodies[name].append(line)
    return bodies, entry


def _operation(line: str) -> str:
    """The operation of '%name = type operation(…), …'; a tuple's type has blanks of its own."""
    rest = line.split(" = ", 1)[1]
    depth = 0
    for place, letter in enumerate(rest):
        depth += (letter == "(") - (letter == ")")
        if letter == " " and depth == 0:
            return rest[place + 1 :].split("(", 1)[0]
    return ""
