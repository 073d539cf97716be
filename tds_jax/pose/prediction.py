"""Joint angles for whole recordings, a block at a time; memory does not grow with their length."""

import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from tds_jax.config import require_ending
from tds_jax.data.hdf5 import Header
from tds_jax.data.hdf5_write import write_prediction
from tds_jax.data.places import make_folder_for, pair_files
from tds_jax.data.scan import SCAN_ROWS, require_columns, stamped_rate, times_of
from tds_jax.data.session_files import HDF5
from tds_jax.engine.step import compiled
from tds_jax.errors import UserError
from tds_jax.pose.decoders import Carry
from tds_jax.pose.joints import joint_names
from tds_jax.pose.labels import (
    filled,
    first_label_step,
    in_radians,
    radians_per_unit,
    reach,
    seem_degrees,
    valid_rows,
)
from tds_jax.pose.metadata import SUFFIXES, is_none, junk, stored_name
from tds_jax.pose.models import PoseModel
from tds_jax.pose.neuropose import NeuroPose
from tds_jax.pose.scales import other_scale
from tds_jax.pose.selection import flip, joint_numbers, select_channels
from tds_jax.pose.sessions import RATE_RTOL
from tds_jax.pose.table import DATASET, FIELDS, UNIT
from tds_jax.pose.task import PoseTask
from tds_jax.progress import progress_bar

# Decoder steps per block: 10 s at 50 Hz, 1.3 MB of 16-channel EMG at 2 kHz.
BLOCK_STEPS = 500

Run = Callable[[str, int], Iterator[np.ndarray]]
"""(path, its rows) -> consecutive poses (n, J) on the model's step grid."""


def predict(
    task: PoseTask, model: nnx.Module, source: Path, target: Path, workdir: Path | None = None
) -> list[Path]:
    """HDF5 in, HDF5 out: `prediction/{time, joint_angles}` at the input's rate.

    source: a recording, or a folder of them (then target is a folder, names kept). joint_angles is
    NaN where no prediction exists: before the model's left context is filled, and where the EMG
    is not finite. Each file is written beside its place and renamed when whole. A file of a folder
    that cannot be predicted is named and ends in a UserError when all others are written.
    workdir: the run's; nothing in it is needed.
    """
    if not source.is_dir():
        require_ending("--output", target, HDF5)
    assert isinstance(model, PoseModel | NeuroPose)
    pairs = [
        (recording, place.with_name(stored_name(place.name)) if source.is_dir() else place)
        for recording, place in pair_files(source, target, SUFFIXES)
        if not is_none(recording.name)
    ]
    if not pairs:
        raise UserError(f"--input={source} holds no {' or '.join(SUFFIXES)} file of a recording")
    run, left_out = _runner(task, model), []
    with progress_bar("predicting") as progress:
        for done, (recording, place) in enumerate(pairs):
            progress(done, len(pairs), recording.name)
            try:
                predict_file(task, model, run, recording, place)
            except UserError as error:
                if source.is_file():
                    raise
                left_out.append(str(error))
    for line in junk(str(source)) if source.is_dir() else ():
        print(f"note: {line}", file=sys.stderr)
    if left_out:
        for line in left_out:
            print(f"warning: left out {line}", file=sys.stderr)
        raise UserError(
            f"{len(left_out)} of {len(pairs)} files in --input={source} have no prediction, see "
            f"above; the others are in {target}"
        )
    return [place for _, place in pairs]


def predict_file(
    task: PoseTask, model: PoseModel | NeuroPose, run: Run, recording: Path, place: Path
) -> None:
    """Writes the prediction of one recording to `place`; `run` makes the poses."""
    path, group = str(recording), task.config.data.group
    header = task.files.header(path, group, DATASET)
    _check(task, model, header, path)
    _require_scale(task, model, header, path)
    poses = run(path, header.rows)
    make_folder_for(place)
    blocks = _rows(task, model, path, header, poses)
    write_prediction(place, header.rows, joint_names(task.recorded.num_joints), blocks)


