"""What a forecast's settings ask of each other, and of the grid that its data lie on."""

from typing import cast

import numpy as np

from tds_jax.config import Config
from tds_jax.data.longitudes import is_global
from tds_jax.fields import require
from tds_jax.forecast.config import ForecastEvalConfig, ForecastInputs
from tds_jax.forecast.gridded_days import Fields
from tds_jax.forecast.prior import BLOCK
from tds_jax.forecast.recorded import grid_words
from tds_jax.forecast.steps import DAY_HOURS


def goes_around(recorded: ForecastInputs) -> bool:
    """Whether the recorded columns go around the globe."""
    first, last = recorded.grid.rpartition("lon ")[2].split("..")
    return is_global(np.linspace(float(first), float(last), recorded.width))


def require_fit(config: Config, recorded: ForecastInputs) -> None:
    """UserError for settings that do not go together, or not with the recorded grid."""
    _require_whole(config, recorded)
    _require_reach(config, recorded)
    _require_of_targets(config)
    model = config.model
    require(
        not (model.local_place and model.periodic),
        "model.local_place=True counts columns from west to east, but with model.periodic=True "
        "there is no first; use one of them",
    )
    require(
        "time_of_day" not in model.extra_inputs or not config.data.step.is_day,
        "model.extra_inputs: time_of_day is the same on all days; leave it out, or use "
        f"data.step_hours below {DAY_HOURS}",
    )
    drawn = cast(ForecastEvalConfig, config.eval).dropout
    require(
        not drawn or (model.dropout > 0 and model.name != "convlstm"),
        f"eval.dropout=True draws from dropout, but model.name={model.name} with "
        f"model.dropout={model.dropout} has none; set one that it has, or use model.noise",
    )


def require_grid(recorded: ForecastInputs, fields: Fields, name: str) -> None:
    """UserError, beginning with the name of the fields, unless they are on the run's grid."""
    found = len(fields.lat), len(fields.lon), grid_words(fields.lat, fields.lon)
    require(
        found == (recorded.height, recorded.width, recorded.grid),
        f"{name} has {found[0]} x {found[1]} cells, {found[2]}; the model was trained on "
        f"{recorded.height} x {recorded.width}, {recorded.grid}; bring it onto that grid",
    )


def _require_of_targets(config: Config) -> None:
    """Of what is said target by target."""
    targets, floor = config.data.targets, config.model.floor
    weights = config.loss.target_weights
    named = ", ".join(targets)
    require(
        len(floor) <= len(targets),
        f"model.floor={floor} must be one number for each target ({named}) or for the first ones, "
        "such as (0.0,), or () for none",
    )
    require(
        len(weights) in (0, len(targets)),
        f"loss.target_weights={weights} are {len(weights)} numbers for {len(targets)} targets "
        f"({named}); give one for each, or () for alike",
    )
    require(
        len(targets) == 1 or config.model.head != "repeat",
        f"model.head='repeat' is one map for all that is forecast, but there are {named}; use "
        "'leads', or leave data.more_targets empty",
    )


def _require_whole(config: Config, recorded: ForecastInputs) -> None:
    """Of what counts cells, or goes around the globe: maps that are not cut."""
    crop = config.data.crop
    require(
        not (config.model.land_only and any(crop)),
        f"data.crop={crop} moves the cells that model.land_only=True counts; use (0, 0)",
    )
    require(
        not config.model.periodic or (goes_around(recorded) and not any(crop)),
        f"model.periodic=True needs whole maps around the globe, but the fields have "
        f"{recorded.width} columns, {recorded.grid}, and data.crop is {crop}",
    )


def _require_reach(config: Config, recorded: ForecastInputs) -> None:
    """Of the linear prior: neither cells beyond the grid nor days beyond the inputs."""
    model, data = config.model, config.data
    cells = recorded.height, recorded.width
    far = [BLOCK * (size // 2) for size in model.local_wide]
    require(
        all(reach < size for reach, size in zip(far, cells, strict=False)),
        f"model.local_wide={model.local_wide} reaches {far} cells, beyond any of a grid "
        f"of {cells[0]} x {cells[1]}; use fewer blocks",
    )
    for name, longest in (
        ("local_days", model.local_days),
        ("local_means", max(model.local_means, default=0)),
    ):
        value = getattr(model, name)
        said = value if isinstance(value, tuple) else f"{value:g}"
        require(
            longest <= data.input_days,
            f"model.{name}={said} is more than data.input_days={data.input_days:g}; lower it",
        )
