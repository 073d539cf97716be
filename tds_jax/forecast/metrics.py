"""What a forecast is worth, lead by lead: states that merge over batches, divided once at the end.

Cells count by a weight (B, L, H, W): 0 where the truth is missing (sea, gaps). `area` is each
latitude row's share of the sphere, any unit; all values exist twice, with every cell alike
("rmse") and area-weighted ("rmse_area").
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from tds_jax.engine import metrics

AREA = "_area"


def row_area(latitude: np.ndarray) -> np.ndarray:
    """(H,) share of the sphere of a cell in each row of latitudes (H,) in degrees; mean 1.

    Edges lie midway between rows; the outer ones as far out as the inner neighbour's, at most at
    the poles (WeatherBench 2 puts them at the poles always, since its grids are global).
    """
    if len(latitude) == 1:
        return np.ones(1)
    middle = (latitude[1:] + latitude[:-1]) / 2
    first, last = 2 * latitude[0] - middle[0], 2 * latitude[-1] - middle[-1]
    edges = np.clip([first, *middle, last], -90, 90)
    area = np.abs(np.diff(np.sin(np.radians(edges))))
    return area / area.mean()


States = dict[str, Any]
"""'plain' and 'area': `metrics.Regression` (L,); 'acc': `Correlation` (L,); 'cells': `Cells`."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cells(metrics.Additive):
    """Σ weight, Σ weight·error and Σ weight·error² of every lead and cell, each (L, H, W)."""

    weight: Any
    error: Any
    squared_error: Any

    def rmse(self) -> np.ndarray:
        """(H, W) over all leads; NaN where nothing was counted."""
        weight, squared = self.weight.sum(axis=0), self.squared_error.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.sqrt(np.where(weight > 0, squared / weight, np.nan))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Correlation(metrics.Additive):
    """Σ of spatial correlations and how many there were, each (L,)."""

    sum: Any
    count: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scores(metrics.Additive):
    """Sums over cells by lead, (..., L): weight and weight·error², with every cell alike and by
    area; anomaly correlations and how many there were; and of methods that give more than one value
    weight·CRPS, else NaN. Enough for the intervals of these."""

    weight: Any
    squared: Any
    weight_area: Any
    squared_area: Any
    acc: Any
    acc_count: Any
    crps: Any

    def values(self) -> dict[str, float]:
        """rmse, rmse_area, acc and crps over all leads, and 'rmse/n' … of each lead n from 1."""
        # All leads stand after the last.
        sums = {name: np.append(each, each.sum()) for name, each in vars(self).items()}
        with np.errstate(invalid="ignore", divide="ignore"):
            found = {
                "rmse": np.sqrt(sums["squared"] / sums["weight"]),
                f"rmse{AREA}": np.sqrt(sums["squared_area"] / sums["weight_area"]),
                "acc": sums["acc"] / sums["acc_count"],
                "crps": sums["crps"] / sums["weight"],
            }
        names = [*(f"/{lead + 1}" for lead in range(len(self.weight))), ""]
        return {
            f"{metric}{name}": value
            for metric, values in found.items()
            for name, value in zip(names, values.tolist(), strict=True)
        }


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Ensemble(metrics.Additive):
    """Σ weight, weight·CRPS, weight·variance and weight·error² of the middle, (L,), and how often
    the truth lay above so many of M members, (L, M + 1); (L, 0) without members."""

    weight: Any
    crps: Any
    variance: Any
    squared: Any
    ranks: Any

    @classmethod
    def of(
        cls,
        crps: jax.Array,
        variance: jax.Array,
        error: jax.Array,
        weight: jax.Array,
        ranks: jax.Array,
    ) -> Self:
        """All but ranks are (B, L, H, W); error is of the middle."""

        def total(values: jax.Array) -> jax.Array:
            return jnp.sum(weight * values, axis=(0, 2, 3), dtype=jnp.float32)

        return cls(
            weight=total(jnp.ones_like(weight)),
            crps=total(crps),
            variance=total(variance),
            squared=total(error**2),
            ranks=ranks,
        )

    def values(self, lead: int | None = None) -> dict[str, float]:
        """crps, spread and spread_skill of a lead or of all.

        spread: root of the mean variance. spread_skill: it over the RMSE of the middle; 1 where
        both tell the same of how far the truth may be.
        """
        leads = slice(None) if lead is None else slice(lead, lead + 1)
        weight, crps, variance, squared = (
            float(each[leads].sum())
            for each in (self.weight, self.crps, self.variance, self.squared)
        )
        return {
            "crps": metrics.divide(crps, weight),
            "spread": math.sqrt(metrics.divide(variance, weight)),
            "spread_skill": math.sqrt(metrics.divide(variance, squared)),
        }


