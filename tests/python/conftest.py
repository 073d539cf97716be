"""One tiny trained run of each family, shared by the tests of the Python face."""

from typing import NamedTuple

import jax
import numpy as np
import pytest

import tds_jax
from tds_jax.voxel import evaluation
from tds_jax.voxel.methods.latents import fingerprint
from tests.begun import begun
from tests.forecast import small as forecast
from tests.pose import small as pose
from tests.voxel import small as voxel

FEW = {
    "model.name": "tests.python.parts:Joints",  # which compiles in a second
    "optim.steps": 4,
    "eval.every": 2,
    "eval.batch_size": 2,
    "checkpoint.keep": 3,
    "log.every": 1,
    "log.plots": False,
    "memory.compile_cache": "off",  # as all tests: see tests/conftest.py
}


class Watch(tds_jax.Callback):
    """Everything that a callback is shown, copied."""

    def __init__(self):
        self.losses, self.params, self.scores = {}, {}, {}

    def on_update(self, update):
        self.losses[update.step] = update.loss
        self.params[update.step] = jax.device_get(update.params)

    def on_evaluation(self, evaluation):
        self.scores[evaluation.step] = evaluation.values["loss"]


class Trained(NamedTuple):
    """A run as `train` gave it, and what a callback saw."""

    run: tds_jax.Run
    seen: Watch


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """Recordings of 100 Hz, 4 electrodes and 3 joints in a folder `data`."""
    folder = tmp_path_factory.mktemp("python_pose")
    pose.write_recordings(folder / "data", pose.LENGTHS, pose.SPLITS)
    return folder


@pytest.fixture(scope="session")
def trained(base):
    """A run of 4 updates, of a network of one's own."""
    watch, settings = Watch(), pose.SETTINGS | FEW | {"data.cache_dir": base / "cache"}
    run = tds_jax.train("default", base / "data", base / "run", [watch], **settings)
    return Trained(run, watch)


@pytest.fixture(scope="session")
def tds(base):
    """A run of a TDS network with weights at random."""
    begun(base / "tds", pose.small_config(base / "data", base))
    return tds_jax.load(base / "tds")


@pytest.fixture(scope="session")
def film(base):
    """The same, which takes a calibration."""
    config = pose.small_config(
        base / "data", base, model__user_embedding=2, data__calibration_seconds=1.0
    )
    begun(base / "film", config)
    return tds_jax.load(base / "film")


@pytest.fixture(scope="session")
def soil(tmp_path_factory):
    """(task, model, folder) of a forecast run on fields of 5 x 6 cells."""
    folder = tmp_path_factory.mktemp("python_forecast")
    config = forecast.small_config(forecast.write_record(folder / "train.nc"), folder)
    return *begun(folder / "run", config), folder / "run"


@pytest.fixture(scope="session")
def radar(tmp_path_factory):
    """(task, model, folder) of an autoencoder of volumes, its threshold calibrated."""
    place = tmp_path_factory.mktemp("python_voxel")
    task, model = begun(place / "run", voxel.small_config(place))
    evaluation.Thresholds({"model": 0.0}, {}, fingerprint(model)).write(place / "run")
    return task, model, place / "run"


@pytest.fixture(scope="session")
def noise():
    """(333, 4) f32 EMG with a row that is not finite."""
    values = np.random.default_rng(0).normal(size=(333, 4)).astype(np.float32)
    values[200, 2] = np.nan
    return values
