"""A trained model made a user's own by a short recording, without labels or gradient steps."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

from tds_jax.engine.step import split
from tds_jax.errors import UserError
from tds_jax.pose import prediction
from tds_jax.pose.calibration import describe
from tds_jax.pose.models import PoseModel
from tds_jax.pose.recording import ArrayRecording, FileRecording, Recording
from tds_jax.pose.task import PoseTask


def calibrated(
    task: PoseTask, model: nnx.Module, emg: str | Path | np.ndarray, *, rate_hz: float | None = None
) -> nnx.Module:
    """The model, for the user of this EMG; the one given stays as it is.

    emg: a file of a recording, or (T, C) in the recordings' unit with rate_hz. All of it is looked
    at; data.calibration_seconds of it were in training. UserError where the run has no
    model.user_embedding, or electrodes, rate or unit do not fit.
    """
    if not isinstance(model, PoseModel) or model.film is None:
        raise UserError(
            "a calibration needs a model that was trained with model.user_embedding above 0, which "
            "this run was not; train with it, or leave the calibration out"
        )
    recording = _opened(task, emg, rate_hz)
    prediction.require_scale(task, model, recording)
    vector = describe(recording.emg(0, recording.rows), task.recorded.sample_rate)
    own: PoseModel = nnx.merge(*split(model))  # pure dicts: Variables of its own
    assert own.film is not None
    own.film.remember(jnp.asarray(vector))
    return own


def _opened(task: PoseTask, emg: str | Path | np.ndarray, rate_hz: float | None) -> Recording:
    if not isinstance(emg, str | Path):
        if rate_hz is None:
            raise UserError("calibrate needs rate_hz, the samples per second of emg")
        return ArrayRecording(task, emg, rate_hz, None)
    recording = FileRecording(task, str(emg))
    recording.require_fit(needs_pose=False)
    return recording
