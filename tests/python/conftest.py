"""One tiny trained run of each family, shared by the tests of the Python face."""

from typing import NamedTuple

import jax
import numpy as np
import pytest

import tds_jax
from tests.pose import small as pose

FEW = {
    "optim.steps": 4,
    "optim.accumulate": 2,
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
    """A run as `train` gave it, what a callback saw, and where its data are."""

    run: tds_jax.Run
    seen: Watch
    data: str


def train(folder, config, data, **changes):
    watch = Watch()
    run = tds_jax.train(config, data, folder / "run", [watch], **changes)
    return Trained(run, watch, data)


@pytest.fixture(scope="session")
def emg(tmp_path_factory):
    """A pose run of 4 updates on recordings of 100 Hz, 4 electrodes and 3 joints."""
    folder = tmp_path_factory.mktemp("python_pose")
    pose.write_recordings(folder / "data", pose.LENGTHS, pose.SPLITS)
    cache = {"data.cache_dir": folder / "cache"}
    return train(folder, "default", folder / "data", **pose.SETTINGS, **FEW, **cache)


@pytest.fixture(scope="session")
def noise():
    """(333, 4) f32 EMG with a row that is not finite."""
    values = np.random.default_rng(0).normal(size=(333, 4)).astype(np.float32)
    values[200, 2] = np.nan
    return values
