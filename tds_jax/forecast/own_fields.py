"""Fields that a source of one's own gives."""

import dataclasses

import xarray as xr

from tds_jax.config import Config
from tds_jax.fields import require
from tds_jax.own import made

SETTING = "data.source"


def own_fields(config: Config) -> xr.Dataset:
    """The dataset that data.source gives, whose values may be read when they are needed."""
    name = config.data.source
    found = made(SETTING, name, dataclasses.asdict(config.data) | {"seed": config.seed})
    require(
        isinstance(found, xr.Dataset),
        f"{SETTING}={name!r} gives a {type(found).__name__}; give an xarray.Dataset of "
        f"{', '.join(config.data.variables)} over time, latitude and longitude",
    )
    return found