def _check(task: PoseTask, model: PoseModel | NeuroPose, header: Header, path: str) -> None:
    channels, chosen = header.width(path, FIELDS[0]), task.config.data.channels
    require_columns(path, chosen, channels)
    if not chosen and channels != task.recorded.num_channels:
        raise UserError(
            f"{path} has {channels} EMG channels, the model was trained on "
            f"{task.recorded.num_channels}; give recordings of the same band"
        )
    rate = _rate(task, header, path)
    if rate is not None and abs(rate / task.recorded.sample_rate - 1) > RATE_RTOL:
        raise UserError(
            f"{path} has {rate:g} samples per second, the model was trained on "
            f"{task.recorded.sample_rate:g}; resample it first with python -m tds_jax.prepare"
        )
    if model.initial_pose == "given":
        header.width(path, FIELDS[1])
    if model.num_steps(header.rows) == 0:
        raise UserError(
            f"{path} has {header.rows} samples, fewer than the model's receptive field of "
            f"{model.receptive_field}; give a longer recording"
        )


def _require_scale(task: PoseTask, model: PoseModel | NeuroPose, header: Header, path: str) -> None:
    if not task.config.data.normalize:  # nothing is known of what it was trained on
        return
    scale = np.asarray(model.normalizer.scale[...])
    wrong = other_scale(functools.partial(read_emg, task, path), header.rows, scale)
    if wrong:
        raise UserError(f"{path}: {wrong}")


def _rate(task: PoseTask, header: Header, path: str) -> float | None:
    """Samples per second by the file's attribute or else its time stamps; None without either."""
    rate = header.attributes.get("sample_rate")
    if isinstance(rate, float):
        return rate
    if rate is not None:
        raise UserError(f"{path}: attribute 'sample_rate' is {rate!r}; write it as a number")
    if "time" not in header.fields:
        return None
    first = task.files.raw(path, task.config.data.group, DATASET, 0, SCAN_ROWS)
    return stamped_rate(times_of(first, "time", path)) or None


def read_emg(task: PoseTask, path: str, start: int, stop: int) -> np.ndarray:
    """(stop - start, C) f32 of the model's electrodes; zeros for rows with NaN or Inf, so that the
    decoder survives them."""
    data = task.config.data
    (emg,) = task.files.rows(path, data.group, DATASET, start, stop, FIELDS[:1])
    emg = select_channels(emg, data.channels)
    return np.where(np.isfinite(emg).all(axis=1, keepdims=True), emg, np.float32(0))


def _labelled_pose(task: PoseTask, path: str, row: int) -> np.ndarray:
    """(1, J) radians of the file's own label, from which tracking starts, in the model's signs."""
    data, header = task.config.data, task.files.header(path, task.config.data.group, DATASET)

    def labels(start: int, stop: int) -> np.ndarray:
        return task.files.rows(path, data.group, DATASET, start, stop, FIELDS[1:])[0]

    more = reach(first_label_step(labels, header.rows, task.recorded.sample_rate))
    start = max(0, row - more)
    unit = str(header.attributes.get(UNIT, ""))
    scale = radians_per_unit(data.angle_unit, unit, path)
    around = filled(labels(start, min(row + 1 + more, header.rows)), more)
    angles = in_radians(around[row - start : row - start + 1], scale)
    if degrees := seem_degrees(data.angle_unit, float(np.abs(angles).max())):
        raise UserError(f"{path}: {degrees}")
    if not valid_rows(angles).all():
        raise UserError(
            f"{path} has no valid joint angles at row {row}, where tracking starts; "
            "cut the file to begin earlier or later"
        )
    side = str(header.attributes.get("side", ""))
    return flip(angles, joint_numbers(data.flip_left, angles.shape[1]), side, path)


def given_pose(task: PoseTask, model: PoseModel | NeuroPose, path: str) -> np.ndarray | None:
    """(1, J) where tracking starts, by the file's label; None for models that start by themselves.

    Raises UserError where the file has no label for that row.
    """
    if model.initial_pose != "given":
        return None
    return _labelled_pose(task, path, model.left_context)


