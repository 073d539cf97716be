"""A recording or a pipe, streamed through a model at its own rate, and how long that takes."""

import dataclasses
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np
from flax import nnx

from tds_jax.data.places import pair_files
from tds_jax.data.session_files import HDF5
from tds_jax.data.whole_file import naming
from tds_jax.errors import UserError
from tds_jax.fields import option, require_ending
from tds_jax.pose import prediction
from tds_jax.pose.arrays import start_of
from tds_jax.pose.metadata import SUFFIXES
from tds_jax.pose.models import PoseModel
from tds_jax.pose.recording import Recording, finite_emg
from tds_jax.pose.stream import Stream
from tds_jax.pose.task import PoseTask

PIPE = "-"
BIN_SECONDS = 1e-5
BINS = 100_000  # up to a second


@dataclasses.dataclass(frozen=True)
class Play:
    """The door's job: angles as samples come, from a recording or a pipe."""

    initial_pose: tuple[float, ...] = option(
        (), "Radians, comma-separated: where a pipe's track starts."
    )
    chunk_ms: float = option(20.0, "Recorded time between two chunks.", least=0.001)
    realtime: bool = option(True, "--norealtime: play a recording as fast as possible.")

    def run(self, task: PoseTask, model: nnx.Module, source: str, target: str) -> str:
        """A line about speed and delay; see `play_pipe` and `play_file`."""
        if source == PIPE:
            return play_pipe(task, model, target, self.initial_pose or None)
        require_ending("--output", target, HDF5)
        chunk = self.chunk_ms / 1000
        return play_file(task, model, Path(source), Path(target), chunk, self.realtime)


