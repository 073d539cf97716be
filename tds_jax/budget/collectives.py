"""Bytes that devices send each other to run a compiled program once.

They are read from the optimised program's text (HLO): what each collective makes, a loop's body as
often as it turns. A TPU cuts one into steps that run inside the fusions beside it: they have one
channel, and are one. On a ring of n devices each sends (n - 1) / n of an array to gather or to
scatter it, and twice that to reduce it to all.
"""

import math
import re

from tds_jax.budget.launches import walked

_SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f64": 8}
_SIZES |= {"s64": 8, "u64": 8, "c64": 8}
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_CHANNEL = re.compile(r"\bchannel_id=(\d+)")
# How often a ring of n sends (n - 1) / n of what the operation makes.
_PASSES = {"all-reduce": 2, "all-gather": 1, "reduce-scatter": 1, "all-to-all": 1}


def moved(program: str, devices: int) -> int:
    """Bytes that one of so many devices sends in one run of an optimised program (HLO text)."""
    total, begun = 0.0, set()
    for operation, line, times in walked(program, fused=True):
        kind = operation.removesuffix("-start")
        if kind not in _PASSES:
            continue
        if channel := _CHANNEL.search(line):
            if channel[1] in begun:
                continue
            begun.add(channel[1])
        size = _made(line)
        if kind == "reduce-scatter":  # what it makes is one device's part
            size *= devices
        total += times * _PASSES[kind] * size * (devices - 1) / devices
    return round(total)


def _made(line: str) -> int:
    """Bytes of the arrays that an operation makes; of one that only starts, of its results."""
    made, _, _ = line.split(" = ", 1)[1].partition(" all-")
    made, _, _ = made.partition(" reduce-scatter")
    arrays = [_bytes(*found) for found in _ARRAY.findall(made)]
    started = re.search(r"all-gather-start\(", line)
    return sum(arrays[len(arrays) // 2 :] if started else arrays)


def _bytes(kind: str, dims: str) -> int:
    return _SIZES.get(kind, 4) * math.prod(int(n) for n in dims.split(",") if n)
