"""Joint angles for whole recordings, a block at a time; memory does not grow with their length."""

import functools
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

from tds_jax.data.hdf5_write import write_prediction
from tds_jax.data.places import make_folder_for, pair_files, require_new
from tds_jax.data.session_files import HDF5
from tds_jax.engine import processes
from tds_jax.engine.history import UNTOLD, Made
from tds_jax.engine.step import compiled
from tds_jax.errors import UserError
from tds_jax.fields import require_ending
from tds_jax.pose.decoders import Carry
from tds_jax.pose.metadata import SUFFIXES, is_none, junk, stored_name
from tds_jax.pose.models import PoseModel
from tds_jax.pose.networks import AnyModel
from tds_jax.pose.recording import FileRecording, Recording, finite_emg
from tds_jax.pose.scales import other_scale
from tds_jax.pose.task import PoseTask
from tds_jax.progress import progress_bar

# Decoder steps per block: 10 s at 50 Hz, 1.3 MB of 16-channel EMG at 2 kHz.
BLOCK_STEPS = 500

Run = Callable[[Recording], Iterator[np.ndarray]]
"""Recording -> consecutive poses (n, J) on the model's step grid."""


def predict(
    task: PoseTask,
    model: nnx.Module,
    source: Path,
    target: Path,
    workdir: Path | None = None,
    made: Made = UNTOLD,
    overwrite: bool = False,
) -> list[Path]:
    """HDF5 in, HDF5 out: `prediction/{time, joint_angles}` at the input's rate, saying `made`.

    source: a recording, or a folder of them (then target is a folder, names kept). joint_angles is
    NaN where no prediction exists: before the model's left context is filled, and where the EMG
    is not finite. Each file is written beside its place and renamed when whole. A file of a folder
    that cannot be predicted is named and ends in a UserError when all others are written.
    workdir: the run's; nothing in it is needed. overwrite: replace what is at a file's place, which
    is refused else, before anything is computed.
    """
    if not source.is_dir():
        require_ending("--output", target, HDF5)
    assert isinstance(model, AnyModel)
    pairs = [
        (recording, place.with_name(stored_name(place.name)) if source.is_dir() else place)
        for recording, place in pair_files(source, target, SUFFIXES)
        if not is_none(recording.name)
    ]
    if not pairs:
        raise UserError(f"--input={source} holds no {' or '.join(SUFFIXES)} file of a recording")
    require_new([place for _, place in pairs], overwrite)
    processes.gather(None)  # nothing is written before all have looked
    run, left_out = runner(task, model), []
    with progress_bar("predicting") as progress:
        own = processes.share(pairs)
        for done, (recording, place) in enumerate(own):
            progress(done, len(own), recording.name)
            try:
                predict_file(task, model, run, recording, place, made)
            except UserError as error:
                if source.is_file():
                    raise
                left_out.append(str(error))
    for line in junk(str(source)) if source.is_dir() else ():
        print(f"note: {line}", file=sys.stderr)
    left_out = list(itertools.chain.from_iterable(processes.gather(left_out)))
    if left_out:
        for line in left_out:
            print(f"warning: left out {line}", file=sys.stderr)
        raise UserError(
            f"{len(left_out)} of {len(pairs)} files in --input={source} have no prediction, see "
            f"above; the others are in {target}"
        )
    return [place for _, place in pairs]


def predict_file(
    task: PoseTask, model: AnyModel, run: Run, recording: Path, place: Path, made: Made
) -> None:
    """Writes the prediction of one recording to `place`; `run` makes the poses."""
    read = FileRecording(task, str(recording))
    read.require_fit(needs_pose=model.initial_pose == "given")
    require_scale(task, model, read)
    blocks = angles(model, run, read)
    make_folder_for(place)
    write_prediction(place, read.rows, task.joint_names, blocks, made)


