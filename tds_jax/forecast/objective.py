"""What training of a forecast minimises, and the errors that a line of its log tells."""

import dataclasses
import math
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from tds_jax.config import Config
from tds_jax.engine import metrics
from tds_jax.engine.step import Batch, Objective
from tds_jax.forecast.ensemble import fair_crps
from tds_jax.forecast.model import Forecaster
from tds_jax.own import compared

ALL_TARGETS = "nrmse"  # what a line says of all targets together


def objective(
    config: Config, model: Forecaster, batch: Batch, train: bool
) -> tuple[Objective, dict[str, Any]]:
    """Σ over known cells and leads of mse_weight·e² + mae_weight·|e| + crps_weight·CRPS, e in
    normalised units, of the mean of an ensemble if there is one, and the states of a log line.

    With loss.area a cell weighs as much as its area, else 1, times what loss.target_weights
    gives its target.
    """
    loss = config.loss
    members = model.members(batch, train, loss.members)
    prediction = members.mean(axis=1)
    weight = batch["weight"] * model.area_of(batch) if loss.area else batch["weight"]
    if loss.target_weights:
        each = np.repeat(_shares(config), model.around.leads)
        weight = weight * each[None, :, None, None]
    scale = model.target_scale(batch)
    error = (prediction - batch["target"]) / scale
    cost = loss.mse_weight * error**2 + loss.mae_weight * jnp.abs(error)
    if loss.crps_weight:
        crps = fair_crps(members / scale[:, None], batch["target"] / scale)
        cost += loss.crps_weight * crps
    if loss.own:
        scaled = prediction / scale, batch["target"] / scale
        cost += compared("loss.own", loss.own, *scaled, error.shape)
    total = jnp.sum(weight * cost, dtype=jnp.float32)
    states = _errors(config, model, prediction, error, batch)
    return Objective(total, jnp.sum(weight, dtype=jnp.float32)), states


def _shares(config: Config) -> np.ndarray:
    """(K,) f32: what each target counts."""
    weights = config.loss.target_weights or (1.0,) * len(config.data.targets)
    return np.asarray(weights, np.float32)


def _errors(
    config: Config, model: Forecaster, prediction: jax.Array, scaled: jax.Array, batch: Batch
) -> dict[str, Any]:
    """States of the headline, of each further target, and of all together."""
    leads, names = model.around.leads, config.data.targets
    found: dict[str, Any] = {}
    for k, (channel, name) in enumerate(zip(model.around.targets, names, strict=True)):
        own = slice(k * leads, (k + 1) * leads)
        last = batch["fields"][:, -1:, ..., channel]
        known = (batch["present"][:, -1:, ..., channel] > 0).astype(jnp.float32)
        maps = prediction[:, own], batch["target"][:, own], batch["weight"][:, own]
        found[f"errors{k or ''}"] = Errors.of(*maps, last, known, name if k else "")
    if len(names) > 1:
        shares = tuple(_shares(config).tolist())
        found[ALL_TARGETS] = AllTargets.of(scaled, batch["weight"], shares)
    return found


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Errors(metrics.Additive):
    """Sums of a log line, in the data's unit: of the forecast, and where the last day is known of
    it and of persistence, to be compared. target: a further one, '' for the headline."""

    weight: Any
    squared: Any
    absolute: Any
    shared: Any
    persistence: Any
    target: str = dataclasses.field(default="", metadata={"static": True})

    @classmethod
    def of(
        cls,
        prediction: jax.Array,
        target: jax.Array,
        weight: jax.Array,
        last: jax.Array,
        known: jax.Array,
        name: str = "",
    ) -> Self:
        """Of (B, L, H, W) forecasts; last, known (B, 1, H, W): the last day, and whether it is."""

        def total(values: jax.Array) -> jax.Array:
            return jnp.sum(values, dtype=jnp.float32)

        squared = weight * (prediction - target) ** 2
        absolute = weight * jnp.abs(prediction - target)
        behind = weight * known * (last - target) ** 2
        return cls(
            total(weight),
            total(squared),
            total(absolute),
            total(known * squared),
            total(behind),
            name,
        )

    def compute(self, name: str) -> dict[str, float]:
        """rmse, mae, and skill: 1 - MSE / MSE of persistence; of a further target 'rmse/NAME' …"""
        del name
        values = {
            "rmse": math.sqrt(metrics.divide(self.squared, self.weight)),
            "mae": metrics.divide(self.absolute, self.weight),
            "skill": 1 - metrics.divide(self.shared, self.persistence),
        }
        of = f"/{self.target}" if self.target else ""
        return {f"{key}{of}": value for key, value in values.items()}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AllTargets(metrics.Additive):
    """Σ weight and Σ weight·error² of each of K targets, (K,), in units of its spread.

    shares: (K,) what each counts.
    """

    weight: Any
    squared: Any
    shares: tuple[float, ...] = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(cls, error: jax.Array, weight: jax.Array, shares: tuple[float, ...]) -> Self:
        """Of normalised errors (B, K L, H, W)."""

        def total(values: jax.Array) -> jax.Array:
            return jnp.sum(values.reshape(len(values), len(shares), -1), (0, 2), jnp.float32)

        return cls(total(weight), total(weight * error**2), shares)

    def compute(self, name: str) -> dict[str, float]:
        """{name: root of the weighted mean over targets of their mean square}."""
        each = [metrics.divide(*one) for one in zip(self.squared, self.weight, strict=True)]
        return {name: math.sqrt(float(np.average(each, weights=self.shares)))}