class Latency:
    """Seconds from the last sample of a chunk to its poses; constant memory.

    A chunk's 10 microseconds are counted, so percentiles are that exact, up to one second.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(BINS, np.int64)
        self.chunks = 0
        self.longest = 0.0

    def add(self, seconds: float) -> None:
        """Counts one chunk."""
        self._counts[min(int(seconds / BIN_SECONDS), BINS - 1)] += 1
        self.chunks += 1
        self.longest = max(self.longest, seconds)

    def percentile(self, share: float) -> float:
        """The least latency that `share` of the chunks did not exceed; 0 without chunks."""
        reached = np.searchsorted(np.cumsum(self._counts), share * self.chunks)
        return float(reached + 1) * BIN_SECONDS if self.chunks else 0.0

    def __str__(self) -> str:
        p50, p99 = (f"{self.percentile(share) * 1e3:.2f}" for share in (0.5, 0.99))
        return f"p50 {p50} ms, p99 {p99} ms, max {self.longest * 1e3:.2f} ms"


class Player:
    """A `prediction.Run` that streams: `chunk` samples at a time, when they are due if `paced`.

    Latency counts from the moment the chunk's last sample was due (read, when not paced), so that
    falling behind shows.
    """

    def __init__(self, task: PoseTask, stream: Stream, chunk: int, paced: bool) -> None:
        self._task, self._stream, self._chunk, self._paced = task, stream, chunk, paced
        self.latency = Latency()
        self.poses, self.seconds = 0, 0.0

    def __call__(self, recording: Recording) -> Iterator[np.ndarray]:
        """Consecutive poses (n, J); raises UserError before the first if tracking cannot start."""
        return self._play(recording, prediction.given_pose(self._stream.model, recording))

    def _play(self, recording: Recording, initial: np.ndarray | None) -> Iterator[np.ndarray]:
        stream, rate = self._stream, self._task.recorded.sample_rate
        warm(stream, self._task.recorded.num_channels, initial)
        state = stream.start(stream.params, 1, initial)
        began = time.perf_counter()
        for start in range(0, recording.rows, self._chunk):
            stop = min(start + self._chunk, recording.rows)
            emg = finite_emg(recording, start, stop)[None]
            due = began + stop / rate if self._paced else time.perf_counter()
            time.sleep(max(0.0, due - time.perf_counter()))
            state, poses = stream(stream.params, state, emg)
            now = time.perf_counter()
            self.latency.add(now - due)
            self.poses, self.seconds = self.poses + poses.shape[1], now - began
            if poses.shape[1]:
                yield poses[0]


def warm(stream: Stream, channels: int, initial: np.ndarray | None) -> None:
    """Compiles before the first sample comes."""
    state = stream.start(stream.params, 1, initial)
    stream(stream.params, state, np.zeros((1, stream.model.step, channels), np.float32))


def play_file(
    task: PoseTask, model: nnx.Module, source: Path, target: Path, chunk: float, paced: bool
) -> str:
    """Streams a recording into the same file that `prediction.predict` writes (alignment 'fixed').

    chunk: seconds. paced: wait for each chunk's time. Returns a line about speed and delay.
    """
    stream = Stream(model)
    if source.is_dir():
        raise UserError(f"--input={source} is a folder; --stream plays one recording, name a file")
    ((recording, place),) = pair_files(source, target, SUFFIXES)
    player = Player(task, stream, max(1, round(chunk * task.recorded.sample_rate)), paced)
    prediction.predict_file(task, stream.model, player, recording, place)
    return summary(task, stream.model, player.latency, player.poses, player.seconds)


def play_pipe(
    task: PoseTask, model: nnx.Module, target: str, initial: Sequence[float] | None
) -> str:
    """Streams stdin, whatever comes at a time, into lines of CSV: time, then an angle per joint.

    stdin: little-endian f32, the model's channels of a sample together (those of data.channels, in
    its order, if the run chose some). target: a file, or '-' for stdout.
    initial: (J,) radians where tracking starts. Returns a line about speed and delay.
    """
    stream = Stream(model)
    start = _initial(stream.model, initial)
    if target == PIPE:
        return _pipe(task, stream, start, sys.stdout)
    require_ending("--output", target, (".csv", ".txt"))
    if not Path(target).absolute().parent.is_dir():
        raise UserError(f"--output={target}: its folder does not exist; create it or name another")
    with naming(Path(target)), open(target, "w") as file:
        return _pipe(task, stream, start, file)


def _initial(model: PoseModel, initial: Sequence[float] | None) -> np.ndarray | None:
    if (model.initial_pose == "given") and initial is None:
        raise UserError(
            "--initial_pose is missing: a tracking model needs the pose at which a pipe starts; "
            f"give {model.num_joints} angles in radians, separated by commas"
        )
    return start_of(model, initial, "--initial_pose")


def _pipe(task: PoseTask, stream: Stream, initial: np.ndarray | None, out: TextIO) -> str:
    recorded, model, latency = task.recorded, stream.model, Latency()
    warm(stream, recorded.num_channels, initial)
    state, poses = stream.start(stream.params, 1, initial), 0
    print("time", *(f"joint_{n}" for n in range(recorded.num_joints)), sep=",", file=out)
    began = time.perf_counter()
    for emg in _chunks(sys.stdin.fileno(), recorded.num_channels):
        read = time.perf_counter()
        state, found = stream(stream.params, state, emg[None])
        latency.add(time.perf_counter() - read)
        for pose in found[0]:
            at = (model.left_context + poses * model.step) / recorded.sample_rate
            print(f"{at:.6f}", *(f"{angle:.6f}" for angle in pose), sep=",", file=out)
            poses += 1
        out.flush()
    return summary(task, model, latency, poses, time.perf_counter() - began)


def _chunks(pipe: int, channels: int) -> Iterator[np.ndarray]:
    """(n, C) f32 of whatever bytes have come, at once; a last partial sample is dropped."""
    sample, rest = 4 * channels, b""
    while data := os.read(pipe, 1 << 20):
        rest += data
        whole = len(rest) // sample * sample
        if whole:
            yield np.frombuffer(rest[:whole], "<f4").reshape(-1, channels)
        rest = rest[whole:]


def summary(task: PoseTask, model: PoseModel, latency: Latency, poses: int, seconds: float) -> str:
    """One line: how much, how fast, how late."""
    age = (model.steps_per_frame - 1) * model.step / task.recorded.sample_rate
    return (
        f"{latency.chunks} chunks, {poses} poses in {seconds:.2f} s ({poses / seconds:.1f}/s); "
        f"latency per chunk {latency}; a pose waits for no later sample, its features are up to "
        f"{age * 1e3:g} ms old"
    )
