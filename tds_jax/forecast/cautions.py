"""What a reader of a run's results should know of its data and settings."""

import numpy as np

from tds_jax.config import Config
from tds_jax.forecast.asked import goes_around
from tds_jax.forecast.climatology import lacks_season, season_gap
from tds_jax.forecast.config import ForecastInputs
from tds_jax.forecast.gridded_days import Fields, lands
from tds_jax.forecast.objective import ALL_TARGETS

ALONE = ("rmse", "mae", "skill")  # what `val` says of the headline alone


def cautions(
    config: Config, fields: Fields, recorded: ForecastInputs, days: range, seen: np.ndarray
) -> list[str]:
    """A line each. days: of the train split; seen (K, H, W) bool: where they have each target."""
    model = config.model
    norms = model.name.startswith("cnn3d_lstm") and model.norm == "batch"
    said = [*fields.unusable, *fields.notes]
    if goes_around(recorded) and not (model.periodic or any(config.data.crop)):
        said.append(
            "the columns go around the globe, but the network takes them for a strip; "
            "model.periodic=True lets weather pass its edges"
        )
    if model.normalize == "anomaly":
        said += _season(fields.days[days])
    said += _late(config.data.targets, lands(fields) & ~seen)
    if len(config.data.targets) > 1 and config.eval.every and config.eval.metric in ALONE:
        said.append(
            f"eval.metric={config.eval.metric} is of {config.data.target} alone, by "
            f"which the best checkpoint is chosen; {ALL_TARGETS} is of all targets"
        )
    return said + norms * config.optim.batch_norm_warning(" (model.norm=group is exact)")


def _season(dates: np.ndarray) -> list[str]:
    """What a climatology of these days is where they lack a season."""
    if not lacks_season(dates):
        return []
    return [
        f"no train day lies in {season_gap(dates):.0%} of the year: the climatology is a guess "
        "there, so the mean of each cell stands for it; give a whole year"
    ]


def _late(targets: tuple[str, ...], unseen: np.ndarray) -> list[str]:
    """unseen (K, H, W) bool: cells that have a target, and not on train days."""
    return [
        f"{count} cells have {name} on other days than the train split's alone: they "
        "count nowhere and get no forecast"
        for name, late in zip(targets, unseen, strict=True)
        if (count := int(late.sum()))
    ]