def add_to_blocks(blocks: dict[int, Scores], scores: Scores, starts: np.ndarray, days: int) -> None:
    """Adds (B, L) scores of forecasts, on the host, to those of their blocks.

    starts: (B,) indices of the windows' first days. Forecasts whose first days lie in the same
    `days` days are one block.
    """
    for block in np.unique(starts // days):
        mine = jax.tree.map(lambda leaf, own=starts // days == block: leaf[own].sum(axis=0), scores)
        blocks[int(block)] = blocks[int(block)].merge(mine) if block in blocks else mine


def compare(
    prediction: jax.Array,
    target: jax.Array,
    climatology: jax.Array,
    weight: jax.Array,
    area: jax.Array,
) -> States:
    """States of a batch. All but area (H,) are (B, L, H, W), in the data's unit.

    Anomalies of the correlation are from `climatology`; as WeatherBench 2 has it, it is taken over
    the (area-weighted) cells of one day, about 0, and averaged over days. A day without spread
    does not count.
    """
    spread = jnp.broadcast_to(area[None, None, :, None], weight.shape)
    error = (prediction - target).astype(jnp.float32)
    cells = Cells(
        jnp.sum(weight, axis=0, dtype=jnp.float32),
        jnp.sum(weight * error, axis=0, dtype=jnp.float32),
        jnp.sum(weight * error**2, axis=0, dtype=jnp.float32),
    )
    by_area = weight * spread
    each = scores(prediction, target, climatology, weight, area, None)
    return {
        "plain": _regression(prediction, target, weight),
        "area": _regression(prediction, target, by_area),
        "acc": Correlation(*(jnp.sum(a, axis=0) for a in (each.acc, each.acc_count))),
        "cells": cells,
    }


def _regression(prediction: jax.Array, target: jax.Array, weight: jax.Array) -> metrics.Regression:
    batch, leads = weight.shape[:2]
    rows = (batch * leads, -1)
    states = metrics.Regression.of(
        prediction.reshape(rows)[..., None], target.reshape(rows)[..., None], weight.reshape(rows)
    )
    return jax.tree.map(lambda leaf: leaf.reshape(batch, leads), states).pool()


def scores(
    prediction: jax.Array,
    target: jax.Array,
    climatology: jax.Array,
    weight: jax.Array,
    area: jax.Array,
    crps: jax.Array | None,
) -> Scores:
    """Of single forecasts, (B, L); arguments as of `compare`, and the CRPS of each cell or None."""

    def total(values: jax.Array) -> jax.Array:
        return jnp.sum(values, axis=(2, 3), dtype=jnp.float32)

    by_area = weight * jnp.broadcast_to(area[None, None, :, None], weight.shape)
    squared = (prediction - target) ** 2
    forecast, truth = prediction - climatology, target - climatology
    spreads = [total(by_area * anomaly**2) for anomaly in (forecast, truth)]
    known = (spreads[0] > 0) & (spreads[1] > 0)
    # A root of each: their product leaves f32 for J m-2 of a million cells, and for traces of gas.
    roots = [jax.lax.rsqrt(jnp.where(known, each, 1)) for each in spreads]
    acc = total(by_area * forecast * truth) * roots[0] * roots[1]
    return Scores(
        weight=total(weight),
        squared=total(weight * squared),
        weight_area=total(by_area),
        squared_area=total(by_area * squared),
        acc=jnp.where(known, acc, 0),
        acc_count=known.astype(jnp.float32),
        crps=total(weight * (jnp.nan if crps is None else crps)),
    )


def values(states: States, area: np.ndarray, lead: int | None = None) -> dict[str, float]:
    """rmse, mae, bias, ubrmse and r2, each also area-weighted, and acc; of one lead, or of all.

    All leads: root of the mean square over leads. ubrmse: the same after each cell's own bias at
    each lead is taken out, so that rmse² = mean square of those biases + ubrmse². r2: about the
    mean over all cells and days of a lead. states: on the host, in float64.
    """
    leads = slice(None) if lead is None else slice(lead, lead + 1)
    chosen = jax.tree.map(lambda leaf: leaf[leads], states)
    rows = np.ones_like(area)
    acc = float("nan")
    if chosen["acc"].count.sum():
        acc = float(chosen["acc"].sum.sum() / chosen["acc"].count.sum())
    return (
        _weighted(chosen["plain"], chosen["cells"], rows, "")
        | {"acc": acc}
        | _weighted(chosen["area"], chosen["cells"], area, AREA)
    )


def _weighted(
    pooled: metrics.Regression, cells: Cells, rows: np.ndarray, suffix: str
) -> dict[str, float]:
    weight = cells.weight * rows[:, None]
    total = weight.sum()
    count = np.where(cells.weight > 0, cells.weight, 1)
    mean = cells.error / count
    variance = np.maximum(cells.squared_error / count - mean**2, 0)
    found = {
        "rmse": math.sqrt(metrics.divide((weight * cells.squared_error / count).sum(), total)),
        "mae": metrics.divide(pooled.absolute_error.sum(), pooled.weight.sum()),
        "bias": metrics.divide((weight * mean).sum(), total),
        "ubrmse": math.sqrt(metrics.divide((weight * variance).sum(), total)),
        "r2": 1 - metrics.divide(pooled.squared_error.sum(), pooled.target_m2.sum()),
    }
    return {f"{name}{suffix}": value for name, value in found.items()}


def skill(found: Mapping[str, float], reference: Mapping[str, float], suffix: str = "") -> float:
    """1 - MSE / MSE of a reference forecast: 1 is perfect, 0 no better; NaN if that is perfect."""
    return 1 - metrics.divide(found[f"rmse{suffix}"] ** 2, reference[f"rmse{suffix}"] ** 2)
