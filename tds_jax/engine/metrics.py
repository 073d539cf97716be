"""Metric states: they add up over rows, micro-batches, devices and processes; divide at the end.

A state is a pytree of arrays with `merge` (associative) and `compute` (the only division). The
zero of a state (all leaves 0) is neutral for merge, so a fresh one is `zeros_like`. States are
made on the device in float32 and merged on the host in float64 (`to_host`).
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

# Relative to its mean, what a target must vary by to move at all: a few roundings in float32.
STILL = 4 * 2.0**-23


class Additive:
    """A state, a dataclass, whose fields are sums, but for those that are static."""

    def merge(self, other: Self) -> Self:
        """The state of both sets of rows."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        names = [field.name for field in fields if not field.metadata.get("static")]
        sums = {name: getattr(self, name) + getattr(other, name) for name in names}
        return dataclasses.replace(self, **sums)  # type: ignore[type-var]

    def pool(self) -> Self:
        """One state from several along a leading axis."""
        return jax.tree.map(lambda sums: sums.sum(axis=0), self)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mean(Additive):
    """Σ weight·value and Σ weight, both scalars."""

    sum: Any
    weight: Any

    def compute(self, name: str) -> dict[str, float]:
        """{name: mean}; NaN when nothing was counted."""
        return {name: divide(self.sum, self.weight)}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Regression:
    """Errors and target moments per output, enough for MAE, MSE, RMSE and R²; O(J) memory.

    weight, target_mean, target_m2, squared_error, absolute_error: (..., J).
    target_m2 is Σ w (y - mean)², merged by Chan's update, which keeps its digits where
    Σy² - (Σy)²/n loses them (|mean| >> spread).
    """

    weight: Any
    target_mean: Any
    target_m2: Any
    squared_error: Any
    absolute_error: Any

    @classmethod
    def of(cls, prediction: jax.Array, target: jax.Array, weight: jax.Array) -> Self:
        """Per-example states of (B, N, J) predictions and targets under weights (B, N): (B, J)."""
        w = weight[..., None].astype(jnp.float32)
        total = jnp.broadcast_to(w.sum(axis=1, dtype=jnp.float32), target[:, 0].shape)
        # Off one of the rows that count: of equal rows nothing is left to round.
        highest = jnp.where(w > 0, target, -jnp.inf).max(axis=1)
        shift = jnp.where(total > 0, highest, 0).astype(jnp.float32)
        apart = target - shift[:, None, :]
        mean = (w * apart).sum(axis=1, dtype=jnp.float32) / _at_least_one(total)
        centred = apart - mean[:, None, :]
        error = prediction.astype(jnp.float32) - target
        return cls(
            weight=total,
            target_mean=shift + mean,
            target_m2=(w * centred**2).sum(axis=1, dtype=jnp.float32),
            squared_error=(w * error**2).sum(axis=1, dtype=jnp.float32),
            absolute_error=(w * jnp.abs(error)).sum(axis=1, dtype=jnp.float32),
        )

    def merge(self, other: Self) -> Self:
        """The state of both sets of rows."""
        total = self.weight + other.weight
        share = other.weight / _at_least_one(total)
        delta = other.target_mean - self.target_mean
        return dataclasses.replace(
            self,
            weight=total,
            target_mean=self.target_mean + delta * share,
            target_m2=self.target_m2 + other.target_m2 + delta**2 * self.weight * share,
            squared_error=self.squared_error + other.squared_error,
            absolute_error=self.absolute_error + other.absolute_error,
        )

    def pool(self) -> Self:
        """One state (..., J) from several (B, ..., J): two passes, so no digits are lost."""
        total = self.weight.sum(axis=0)
        mean = (self.weight * self.target_mean).sum(axis=0) / _at_least_one(total)
        between = self.weight * (self.target_mean - mean[None]) ** 2
        return dataclasses.replace(
            self,
            weight=total,
            target_mean=mean,
            target_m2=(self.target_m2 + between).sum(axis=0),
            squared_error=self.squared_error.sum(axis=0),
            absolute_error=self.absolute_error.sum(axis=0),
        )

    def compute(self, unit: str) -> dict[str, float]:
        """Pooled over outputs: mae_<unit>, mse, rmse_<unit>, r2 and r2_mean.

        r2 = 1 - ΣSSE/ΣSST with SST about each output's own mean; r2_mean is the plain mean of the
        outputs' R². Both are without outputs that never move, NaN when nothing was counted.
        """
        moves = self.moves
        mse = divide(self.squared_error.sum(), self.weight.sum())
        return {
            f"mae_{unit}": divide(self.absolute_error.sum(), self.weight.sum()),
            "mse": mse,
            f"rmse_{unit}": float(np.sqrt(mse)),
            "r2": 1 - divide(self.squared_error[moves].sum(), self.target_m2[moves].sum()),
            "r2_mean": _mean_of_numbers(self.per_output()["r2"]),
        }

    @property
    def moves(self) -> np.ndarray:
        """Outputs whose target varies by more than the rounding of its mean, in float32."""
        still = self.weight * (STILL * self.target_mean) ** 2
        return np.asarray(self.target_m2 > still)

    def per_output(self) -> dict[str, np.ndarray]:
        """The same per output, each (J,): mae, mse, r2; NaN for an output that never moves."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return {
                "mae": np.asarray(self.absolute_error / self.weight),
                "mse": np.asarray(self.squared_error / self.weight),
                "r2": np.where(self.moves, 1 - self.squared_error / self.target_m2, np.nan),
            }


def _at_least_one(weight: Any) -> Any:
    """The weight, with 1 where it is 0: a divisor for sums that are 0 there. numpy or jax."""
    return weight + (weight == 0).astype(weight.dtype)


def _mean_of_numbers(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


def divide(value: Any, weight: Any) -> float:
    """value / weight; NaN when the weight is 0."""
    return float(value) / float(weight) if float(weight) else float("nan")


def merge(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Merges two dicts of states name by name."""
    return {name: a[name].merge(b[name]) for name in a}


def pool(states: Mapping[str, Any]) -> dict[str, Any]:
    """One dict of states from one whose states have a leading axis."""
    return {name: state.pool() for name, state in states.items()}


def to_host(states: Any) -> Any:
    """The states as float64 numpy arrays."""
    return jax.tree.map(lambda x: np.asarray(x, np.float64), jax.device_get(states))


def merge_all(states: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Merges any number of dicts of states on the host, in float64."""
    return functools.reduce(merge, (to_host(s) for s in states))


def compute(states: Mapping[str, Any]) -> dict[str, float]:
    """Every state's values in one flat dict."""
    values: dict[str, float] = {}
    for name, state in states.items():
        new = state.compute(name)
        assert not values.keys() & new.keys(), f"two states give {values.keys() & new.keys()}"
        values |= new
    return values
