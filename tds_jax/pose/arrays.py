"""A pose model on arrays: whole recordings, and samples as they come."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from flax import nnx

from tds_jax.errors import UserError
from tds_jax.pose import prediction
from tds_jax.pose.arriving import Gauge
from tds_jax.pose.models import PoseModel
from tds_jax.pose.networks import AnyModel
from tds_jax.pose.recording import ArrayRecording, band_of, require_fit
from tds_jax.pose.selection import select_channels
from tds_jax.pose.stream import Stream
from tds_jax.pose.task import PoseTask

Pose = Sequence[float] | np.ndarray | None
STARTS_BY_CALLER = ("given", "mixed")


class Answer:
    """Joint angles for EMG in memory, the numbers that `predict` writes for the same recording."""

    def __init__(self, task: PoseTask, model: nnx.Module, workdir: Path | None = None) -> None:
        assert isinstance(model, AnyModel)
        self._task, self._model = task, model
        self._run = prediction.runner(task, model)

    def __call__(self, emg: np.ndarray, *, rate_hz: float, initial_pose: Pose = None) -> np.ndarray:
        """emg (T, C) in the recordings' unit -> (T, J) f32 radians: row t is the hand at sample t.

        rate_hz: samples per second of `emg`, which must be the model's. Rows are NaN where nothing
        is known: the first `left_context` ones, and those whose EMG is not finite; after the last
        step the pose stays. initial_pose (J,): radians at the first predicted row, for models that
        track from it. UserError where electrodes, rate or length do not fit.
        """
        pose = start_of(self._model, initial_pose, "initial_pose")
        recording = ArrayRecording(self._task, emg, rate_hz, pose)
        prediction.require_scale(self._task, self._model, recording)
        blocks = prediction.angles(self._model, self._run, recording)
        return np.concatenate([angles for _, angles in blocks])


class Follow:
    """Poses from samples as they come; see `stream` for when.

    Called with a chunk it goes on where the last one ended. `sample`: which sample of the stream
    the next pose is of, counted from 0.
    """

    def __init__(self, task: PoseTask, model: nnx.Module, *, initial_pose: Pose = None) -> None:
        """initial_pose (J,): radians where tracking starts, for models that track from it."""
        self._task, self._stream = task, Stream(model)
        grid = self._stream.model
        start = start_of(grid, initial_pose, "initial_pose")
        if grid.initial_pose == "given" and start is None:
            raise UserError(
                "initial_pose is missing: a tracking model needs the pose at which a stream "
                f"starts; give {grid.num_joints} angles in radians"
            )
        self._state = self._stream.start(self._stream.params, 1, start)
        self._gauge = Gauge("chunk", task, grid)
        self.sample = grid.left_context

    def __call__(self, chunk: np.ndarray) -> np.ndarray:
        """chunk (n, C), n >= 0, in the recordings' unit -> (m, J) f32 radians.

        m: as many steps as the chunk completes. UserError once a second of EMG shows another unit
        than the recordings'.
        """
        require_fit(self._task, "chunk", band_of(chunk), None)
        emg = select_channels(np.asarray(chunk), self._task.config.data.channels)
        found = emg.astype(np.float32)[None]
        self._gauge.see(found[0])
        self._state, poses = self._stream(self._stream.params, self._state, found)
        self.sample += poses.shape[1] * self._stream.model.step
        return poses[0]


def start_of(model: AnyModel, pose: Pose, name: str) -> np.ndarray | None:
    """(1, J) f32 of a pose from outside; None without one. name: of what gave it, in errors."""
    if pose is None:
        return None
    try:
        angles = np.asarray(pose, np.float32)
    except (TypeError, ValueError):
        raise UserError(f"{name}={pose!r} is no pose; give a number for each joint") from None
    if model.initial_pose not in STARTS_BY_CALLER:
        raise UserError(
            f"{name} is given, but the model was trained with model.initial_pose="
            f"{model.initial_pose!r} and starts by itself; leave it out"
        )
    assert isinstance(model, PoseModel)  # others begin by themselves
    if angles.shape != (model.num_joints,) or not np.isfinite(angles).all():
        raise UserError(
            f"{name}={','.join(map(str, angles.ravel()))} has {angles.size} angles, the model has "
            f"{model.num_joints}; give a finite number for each joint"
        )
    return angles[None]
