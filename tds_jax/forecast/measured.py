"""What a `Forecaster` keeps of the train days and of the grid."""

from typing import Any

import numpy as np

from tds_jax.config import Config
from tds_jax.data.crew import ALONE, Crew
from tds_jax.forecast import prior, statics
from tds_jax.forecast.climatology import (
    Climatology,
    fit_climatology,
    fit_damping,
)
from tds_jax.forecast.gridded_days import Fields, lands
from tds_jax.forecast.metrics import row_area
from tds_jax.forecast.model import Surroundings

LEADS_FIRST = ("damping", "spread")  # the others have their leads last


def measured(
    fields: Fields, days: range, config: Config, around: Surroundings, crew: Crew = ALONE
) -> dict[str, Any]:
    """Leaves of a `Forecaster`, by name; one pass over `days` for each that is fitted, of targets
    one for each, of which a crew makes a part each."""
    model = config.model
    found: dict[str, Any] = {"area": row_area(fields.lat)}
    if model.normalize != "none":
        usual = fit_climatology(fields, days, model.normalize, model.harmonics, crew, around.daily)
        found |= {"centre": usual.coefficients, "scale": usual.scale}
        each = [
            _prior(fields.aimed(name), days, usual, config, around, crew) for name in fields.targets
        ]
        found |= {
            name: np.concatenate([one[name] for one in each], 0 if name in LEADS_FIRST else -1)
            for name in each[0]
        }
    if around.static:
        found["static"] = statics.maps(fields, model.extra_inputs, config.data.static)
    if model.land_only:
        found["network"] = {"cells": np.flatnonzero(lands(fields).any(axis=0))}
    return found


def _prior(
    fields: Fields,
    days: range,
    usual: Climatology,
    config: Config,
    around: Surroundings,
    crew: Crew,
) -> dict[str, Any]:
    """Of the target looked at."""
    if around.prior not in ("damped", "linear"):
        return {}
    target = fields.variables.index(fields.target)
    damping = fit_damping(fields, days, usual.of([target]), around.leads, crew)
    found: dict[str, Any] = {"damping": damping}
    beside = fields, days, usual, damping
    inputs = around.linear
    judged: prior.Days = prior.no_weights
    if inputs:
        model = config.model
        fitted = prior.fit_linear(
            *beside, inputs, model.local_ridge, model.local_folds, around.periodic, crew
        )
        found |= fitted.weights
        judged = fitted.judged
    if around.noise:
        found["spread"] = prior.fit_spread(*beside, inputs, judged, around.periodic, crew)
    return found
