"""A forecast model on fields in memory."""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from flax import nnx

from tds_jax.data.grid_record import MEMORY
from tds_jax.data.gridded_write import CONVENTIONS
from tds_jax.errors import UserError
from tds_jax.forecast import prediction
from tds_jax.forecast.prediction import LEAD
from tds_jax.forecast.task import ForecastTask


class Answer:
    """Forecasts for a dataset, the numbers that `predict` writes for the same record."""

    def __init__(self, task: ForecastTask, model: nnx.Module, workdir: Path | None = None) -> None:
        self._task, self._model = task, model
        self._run = prediction.Runner(task, model)

    def __call__(self, fields: xr.Dataset | xr.DataArray, lead: float = 0) -> xr.Dataset:
        """The run's variables over time, latitude and longitude on its grid -> every target over
        (time, prediction_timedelta, latitude, longitude), of an ensemble over
        (time, realization, …).

        lead: days to forecast, also 0.5 where steps are finer; on those beyond the run's own it
        reads its own forecasts, so its targets must be all its variables. 0 = as many as it was
        trained for.

        Names, units, calendars and steps are met as in files, see the forecast README; a DataArray
        is the run's only variable. There is a forecast after every day that ends an unbroken
        stretch of input days: `time` is that day, `valid_time` what it is of. NaN where there is no
        land, and where training saw nothing. UserError where the fields do not fit the run.
        """
        leads = prediction.leads_of(self._task, lead, "lead")
        opened = self._task.open(self._dataset(fields))
        last = prediction.require_forecasts(self._task, opened, MEMORY)
        axes, described, valid, about = prediction.layout(self._task, opened, last, leads)
        blocks = prediction.forecasts(self._task, self._model, self._run, opened, last, leads)
        found = prediction.by_target(opened, np.concatenate([*blocks]))
        maps = {name: (tuple(axes), found[name], own) for name, own in described.items()}
        beside: dict[str, Any] = {name: (name, *one) for name, one in axes.items()}
        beside["valid_time"] = (("time", LEAD), *valid)
        return xr.decode_cf(xr.Dataset(maps, beside, CONVENTIONS | about), decode_timedelta=True)

    def _dataset(self, fields: xr.Dataset | xr.DataArray) -> xr.Dataset:
        if isinstance(fields, xr.Dataset):
            return fields
        names = self._task.recorded.variables
        if not isinstance(fields, xr.DataArray) or len(names) > 1:
            raise UserError(
                f"fields are a {type(fields).__name__}; give an xarray Dataset with "
                f"{', '.join(names)} over time, latitude and longitude"
            )
        return fields.to_dataset(name=names[0])