class Runner:
    """Poses of a whole file on the model's step grid, from blocks of one length.

    The encoder uses valid convolutions, so a block and the left context before it give the same
    features as the whole file; the decoder's carry goes from block to block. The last block is
    filled up with zeros, which no step before them sees: one compilation serves files of any
    length.
    """

    def __init__(self, task: PoseTask, model: PoseModel) -> None:
        self._task, self._model = task, model
        # Blocks begin with a frame: where frames are rarer than steps, at every so many steps.
        self._steps = -(-BLOCK_STEPS // model.steps_per_frame) * model.steps_per_frame
        self._rows = model.left_context + (self._steps - 1) * model.step + 1
        self._block = compiled(model, lambda m, emg, carry: m.decode(m.features(emg), carry))

    def __call__(self, path: str, rows: int) -> Iterator[np.ndarray]:
        """Consecutive poses (n, J); raises UserError before the first if tracking cannot start."""
        initial = given_pose(self._task, self._model, path)
        start = None if initial is None else jnp.asarray(initial)
        return self._blocks(path, rows, self._model.initial_carry(1, start))

    def _blocks(self, path: str, rows: int, carry: Carry) -> Iterator[np.ndarray]:
        model, channels = self._model, self._task.recorded.num_channels
        steps = model.num_steps(rows)
        for first in range(0, steps, self._steps):
            start = first * model.step
            emg = np.zeros((1, self._rows, channels), np.float32)
            read = read_emg(self._task, path, start, min(start + self._rows, rows))
            emg[0, : len(read)] = read
            poses, carry = self._block(emg, carry)
            yield np.asarray(poses[0, : steps - first], np.float32)


class WindowRunner:
    """Poses of a whole file by a model that answers per window, at every sample of it.

    Windows of the training length, each beginning a left context before the row where the one
    before ended; the last ends with the file and adds what is missing. A given initial pose is the
    file's label, later the pose predicted before the window's first.
    """

    def __init__(self, task: PoseTask, model: PoseModel | NeuroPose) -> None:
        self._task, self._model = task, model
        self._run = compiled(model, lambda model, emg, initial: model(emg, initial))

    def __call__(self, path: str, rows: int) -> Iterator[np.ndarray]:
        """As `Runner.__call__`."""
        return self._windows(path, rows, given_pose(self._task, self._model, path))

    def _windows(self, path: str, rows: int, initial: np.ndarray | None) -> Iterator[np.ndarray]:
        window = min(self._task.config.data.window, rows)
        length = window - self._model.left_context  # poses of a window
        done, before, poses = 0, 0, np.empty((0, 0), np.float32)
        for start in [*range(0, rows - window, length), rows - window]:
            if initial is not None and start:
                initial = poses[start - 1 - before : start - before]
            emg = read_emg(self._task, path, start, start + window)[None]
            poses = np.asarray(self._run(emg, initial)[0], np.float32)
            yield poses[done - start :]
            done, before = start + length, start


def _runner(task: PoseTask, model: PoseModel | NeuroPose) -> Run:
    if isinstance(model, NeuroPose) or model.windowed:
        return WindowRunner(task, model)
    return Runner(task, model)


def _rows(
    task: PoseTask, model: Any, path: str, header: Header, poses: Iterator[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(time (n,) f8, joint_angles (n, J) f4) block by block: poses interpolated to every row.

    poses: consecutive ones (n, J) on the model's step grid; those that later rows need are kept.
    """
    left, step, steps = model.left_context, model.step, model.num_steps(header.rows)
    known, first = next(poses), 0
    block = BLOCK_STEPS * step
    for start in range(0, header.rows, block):
        stop = min(start + block, header.rows)
        while first + len(known) < min(steps, (stop - 1 - left) // step + 2):
            known = np.concatenate([known, next(poses)])
        rows = np.arange(start, stop)
        at = left + (first + np.arange(len(known))) * step
        raw = task.files.raw(path, task.config.data.group, DATASET, start, stop)
        angles = np.stack([np.interp(rows, at, column) for column in known.T], axis=1)
        angles[rows < left] = np.nan
        emg = select_channels(raw["emg"], task.config.data.channels)
        angles[~np.isfinite(emg).all(axis=1)] = np.nan
        timed = "time" in header.fields
        time = times_of(raw, "time", path) if timed else rows / task.recorded.sample_rate
        yield np.asarray(time, np.float64), angles.astype(np.float32)
        past = min(max(0, (stop - left) // step - first), len(known) - 1)
        known, first = known[past:], first + past
