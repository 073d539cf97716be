"""Every forecast preset, and every network in it, gives a program of known shapes."""

import json

import jax
import numpy as np
import pytest

from configs import (
    forecast_air_ensemble,
    forecast_air_hours,
    forecast_air_temperature,
    forecast_published,
    forecast_soil_air,
    forecast_soil_moisture,
    forecast_soil_weather,
)
from tds_jax import config as configuration
from tds_jax import tasks
from tds_jax.budget import settling
from tds_jax.engine import workdir
from tds_jax.engine.blueprint import Blueprint

PRESETS = {
    "air_ensemble": forecast_air_ensemble,
    "air_hours": forecast_air_hours,
    "air_temperature": forecast_air_temperature,
    "published": forecast_published,
    "soil_air": forecast_soil_air,
    "soil_moisture": forecast_soil_moisture,
    "soil_weather": forecast_soil_weather,
}
# Published parameters, with 4 channels and one repeated map.
NETWORKS = {
    "convlstm": 11_601,
    "cnn3d_lstm": 114_833,
    "cnn3d_lstm_lite": 8_777,
    "cnn3d_lstm_micro": 2_617,
}


def shapes(values, variables):
    """(task, shapes of its training state) on a grid of 8 x 9 cells; needs no data."""
    config = configuration.resolve(values.to_dict(), tasks.groups("forecast"))
    grid = {"height": 8, "width": 9, "variables": variables, "grid": "lat 7..0, lon 0..8"}
    task = tasks.get(config, grid | {"land": 0})
    return task, Blueprint(task, config).shapes


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_gives_a_training_state_without_data(name):
    values = PRESETS[name].get_config()
    values.data.crop = (0, 0)  # of the preset's own grid, as is:
    values.model.local_wide = ()
    task, state = shapes(values, list(values.data.variables))
    assert all(leaf.size for leaf in jax.tree.leaves(state.params))
    spec = task.batch_spec(task.config.optim.micro_batch)
    data = task.config.data
    assert spec["target"].shape[1:] == (len(data.targets) * data.leads, 8, 9)
    assert "fields" not in vars(task)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_published_preset_has_the_published_parameters(name):
    values = forecast_published.get_config()
    values.model.name = name
    _, state = shapes(values, list(values.data.variables))
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(state.params))
    assert count == NETWORKS[name]


@pytest.mark.parametrize(("name", "days", "pixels"), [("convlstm", 5, 0), ("cnn3d_lstm", 0, 5)])
def test_an_older_runs_settings_keep_their_meaning_under_the_names_of_now(
    name, days, pixels, tmp_path
):
    values = forecast_soil_moisture.get_config().to_dict()
    values["model"]["name"] = name
    asked = json.loads(json.dumps(values))
    del asked["memory"]["day_chunk"], asked["memory"]["pixel_chunk"]
    asked["memory"]["decoder_chunk"] = 0  # counted days or pixels then
    plan = {"device": settling._device(), "changes": {"memory.decoder_chunk": 5}, "config": asked}
    (tmp_path / settling.PLAN).write_text(json.dumps(plan))
    (tmp_path / workdir.CONFIG).write_text(json.dumps(asked))
    groups = tasks.groups("forecast")
    config = configuration.resolve(workdir.read_config(tmp_path), groups)
    assert config == configuration.resolve(values, groups)
    settled, made = settling.settle(None, config, tmp_path)
    assert (settled.memory.day_chunk, settled.memory.pixel_chunk, made) == (days, pixels, None)
