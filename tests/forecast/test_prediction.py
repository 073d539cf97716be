"""Predictions are CF files that tell what they are of; exported files compute the same."""

import functools

import numpy as np
import pytest
import xarray as xr
from flax import nnx

from tds_jax.engine import step
from tds_jax.errors import UserError
from tds_jax.forecast import export, prediction
from tds_jax.forecast.days import year_fraction
from tds_jax.interchange import artefact
from tests.forecast.small import LAT, LON, SEA, record, small_task, write_record


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(task, model, input file with a gap, folder)."""
    folder = tmp_path_factory.mktemp("prediction")
    write_record(folder / "train.nc")
    task = small_task(folder / "train.nc", folder)
    graphdef, params, rest = step.split(task.init(nnx.Rngs(0)))
    rest = step.replace_leaves(rest, task.fit_statistics())
    model = nnx.merge(graphdef, params, rest)
    source = write_record(folder / "new.nc", gap=(10, 13), count=30, first="2021-03-01", seed=5)
    return task, model, source, folder


MADE = {"run": "a", "step": 7, "version": "tds_jax 0"}


@pytest.fixture(scope="module")
def written(made):
    task, model, source, folder = made
    known = type(task)(task.config, task.inputs())  # as the door does: without the training data
    out = folder / "out.nc"
    assert prediction.predict(known, model, source, out, made=MADE) == [out]
    assert "fields" not in vars(known)
    with xr.open_dataset(folder / "out.nc", decode_timedelta=True) as data:
        return data.load()


def test_there_is_a_forecast_after_every_unbroken_stretch_of_input_days(written):
    days = np.datetime64("2021-03-01") + np.arange(30)
    ends = np.concatenate([days[3:10], days[16:]])  # 4 input days; 10, 11, 12 are missing
    np.testing.assert_array_equal(written.time.values.astype("datetime64[D]"), ends)
    lead = written.prediction_timedelta.values / np.timedelta64(1, "D")
    assert lead.tolist() == [1, 2, 3]
    valid = written.valid_time.values.astype("datetime64[D]")
    np.testing.assert_array_equal(valid, ends[:, None] + np.arange(1, 4))


def test_the_file_says_what_it_is_of_as_cf_wants_it(written):
    assert written.swvl1.dims == ("time", "prediction_timedelta", "lat", "lon")
    np.testing.assert_array_equal(written.lat, LAT)  # north first, as in the input
    np.testing.assert_array_equal(written.lon, LON)
    assert written.swvl1.attrs["units"] == "m**3 m**-3"
    names = {n: written[n].attrs["standard_name"] for n in ("time", "prediction_timedelta", "lat")}
    assert names == {
        "time": "forecast_reference_time",
        "prediction_timedelta": "forecast_period",
        "lat": "latitude",
    }
    assert written.attrs["Conventions"].startswith("CF-")
    assert MADE.items() <= written.attrs.items()
    assert "valid_time" in written.coords
    assert np.isnan(written.swvl1.encoding["_FillValue"])


def test_an_output_that_ends_so_is_a_zarr_store_with_the_same_content(made, written):
    task, model, source, folder = made
    known = type(task)(task.config, task.inputs())
    run = functools.partial(prediction.predict, known, model, source, made=MADE)
    run(folder / "out.zarr")
    with pytest.raises(UserError, match=r"out\.zarr is there already; .*with --overwrite$"):
        run(folder / "out.zarr")
    (folder / "out.zarr" / "old").write_text("")
    run(folder / "out.zarr", overwrite=True)  # a store that is there is replaced as a whole
    assert not (folder / "out.zarr" / "old").exists()
    with xr.open_zarr(folder / "out.zarr", decode_timedelta=True) as found:
        xr.testing.assert_identical(found.load(), written)
    (folder / "mine").mkdir(exist_ok=True)
    (folder / "mine" / "a.txt").write_text("")
    (folder / "mine").rename(folder / "mine.zarr")
    with pytest.raises(UserError, match=r"mine\.zarr is a folder"):
        run(folder / "mine.zarr", overwrite=True)
    assert not list(folder.glob("*.tmp"))


def test_the_sea_is_nan_and_the_land_is_the_models_forecast(made, written):
    model = made[1]
    assert np.isnan(written.swvl1.values[..., SEA]).all()
    assert np.isfinite(written.swvl1.values[..., ~SEA]).all()
    data = record(count=30, first="2021-03-01", seed=5).isel(time=slice(17, 21))
    fields = np.stack([data.swvl1.values, data.tp.values], axis=-1)[None]
    dates = np.datetime64("2021-03-18") + np.arange(7)
    batch = {
        "fields": np.nan_to_num(fields),
        "present": np.isfinite(fields).astype(np.uint8),
        "phase": year_fraction(dates)[None].astype("f4"),
        "origin": np.zeros((1, 2), np.int32),
    }
    expected = np.asarray(model(batch, False))[0]
    found = written.swvl1.sel(time="2021-03-21").values
    # The same operations, jitted or not: rounding of numbers near 0.3.
    np.testing.assert_allclose(found[..., ~SEA], expected[..., ~SEA], atol=1e-5)


def test_a_cell_that_training_never_saw_has_no_forecast(made, capsys):
    """A run of before cells were recorded tells it by a usual value of 0 all year, as it is where
    all values were 0 too: those have a forecast where the input is 0."""
    task, model, _, folder = made
    inputs = task.inputs()
    of_before = type(task)(task.config, {n: v for n, v in inputs.items() if n != "seen"})
    data = record(count=12, first="2021-03-01", seed=5)
    data.swvl1[:, 0, 0] = 0.3  # sea in training
    data.swvl1[:, 0, 1] = 0.0
    data.to_netcdf(folder / "more.nc", engine="scipy")
    for one, known in ((task, False), (of_before, True)):
        prediction.predict(one, model, folder / "more.nc", folder / "more_out.nc", overwrite=True)
        with xr.open_dataset(folder / "more_out.nc") as found:
            values = found.swvl1.values
        assert np.isnan(values[..., 0, 0]).all()
        assert np.isfinite(values[..., 0, 1]).all() == known
        assert np.isfinite(values[..., ~SEA]).all()
        said = "2 cells have data that training never saw" in capsys.readouterr().err
        assert said != known


def test_cells_seen_are_kept_whatever_the_normalisation(made, tmp_path):
    """With one mean for all cells nothing in the model tells where it was trained."""
    source = made[3] / "train.nc"
    task = small_task(source, tmp_path, model__normalize="scalar", model__prior="last")
    known = type(task)(task.config, task.inputs())
    np.testing.assert_array_equal(known.seen, ~SEA[None])
    assert "fields" not in vars(known)
    graphdef, params, rest = step.split(known.init(nnx.Rngs(0)))
    model = nnx.merge(graphdef, params, step.replace_leaves(rest, task.fit_statistics()))
    data = record(count=4, first="2021-03-01", seed=5).fillna(0.3)
    data.to_netcdf(tmp_path / "all.nc", engine="scipy")
    prediction.predict(known, model, tmp_path / "all.nc", tmp_path / "out.nc")
    with xr.open_dataset(tmp_path / "out.nc") as found:
        np.testing.assert_array_equal(np.isfinite(found.swvl1.values[0, 0]), ~SEA)


def _in_units(data, unit, scale):
    changed = data.assign(swvl1=data.swvl1 * np.float32(scale))
    changed.swvl1.attrs["units"] = unit
    return changed


def test_other_units_of_the_input_are_converted_or_refused(made, written, capsys):
    task, model, _, folder = made
    known = type(task)(task.config, task.inputs())
    data = record(count=30, first="2021-03-01", seed=5).isel(time=[*range(10), *range(13, 30)])
    for unit, scale, told in (("percent", 100, True), ("m3 m-3", 1, False)):
        path = folder / f"in_{unit.split()[0]}.nc"
        _in_units(data, unit, scale).to_netcdf(path, engine="scipy")
        prediction.predict(known, model, path, folder / "again.nc", overwrite=True)
        with xr.open_dataset(folder / "again.nc") as found:
            # The input times 100 and back: two roundings of f32 numbers near 0.3.
            np.testing.assert_allclose(found.swvl1.values, written.swvl1.values, atol=1e-5)
            assert found.swvl1.attrs["units"] == "m**3 m**-3"
        assert ("converted to 'm**3 m**-3'" in capsys.readouterr().err) == told
    _in_units(data, "K", 1).to_netcdf(folder / "kelvin.nc", engine="scipy")
    with pytest.raises(UserError, match=r"swvl1 is in 'K', the model was trained on 'm\*\*3 m"):
        prediction.predict(known, model, folder / "kelvin.nc", folder / "no.nc")


def test_what_does_not_fit_is_one_line(made):
    task, model, source, folder = made
    data = record(count=10)
    data.isel(lat=slice(None, None, -1)).to_netcdf(folder / "south.nc", engine="scipy")
    with pytest.raises(
        UserError, match=r"5 x 6 cells, lat 56\.\.60.*trained on 5 x 6, lat 60\.\.56"
    ):
        prediction.predict(task, model, folder / "south.nc", folder / "no.nc")
    data.isel(time=[0, 1, 2, 5, 6]).to_netcdf(folder / "short.nc", engine="scipy")
    with pytest.raises(UserError, match=r"has no 4 days in a row; give a longer record"):
        prediction.predict(task, model, folder / "short.nc", folder / "no.nc")
    with pytest.raises(UserError, match="is a folder; name a file"):
        prediction.predict(task, model, source, folder)
    with pytest.raises(UserError, match="is the input itself"):
        prediction.predict(task, model, source, source)
    with pytest.raises(UserError, match="its folder cannot be made"):
        prediction.predict(task, model, source, source / "out.nc")
    with pytest.raises(UserError, match="no such file, folder or pattern"):
        prediction.predict(task, model, folder / "none.nc", folder / "no.nc")
    assert not (folder / "no.nc").exists()


def test_an_exported_file_gives_the_models_forecast_with_holes(made):
    task, model, _, folder = made
    words = export.write(task, model, folder / "model.npz")
    assert "offline for cpu, cuda, tpu" in words
    file = artefact.read(folder / "model.npz")
    assert (file.about["target"], file.about["lead_days"]) == ("swvl1", 3)
    data = record(count=4, first="2021-03-01")
    fields = np.stack([data.swvl1.values, data.tp.values], axis=-1)[None]
    phase = year_fraction(np.datetime64("2021-03-01") + np.arange(7))[None].astype("f4")
    found = np.asarray(file.functions["offline"](np.repeat(fields, 3, 0), np.repeat(phase, 3, 0)))
    assert found.shape == (3, 3, 5, 6)
    batch = {
        "fields": np.nan_to_num(fields),
        "present": np.isfinite(fields).astype(np.uint8),
        "phase": phase,
        "origin": np.zeros((1, 2), np.int32),
    }
    np.testing.assert_allclose(found[:1], model(batch, False), atol=1e-5)


def test_a_folder_with_a_bad_file_is_forecast_without_it_and_says_so(made, capsys):
    task, model, _, folder = made
    months = folder / "months"
    months.mkdir()
    for i, first in enumerate(("2021-03-01", "2021-03-11", "2021-03-21")):
        write_record(months / f"{i}.nc", count=10, first=first, seed=i)
    (months / "1.nc").write_bytes(b"\0" * 4096)
    with pytest.raises(UserError, match=r"is written, but without what 1 of .*months/1\.nc"):
        prediction.predict(task, model, months, folder / "rest.nc")
    assert "1.nc: cannot be opened" in capsys.readouterr().err
    with xr.open_dataset(folder / "rest.nc") as found:
        days = found.time.values.astype("datetime64[D]")
    start = np.datetime64("2021-03-01")
    wanted = np.concatenate([start + np.arange(3, 10), start + np.arange(23, 30)])
    np.testing.assert_array_equal(days, wanted)
