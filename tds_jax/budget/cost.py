"""How long a program would take on a device, from its operations; for comparing plans only.

XLA's own count leaves out that a loop's body runs many times, so operations are counted here on
the jaxpr: products and convolutions by their FLOPs, everything by the bytes of what it makes, each
loop as often as it turns. A roofline turns that into seconds, of which only ratios are meaningful.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from jax.extend import core

# Operations with work of their own; XLA fuses the rest into the one that reads them.
_CONTRACTIONS = ("dot_general", "conv_general_dilated")
_UNFUSED = ("reduce_sum", "reduce_max", "sort", "gather", "scatter-add", "cumsum", "concatenate")


@dataclasses.dataclass(frozen=True)
class Speed:
    """A device in numbers: FLOP/s of products, bytes/s of its memory, s per operation, and bytes/s
    between it and others."""

    flops: float
    bandwidth: float
    latency: float
    link: float = 1e10


def seconds(jaxpr: core.Jaxpr, speed: Speed) -> float:
    """Estimated run time: Σ over operations of max(FLOPs / flops, bytes / bandwidth) + latency."""
    return sum(_seconds(eqn, speed) for eqn in jaxpr.eqns)


def _seconds(eqn: core.JaxprEqn, speed: Speed) -> float:
    if eqn.primitive.name == "pallas_call":  # one operation, of which every program runs all of it
        programs = math.prod(eqn.params["grid_mapping"].grid)
        inside = dataclasses.replace(speed, latency=0.0)
        return programs * seconds(eqn.params["jaxpr"], inside) + speed.latency
    inner = [seconds(jaxpr, speed) for jaxpr in _inner(eqn.params)]
    if inner:  # of a `cond` one branch runs, of a loop the body `length` times
        return max(inner) * eqn.params.get("length", 1)
    made = sum(_bytes(v) for v in eqn.outvars)
    if eqn.primitive.name in _CONTRACTIONS:
        moved = made + sum(_bytes(v) for v in eqn.invars)
        return max(_flops(eqn) / speed.flops, moved / speed.bandwidth) + speed.latency
    if eqn.primitive.name in _UNFUSED:
        return (made + sum(_bytes(v) for v in eqn.invars)) / speed.bandwidth + speed.latency
    return 0.0


def _inner(params: dict[str, Any]) -> list[core.Jaxpr]:
    """The programs inside an operation: bodies of loops, branches, calls."""
    found = []
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                found.append(item.jaxpr)
            elif isinstance(item, core.Jaxpr):
                found.append(item)
    return found


def _shape(variable: core.Var | core.Literal) -> tuple[int, ...]:
    return getattr(variable.aval, "shape", ())


def _bytes(variable: core.Var | core.Literal) -> int:
    return math.prod(_shape(variable)) * getattr(variable.aval, "dtype", np.dtype("V0")).itemsize


def _flops(eqn: core.JaxprEqn) -> float:
    left, right = (_shape(v) for v in eqn.invars[:2])
    out = math.prod(_shape(eqn.outvars[0]))
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return 2.0 * out * math.prod(left[axis] for axis in contracted)
    # Each output sums over the kernel's window and input channels: all of it but its out channels.
    features = eqn.params["dimension_numbers"].rhs_spec[0]
    return 2.0 * out * math.prod(right) / right[features]