def angles(
    model: AnyModel, run: Run, recording: Recording
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(time (n,) f8, joint_angles (n, J) f4) block by block, one row for each of the recording.

    Raises UserError before the first if it is too short, or tracking cannot start.
    """
    if model.num_steps(recording.rows) == 0:
        raise UserError(
            f"{recording.name} has {recording.rows} samples, fewer than the model's receptive "
            f"field of {model.receptive_field}; give a longer recording"
        )
    return _rows(model, recording, run(recording))


def require_scale(task: PoseTask, model: AnyModel, recording: Recording) -> None:
    """UserError where the EMG is in another unit than that of the model's training."""
    if not task.config.data.normalize:  # nothing is known of what it was trained on
        return
    scale = np.asarray(model.normalizer.scale[...])
    read = functools.partial(finite_emg, recording)
    if wrong := other_scale(read, recording.rows, scale):
        raise UserError(f"{recording.name}: {wrong}")


def given_pose(model: AnyModel, recording: Recording) -> np.ndarray | None:
    """(1, J) where tracking starts, by the recording; None for models that start by themselves.

    Raises UserError where the recording has none.
    """
    wanted = model.initial_pose == "given" or recording.tracked
    return recording.given_pose(model.left_context) if wanted else None


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

    def __call__(self, recording: Recording) -> Iterator[np.ndarray]:
        """Consecutive poses (n, J); raises UserError before the first if tracking cannot start."""
        initial = given_pose(self._model, recording)
        start = None if initial is None else jnp.asarray(initial)
        return self._blocks(recording, self._model.initial_carry(1, start))

    def _blocks(self, recording: Recording, carry: Carry) -> Iterator[np.ndarray]:
        model, channels = self._model, self._task.recorded.num_channels
        steps = model.num_steps(recording.rows)
        for first in range(0, steps, self._steps):
            start = first * model.step
            emg = np.zeros((1, self._rows, channels), np.float32)
            read = finite_emg(recording, start, min(start + self._rows, recording.rows))
            emg[0, : len(read)] = read
            poses, carry = self._block(emg, carry)
            yield np.asarray(poses[0, : steps - first], np.float32)


class WindowRunner:
    """Poses of a whole file by a model that answers per window, at every sample of it.

    Windows of the training length, each beginning a left context before the row where the one
    before ended; the last ends with the file and adds what is missing. A given initial pose is the
    file's label, later the pose predicted before the window's first.
    """

    def __init__(self, task: PoseTask, model: AnyModel) -> None:
        self._task, self._model = task, model
        self._run = compiled(model, lambda model, emg, initial: model(emg, initial))

    def __call__(self, recording: Recording) -> Iterator[np.ndarray]:
        """As `Runner.__call__`."""
        return self._windows(recording, given_pose(self._model, recording))

    def _windows(self, recording: Recording, initial: np.ndarray | None) -> Iterator[np.ndarray]:
        rows = recording.rows
        window = min(self._task.config.data.window, rows)
        length = window - self._model.left_context  # poses of a window
        done, before, poses = 0, 0, np.empty((0, 0), np.float32)
        for start in [*range(0, rows - window, length), rows - window]:
            if initial is not None and start:
                initial = poses[start - 1 - before : start - before]
            emg = finite_emg(recording, start, start + window)[None]
            poses = np.asarray(self._run(emg, initial)[0], np.float32)
            yield poses[done - start :]
            done, before = start + length, start


def runner(task: PoseTask, model: AnyModel) -> Run:
    """What makes a model's poses, compiled once for recordings of any length."""
    if not isinstance(model, PoseModel) or model.windowed:
        return WindowRunner(task, model)
    return Runner(task, model)


def _rows(
    model: AnyModel, recording: Recording, poses: Iterator[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`angles` of poses (n, J) on the model's step grid, interpolated to every row.

    Of those that have come, only what later rows need is kept.
    """
    left, step, steps = model.left_context, model.step, model.num_steps(recording.rows)
    known, first = next(poses), 0
    block = BLOCK_STEPS * step
    for start in range(0, recording.rows, block):
        stop = min(start + block, recording.rows)
        while first + len(known) < min(steps, (stop - 1 - left) // step + 2):
            known = np.concatenate([known, next(poses)])
        rows = np.arange(start, stop)
        at = left + (first + np.arange(len(known))) * step
        angles = np.stack([np.interp(rows, at, column) for column in known.T], axis=1)
        time, finite = recording.known(start, stop)
        angles[(rows < left) | ~finite] = np.nan
        yield time, angles.astype(np.float32)
        past = min(max(0, (stop - left) // step - first), len(known) - 1)
        known, first = known[past:], first + past
