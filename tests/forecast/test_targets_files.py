"""Files and runs of several targets: predictions, exported models and trained folders."""

import json

import jax
import numpy as np
import pytest
import xarray as xr

import tds_jax
from configs import forecast_soil_moisture
from tds_jax.errors import UserError
from tds_jax.forecast import export, prediction
from tds_jax.forecast.arrays import Answer
from tds_jax.forecast.task import ForecastTask
from tds_jax.interchange import artefact
from tests.doors import door
from tests.forecast.several import (
    FITTED,
    HOLE,
    NAMES,
    alone,
    on_device,
    pair,
    ready,
    task_of,
)
from tests.forecast.small import SEA, SETTINGS, batch_of, small_task


@pytest.mark.parametrize("ending", ["nc", "zarr"])
def test_predictions_have_a_variable_for_each_target(path, tmp_path, ending):
    task = task_of(path, tmp_path)
    known = ForecastTask(task.config, task.inputs())  # as the door does: without training data
    np.testing.assert_array_equal(known.seen, [~SEA, ~HOLE])
    new = pair(count=30, first="2021-03-01", seed=5)
    new.to_netcdf(tmp_path / "new.nc", engine="scipy")
    model, out = ready(task, silent=True), tmp_path / f"out.{ending}"
    prediction.predict(known, model, tmp_path / "new.nc", out)
    kind = {"engine": "zarr", "consolidated": False} if ending == "zarr" else {}
    with xr.open_dataset(out, decode_timedelta=True, **kind) as data:
        found = data.load()
    assert set(found.data_vars) == set(NAMES)
    assert (found.swvl1.attrs["units"], found.t2m.attrs["units"]) == ("m**3 m**-3", "K")
    assert found.swvl1.attrs["long_name"] == "Soil water"
    assert "long_name" not in found.t2m.attrs
    assert found.attrs["title"] == "forecasts of swvl1, t2m"
    for name, sea in zip(NAMES, (SEA, HOLE), strict=True):
        single = alone(path, tmp_path, name)
        wanted = Answer(single, ready(single, silent=True))(new)[name]
        np.testing.assert_allclose(found[name].values, wanted.values, rtol=1e-5)
        assert np.isnan(found[name].values[..., sea]).all()
        assert np.isfinite(found[name].values[..., ~sea]).all()
    xr.testing.assert_equal(Answer(known, model)(new), found)


def test_a_run_that_forecasts_all_it_reads_goes_on_from_its_own_forecasts(path, tmp_path):
    """Each variable from its own, whatever the order: days 4 to 6 are the first after these."""
    task = task_of(path, tmp_path, data__target="t2m", data__more_targets=("swvl1",))
    answer = Answer(task, ready(task))
    before = pair(count=60).isel(time=slice(50, 60))
    longer = answer(before, lead=6).isel(time=-1)
    said = longer.isel(prediction_timedelta=slice(0, 3))
    after = before.isel(time=slice(-3, None)).copy(
        data={name: said[name].transpose(..., "lat", "lon").values for name in NAMES}
    )
    after["time"] = before.time[-3:].values + np.timedelta64(3, "D")
    again = answer(xr.concat([before, after], "time")).isel(time=-1)
    for name in NAMES:
        np.testing.assert_allclose(longer[name].values[3:], again[name].values, rtol=1e-5)
    more = small_task(path, tmp_path, data__variables=NAMES)
    with pytest.raises(UserError, match="would need those of t2m too"):
        Answer(more, ready(more))(before, lead=6)


def test_an_exported_file_names_its_targets_and_gives_all_their_maps(path, tmp_path):
    task = task_of(path, tmp_path, **FITTED)
    model = ready(task)
    export.write(task, model, tmp_path / "model.npz")
    file = artefact.read(tmp_path / "model.npz")
    assert (file.about["target"], file.about["targets"]) == ("swvl1", list(NAMES))
    batch = batch_of(task.source("test"), (0, 5))
    fields = np.where(batch["present"] > 0, batch["fields"], np.float32(np.nan))
    found = file.functions["offline"](fields, batch["phase"])
    np.testing.assert_allclose(found, model(on_device(batch), False), rtol=1e-5, atol=1e-6)


@pytest.fixture
def train(path, tmp_path):
    """Trains two targets in a folder, so many steps."""
    settings = SETTINGS | {"data.variables": NAMES, "data.more_targets": ("t2m",)}
    settings |= {"eval.metric": "nrmse", "eval.every": 2, "log.every": 1, "log.plots": False}
    settings |= {"optim.learning_rate": 0.3, "loss.target_weights": (1.0, 2.0)}
    settings |= {"data.cache_dir": str(tmp_path / "cache"), "eval.batch_size": 16}

    def trained(folder, steps, **more):
        values = settings | {"optim.steps": steps} | more
        return tds_jax.train(forecast_soil_moisture.get_config(), path, tmp_path / folder, **values)

    return trained


@pytest.mark.long  # the engine's runs go on so, whatever they are of
def test_a_run_of_several_targets_goes_on_as_an_undisturbed_one(train):
    train("run", 2)
    run, straight = train("run", 6), train("straight", 6)
    for one, other in zip(
        jax.tree.leaves(run.params), jax.tree.leaves(straight.params), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_run_of_several_targets_keeps_to_their_list_and_is_forecast_by_the_door(train, tmp_path):
    """The best checkpoint is that of all targets."""
    train("run", 6)
    with pytest.raises(UserError, match=r"was begun with another config \(data\.more_targets"):
        train("run", 6, **{"data.more_targets": (), "loss.target_weights": ()})
    run = tds_jax.load(tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    val = {line["step"]: line for line in lines if line["split"] == "val"}
    assert run.step == min(val, key=lambda step: val[step]["nrmse"])

    new = pair(count=30, first="2021-03-01", seed=5)
    new.to_netcdf(tmp_path / "new.nc", engine="scipy")
    out = tmp_path / "out.nc"
    places = f"--workdir={tmp_path / 'run'}", f"--input={tmp_path / 'new.nc'}", f"--output={out}"
    done = door("predict", *places, "--lead=5")
    assert done.returncode == 0, done.stderr
    with xr.open_dataset(out, decode_timedelta=True) as written:
        found = run.predict(new, lead=5)
        for name in NAMES:
            assert found[name].sizes["prediction_timedelta"] == 5
            xr.testing.assert_equal(found[name], written[name])
