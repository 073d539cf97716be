"""On a globe a forecast knows no edge: turned fields have turned forecasts."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.errors import UserError
from tds_jax.forecast.model import Forecaster
from tests.forecast.small import record, small_task

TURN = 4


@pytest.fixture(scope="module")
def globe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("globe")
    data = record(count=40).isel(lon=slice(0, 6)).assign_coords(lon=60.0 * np.arange(6))
    data.to_netcdf(folder / "globe.nc", engine="scipy")
    return folder


def build(folder, name, periodic):
    """A model with a linear map, all of whose weights are random, in f32."""
    task = small_task(
        folder / "globe.nc",
        folder,
        model__name=name,
        model__periodic=periodic,
        model__normalize="scalar",
        model__prior="last",
        model__local_kernel=3,
        model__local_days=2,
        model__norm="none",
        **({"model__hidden": 8} if name == "cnn3d_lstm" else {}),
    )
    model = task.init(nnx.Rngs(0))
    shape = model.local[...].shape
    model.local[...] = jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)
    assert isinstance(model, Forecaster)
    return model


def forecast(model, fields):
    batch = {
        "fields": jnp.asarray(fields),
        "present": jnp.ones(fields.shape, jnp.uint8),
        "phase": jnp.zeros((len(fields), 7), jnp.float32),
        "origin": jnp.zeros((len(fields), 2), jnp.int32),
    }
    return np.asarray(model(batch, False))


@pytest.mark.parametrize("name", ["convlstm", "cnn3d_lstm"])  # the others are parts of the last
def test_turned_fields_have_turned_forecasts(globe, name):
    fields = np.random.default_rng(0).normal(size=(1, 4, 5, 6, 2)).astype("f4")
    both = np.concatenate([fields, np.roll(fields, TURN, axis=3)])
    # f32 numbers near 1, sums of some hundred products: 1e-7 times a few.
    maps, turned = forecast(build(globe, name, True), both)
    np.testing.assert_allclose(turned, np.roll(maps, TURN, axis=2), atol=1e-5)
    maps, turned = forecast(build(globe, name, False), both)
    assert np.abs(turned - np.roll(maps, TURN, axis=2)).max() > 1e-2


def test_a_globe_taken_for_a_strip_is_said_and_a_strip_is_no_globe(globe, tmp_path):
    task = small_task(globe / "globe.nc", globe)
    assert any("model.periodic=True" in line for line in task.warnings())
    around = small_task(globe / "globe.nc", globe, model__periodic=True)
    assert not any("model.periodic" in line for line in around.warnings())
    record(count=40).to_netcdf(tmp_path / "strip.nc", engine="scipy")
    with pytest.raises(UserError, match=r"whole maps around the globe.*6 columns.*lon 0\.\.5"):
        small_task(tmp_path / "strip.nc", tmp_path, model__periodic=True)
    with pytest.raises(UserError, match="whole maps around the globe"):
        small_task(globe / "globe.nc", globe, model__periodic=True, data__crop=(3, 3))
    assert dataclasses.replace(around.around(), periodic=False) == task.around()
