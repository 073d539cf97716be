"""Forecasts in Python are those of the door."""

import pytest
import xarray as xr

import tds_jax
from tds_jax.forecast import prediction
from tests.forecast.small import record, write_record


def new(**options):
    return record(count=30, first="2021-03-01", seed=5, **options)


def test_a_forecast_is_what_the_door_writes_bit_for_bit(soil, tmp_path, capsys):
    task, model, folder = soil
    known = type(task)(task.config, task.inputs())
    prediction.predict(known, model, write_record(tmp_path / "new.nc", gap=(10, 13), count=30,
        first="2021-03-01", seed=5), tmp_path / "out.nc")  # fmt: skip
    said = capsys.readouterr().err
    with xr.open_dataset(tmp_path / "out.nc", decode_timedelta=True) as file:
        written = file.load()
    data = new()
    data = xr.concat([data.isel(time=slice(10)), data.isel(time=slice(13, None))], "time")
    found = tds_jax.load(folder).predict(data)
    xr.testing.assert_identical(found, written)
    assert found.swvl1.dtype == written.swvl1.dtype == "float32"
    assert capsys.readouterr().err == said


def test_a_dataset_is_met_as_a_file_is(soil, capsys):
    """Other order of axes, other names, another unit: known from what the file of it would say."""
    run, data = tds_jax.load(soil[2]), new()
    expected = run.predict(data)
    other = data.rename(lat="latitude", lon="longitude").transpose("longitude", "time", "latitude")
    other["tp"] = (other.tp * 1000).assign_attrs(units="mm")
    found = run.predict(other).rename(latitude="lat", longitude="lon")
    xr.testing.assert_allclose(found, expected, rtol=1e-6)  # a product of f32 and 1e-3
    assert "tp is in 'mm', converted to 'm'" in capsys.readouterr().err


def test_what_does_not_fit_is_one_line(soil):
    run, data = tds_jax.load(soil[2]), new()
    for fields, text in (
        (data.isel(lat=slice(1, None)), "the dataset has 4 x 6 cells, .* bring it onto that grid"),
        (data.isel(time=slice(3)), "the dataset has no 4 days in a row; give a longer record"),
        (data[["swvl1"]], "the dataset: variable 'tp' is missing; found lat, lon, swvl1, time"),
        (data.swvl1, "fields are a DataArray; give an xarray Dataset with swvl1, tp over time"),
        (data.swvl1.values, "fields are a ndarray; give an xarray Dataset"),
        (data.drop_vars("time"), "the dataset: .*time"),
        (xr.Dataset(), "the dataset: variable 'swvl1' is missing; found none"),
    ):
        with pytest.raises(tds_jax.UserError, match=text):
            run.predict(fields)
    for lead in ("x", -1, float("nan"), float("inf")):
        with pytest.raises(tds_jax.UserError, match=f"lead={lead!r} is no number of days; use 0"):
            run.predict(data, lead=lead)
    with pytest.raises(tds_jax.UserError, match="stream is not offered for task 'forecast'"):
        run.stream()
