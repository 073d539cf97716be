"""Cells whose target begins after the train split, and cells that are none of a run's grid."""

from types import SimpleNamespace

import numpy as np
import pytest

from tds_jax.errors import UserError
from tds_jax.forecast.evaluation import windows_elsewhere
from tds_jax.forecast.prediction import forecasts
from tds_jax.forecast.task import ForecastTask
from tests.forecast.small import record, small_config, small_task

LATE, SNOW = (3, 3), (2, 4)  # places: without a value, and without snow, on every train day


@pytest.fixture(scope="module", params=[1, 2])
def task(request, tmp_path_factory):
    """Of 400 days, 240 of them train; on cells as they are, or on means of 2 x 2."""
    base, data = tmp_path_factory.mktemp("late"), record()
    data.swvl1[:300, *LATE] = np.nan
    data.swvl1[:240, *SNOW] = 0
    data.to_netcdf(base / "a.nc", engine="h5netcdf")
    if request.param == 2:  # the whole block of the late cell is late
        data.swvl1[:300, 2:4, 2:4] = np.nan
        data.to_netcdf(base / "a.nc", engine="h5netcdf")
    return small_task(base / "a.nc", base, data__downsample=request.param)


def place(task, cell):
    factor = task.config.data.downsample
    return tuple(n // factor for n in cell)


def test_a_cell_that_no_train_day_has_counts_in_no_split(task):
    late, snow = (..., *place(task, LATE)), (..., *place(task, SNOW))
    for split in ("train", "val", "test"):
        source = task.source(split)
        last = source.example(len(source) - 1, None)
        assert not last["weight"][late].any()
        assert last["present"][..., 0][late].all() == (split != "train")  # as input it is there
        assert last["weight"][snow].all()
    (line,) = [line for line in task.warnings() if "get no forecast" in line]
    assert line.startswith("1 cells have swvl1")


def test_a_run_forecasts_where_it_was_trained_snow_or_none(task):
    known = ForecastTask(task.config, task.inputs())
    days = np.array([399])
    shape = (task.config.eval.batch_size, 1, 3, *task.seen.shape[1:])
    run = SimpleNamespace(first=lambda batch: np.zeros(shape, np.float32))
    (found,) = forecasts(known, None, run, task.fields, days, 3)
    assert np.isnan(found[..., *place(task, LATE)]).all()
    assert np.isfinite(found[..., *place(task, SNOW)]).all()


@pytest.mark.parametrize("change", ["fewer", "upside_down", "elsewhere"])
def test_a_run_is_judged_on_its_own_grid_alone(tmp_path, change):
    """Fields of the same size whose rows are others would be answered without a word."""
    data = record()
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    inputs = small_task(tmp_path / "a.nc", tmp_path).inputs()
    other = {
        "fewer": data.isel(lon=slice(1, None)),
        "upside_down": data.isel(lat=slice(None, None, -1)),
        "elsewhere": data.assign_coords(lat=data.lat - 10),
    }[change]
    other.to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    run = ForecastTask(small_config(tmp_path / "b.nc", tmp_path), inputs)
    with pytest.raises(UserError, match=r"data\.path=.* cells, .*; the model was trained on 5 x 6"):
        run.source("test")
    assert len(ForecastTask(small_config(tmp_path / "a.nc", tmp_path), inputs).source("test"))


def test_nor_does_it_count_in_another_period(task):
    learnt = SimpleNamespace(days=("2019-01-01", "2019-10-01"))
    source = windows_elsewhere(task, learnt)
    example = source.example(len(source) - 1, None)
    assert not example["weight"][..., *place(task, LATE)].any()
    assert example["weight"][..., *place(task, SNOW)].all()
