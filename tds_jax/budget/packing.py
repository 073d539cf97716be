"""Bytes that products and convolutions on CPU take beside the compiler's account.

XLA on CPU leaves both to Eigen, as (M, K) x (K, N). It copies ("packs") both sides, a slice of K
at a time, into memory that it takes from malloc and gives back itself. With the slice as below it
explains most of what the resident set rises above that account (experiments/planner_accuracy.py).
"""

import math
import re
from collections.abc import Iterator

SLICE = 256  # of K at most, a slice that stays in a core's first cache; slices are of equal size

_TYPE = r"(?P<type>[a-z]+(?P<bits>\d+))\[(?P<dims>[\d,]*)\]"
_RESULT = re.compile(rf"%(?P<name>[\w.-]+) = {_TYPE}")
_PRODUCT = re.compile(r" (?P<kind>dot|convolution)\((?P<operands>[^)]*)\)(?P<rest>.*)")
_CONTRACTED = re.compile(r"lhs_contracting_dims=\{([\d,]+)\}")
_BATCH = re.compile(r"lhs_batch_dims=\{([\d,]+)\}")
_LABELS = re.compile(r"dim_labels=\w+_(\w+)->")


def scratch_bytes(program: str) -> int:
    """The most that one product or convolution of an optimised program (HLO text) packs."""
    return max((size * packed(*shape) for size, *shape in products(program)), default=0)


def packed(rows: int, columns: int, inner: int) -> int:
    """Entries packed at once of (rows, inner) x (inner, columns)."""
    return (rows + columns) * math.ceil(inner / math.ceil(inner / SLICE))


def products(program: str) -> Iterator[tuple[int, int, int, int]]:
    """(bytes of an entry, M, N, K) of every product and convolution of a program."""
    shapes: dict[str, tuple[int, ...]] = {}
    found = []
    for line in program.splitlines():
        if result := _RESULT.search(line):
            shapes[result["name"]] = _numbers(result["dims"])
            if product := _PRODUCT.search(line, result.end()):
                found.append((result, product))
    for result, product in found:
        left, right = (
            shapes.get(operand.split("%")[-1], ()) for operand in product["operands"].split(", ")
        )
        if product["kind"] == "dot":
            contracted = [left[axis] for axis in _axes(_CONTRACTED, product["rest"])]
            batch = [left[axis] for axis in _axes(_BATCH, product["rest"])]
            inner, each = math.prod(contracted), math.prod(batch)
            rows = math.prod(left) // inner // each
            columns = math.prod(right) // inner // each
        else:
            labels = _LABELS.search(product["rest"])
            assert labels, "a convolution without dim_labels"
            columns = right[labels[1].index("o")]
            inner = math.prod(right) // columns
            rows = math.prod(_numbers(result["dims"])) // columns
        yield int(result["bits"]) // 8, rows, columns, inner


def _axes(pattern: re.Pattern[str], text: str) -> tuple[int, ...]:
    match = pattern.search(text)
    return _numbers(match[1]) if match else ()


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split(",") if n)
