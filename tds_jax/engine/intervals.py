"""95 % intervals of what an evaluation says, of single methods and of pairs of them.

What is alike is not independent: rows of one user, forecasts that share days, frames of a scene.
Blocks of such are drawn with replacement as a whole (the bootstrap), the same ones for every
method, so that what makes a block hard for all of them is no part of their difference.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import jax
import numpy as np
from scipy import special

from tds_jax.engine import metrics
from tds_jax.engine.report import AGAINST_MODEL, ALL, MODEL, Row

LEVEL = 0.95
DRAWS = 1000
LEAST = 5  # blocks; of fewer, what is drawn says nothing of those that were not measured

WORTH_SAYING = 1.1  # times that an interval is too narrow

States = Mapping[str, Any]
Values = Callable[[States], Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class Resampled:
    """values[method][metric]: (DRAWS,) f64, draw by draw of the same blocks; empty if too few."""

    values: Mapping[str, Mapping[str, np.ndarray]]

    @classmethod
    def of(
        cls,
        blocks: Mapping[str, Sequence[States]],
        values: Values = metrics.compute,
        seed: int = 0,
    ) -> Self:
        """Draws from each method's blocks: states on the host, in one order for all methods.

        values: metrics of pooled states. Same seed, same intervals.
        """
        count = min(len(each) for each in blocks.values())
        if count < LEAST:
            return cls({})
        chosen = np.random.default_rng(seed).integers(count, size=(DRAWS, count))
        return cls({name: _drawn(each, values, chosen) for name, each in blocks.items()})

    def interval(self, method: str, metric: str, minus: str = "") -> tuple[float, float] | None:
        """Low and high end for a method, or for how far it lies above `minus`; None if unknown."""
        drawn = self.values.get(method, {}).get(metric)
        if drawn is None:
            return None
        if minus:
            other = self.values.get(minus, {}).get(metric)
            if other is None:
                return None
            drawn = drawn - other
        known = drawn[np.isfinite(drawn)]
        if not len(known):
            return None
        low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(low), float(high)

    def rows(self, rows: Sequence[Row], group: str = ALL) -> list[Row]:
        """The rows, those of the group with their intervals; then each baseline minus the model.

        The latter are of the group `against(group)`: above 0 where the baseline's number is higher.
        """
        whole = {(row.method, row.metric): row for row in rows if row.group == group}
        apart = []
        for (method, metric), row in whole.items():
            model = whole.get((MODEL, metric))
            ends = self.interval(method, metric, MODEL)
            if method != MODEL and model and ends:
                value = row.value - model.value
                apart.append(Row(row.split, against(group), method, metric, value, None, row.count,
                                 *ends))  # fmt: skip
        return [*(self._with_ends(row) if row.group == group else row for row in rows), *apart]

    def _with_ends(self, row: Row) -> Row:
        low, high = self.interval(row.method, row.metric) or (None, None)
        return dataclasses.replace(row, low=low, high=high)


class Drawn(NamedTuple):
    """What intervals are drawn from: so many users, scenes, ..., of which `of` is the name."""

    number: int
    of: str

    def __str__(self) -> str:
        return f"{self.number} {self.of}"


def too_narrow(blocks: int) -> float:
    """How many times as wide the intervals of so few blocks should be, were these independent.

    What is drawn from n blocks has (n - 1) / n of their variance, and ends of a normal distribution
    where Student's t of n - 1 degrees of freedom has them further out (Hesterberg 2015, "What
    teachers should know about the bootstrap"): 1.58 of 5 blocks, 1.10 of 20.
    """
    above = (1 + LEVEL) / 2
    ends = special.stdtrit(blocks - 1, above) / special.ndtri(above)
    return float(ends * math.sqrt(blocks / (blocks - 1)))


def few(drawn: Drawn) -> tuple[str, ...]:
    """A line on intervals of so few blocks, if that matters."""
    if drawn.number < LEAST or (times := too_narrow(drawn.number)) < WORTH_SAYING:
        return ()
    return (f"{drawn} are few: what is drawn from them should be {times:.2f} times as wide",)


def against(group: str) -> str:
    """The group of baselines minus the model in a group."""
    return AGAINST_MODEL if group == ALL else f"{AGAINST_MODEL}/{group}"


def _drawn(
    blocks: Sequence[States], values: Values, chosen: np.ndarray
) -> Mapping[str, np.ndarray]:
    """{metric: (DRAWS,)} of the blocks chosen in each draw."""
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *blocks)
    each = [
        values(metrics.pool(jax.tree.map(lambda leaf, own=own: leaf[own], stacked)))
        for own in chosen
    ]
    return {name: np.array([one[name] for one in each]) for name in each[0]}


def verdict(rows: Sequence[Row], higher: Mapping[str, bool], group: str = ALL) -> tuple[str, ...]:
    """A line per metric: how the model stands against the best baseline there, and how surely.

    rows: of one split, as `Resampled.rows` leaves them. higher: metrics to judge by -> whether more
    is better. Lines of metrics in which a baseline is ahead come first.
    """
    lines = [_line(rows, metric, sign, group) for metric, sign in higher.items()]
    known = [line for line in lines if line]
    return tuple(text for _, text in sorted(known, key=lambda line: line[0]))


def _line(rows: Sequence[Row], metric: str, higher: bool, group: str) -> tuple[bool, str] | None:
    """(whether the model is ahead, what to say); None where one of the two has no number."""
    found = {
        row.method: row
        for row in rows
        if (row.group, row.metric) == (group, metric) and math.isfinite(row.value)
    }
    model = found.pop(MODEL, None)
    if model is None or not found:
        return None
    sign = 1 if higher else -1
    best = max(found.values(), key=lambda row: sign * row.value)
    ahead = sign * model.value > sign * best.value
    first, second = (model, best) if ahead else (best, model)
    where = "" if group == ALL else f"{group.rsplit('/', 1)[-1]}, "
    said = f"{where}{metric}: {first.method} {first.value:.4g}, {second.method} {second.value:.4g}"
    return ahead, f"{said}; {_surely(rows, best, ahead, sign)}"


def _surely(rows: Sequence[Row], best: Row, ahead: bool, sign: int) -> str:
    winner = "the model beats every baseline" if ahead else f"{best.method} beats the model"
    own = (against(best.group), best.method, best.metric)
    row = next((row for row in rows if (row.group, row.method, row.metric) == own), None)
    if row is None or row.low is None or row.high is None:
        return f"{winner}, no interval"
    ends = sorted(sign * (-1 if ahead else 1) * end for end in (row.low, row.high))
    spoken = f"by {ends[0]:.3g} to {ends[1]:.3g} ({LEVEL:.0%} interval)"
    return f"{winner} {spoken}" if ends[0] > 0 else f"not told apart: {spoken}"
