"""A recording at its own rate, a pipe or a stream of LSL through a model, and how long it takes."""

import dataclasses
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from flax import nnx

from tds_jax.data.places import pair_files, require_new
from tds_jax.data.session_files import HDF5
from tds_jax.engine.history import UNTOLD, Made
from tds_jax.engine.stopping import StopError
from tds_jax.errors import UserError
from tds_jax.fields import option, require_ending
from tds_jax.pose import arriving, leaving, prediction
from tds_jax.pose.arrays import start_of
from tds_jax.pose.metadata import SUFFIXES
from tds_jax.pose.models import PoseModel
from tds_jax.pose.recording import Recording, finite_emg
from tds_jax.pose.stream import Stream
from tds_jax.pose.task import PoseTask

BIN_SECONDS = 1e-5
BINS = 100_000  # up to a second


@dataclasses.dataclass(frozen=True)
class Play:
    """The door's job: angles as samples come, from a recording, a pipe or LSL."""

    initial_pose: tuple[float, ...] = option(
        (), "Radians, comma-separated: where the track of a pipe or of LSL starts."
    )
    chunk_ms: float = option(20.0, "Recorded time between two chunks.", least=0.001)
    realtime: bool = option(True, "--norealtime: play a recording as fast as possible.")

    def run(
        self,
        task: PoseTask,
        model: nnx.Module,
        source: str,
        target: str,
        made: Made = UNTOLD,
        overwrite: bool = False,
    ) -> str:
        """A line about speed and delay; see `play_live` and `play_file`.

        overwrite: replace a file that is at the target, which is refused else.
        """
        if not leaving.is_live(target) and not Path(target).is_dir():
            require_new([Path(target)], overwrite)
        if arriving.is_live(source):
            return play_live(task, model, source, target, self.initial_pose or None, made)
        if leaving.is_live(target):
            raise UserError(
                f"--output={target} needs --input=- or lsl:NAME; a recording is played into HDF5"
            )
        require_ending("--output", target, HDF5)
        chunk = self.chunk_ms / 1000
        return play_file(task, model, Path(source), Path(target), chunk, self.realtime, made)


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
    task: PoseTask,
    model: nnx.Module,
    source: Path,
    target: Path,
    chunk: float,
    paced: bool,
    made: Made = UNTOLD,
) -> str:
    """Streams a recording into the same file that `prediction.predict` writes (alignment 'fixed').

    chunk: seconds. paced: wait for each chunk's time. Returns a line about speed and delay.
    """
    stream = Stream(model)
    if source.is_dir():
        raise UserError(f"--input={source} is a folder; --stream plays one recording, name a file")
    ((recording, place),) = pair_files(source, target, SUFFIXES)
    player = Player(task, stream, max(1, round(chunk * task.recorded.sample_rate)), paced)
    prediction.predict_file(task, stream.model, player, recording, place, made)
    return summary(task, stream.model, player.latency, player.poses, player.seconds)


def play_live(
    task: PoseTask,
    model: nnx.Module,
    source: str,
    target: str,
    initial: Sequence[float] | None,
    made: Made = UNTOLD,
) -> str:
    """Streams what comes from `source` (see `arriving`) to `target` (see `leaving`).

    source: '-' is stdin, little-endian f32, the model's channels of a sample together (those of
    data.channels, in its order, if the run chose some). initial: (J,) radians where tracking
    starts. Returns a line about speed and delay, which Ctrl-C prints, too. UserError once a second
    of EMG shows another unit than the training's.
    """
    stream = Stream(model)
    start = _initial(stream.model, initial)
    names, rate_hz = task.joint_names, task.recorded.sample_rate / stream.model.step
    with leaving.opened(target, names, rate_hz, made) as out:
        chunks = arriving.chunks(task, source)
        live = Live(task, stream, start, arriving.Gauge(f"--input={source}", task, stream.model))
        try:
            live.run(chunks, out)
        except StopError:
            print(live.summary(), file=sys.stderr)
            raise
        return live.summary()


def _initial(model: PoseModel, initial: Sequence[float] | None) -> np.ndarray | None:
    if (model.initial_pose == "given") and initial is None:
        raise UserError(
            "--initial_pose is missing: a tracking model needs the pose at which a pipe starts; "
            f"give {model.num_joints} angles in radians, separated by commas"
        )
    return start_of(model, initial, "--initial_pose")


class Live:
    """Poses of chunks as they come; latency counts from when a chunk was read."""

    def __init__(
        self, task: PoseTask, stream: Stream, initial: np.ndarray | None, gauge: arriving.Gauge
    ) -> None:
        self._task, self._stream, self._gauge = task, stream, gauge
        warm(stream, task.recorded.num_channels, initial)
        self._state = stream.start(stream.params, 1, initial)
        self._latency, self._began = Latency(), time.perf_counter()
        self._poses = self._samples = 0

    def run(self, chunks: Iterable[arriving.Chunk], out: leaving.Output) -> None:
        """Until they end."""
        self._began = time.perf_counter()
        for chunk in chunks:
            read = time.perf_counter()
            self._gauge.see(chunk.emg)
            self._state, found = self._stream(self._stream.params, self._state, chunk.emg[None])
            self._latency.add(time.perf_counter() - read)
            for pose in found[0]:
                self._write(pose, chunk.stamps, out)
            self._samples += len(chunk.emg)
            out.flush()
        self._gauge.judge()

    def _write(self, pose: np.ndarray, stamps: np.ndarray | None, out: leaving.Output) -> None:
        model = self._stream.model
        sample = model.left_context + self._poses * model.step  # one of the chunk's
        stamp = None if stamps is None else float(stamps[sample - self._samples])
        out.write(sample / self._task.recorded.sample_rate, stamp, pose)
        self._poses += 1

    def summary(self) -> str:
        """See `summary`."""
        seconds = time.perf_counter() - self._began
        return summary(self._task, self._stream.model, self._latency, self._poses, seconds)


def summary(task: PoseTask, model: PoseModel, latency: Latency, poses: int, seconds: float) -> str:
    """One line: how much, how fast, how late."""
    age = (model.steps_per_frame - 1) * model.step / task.recorded.sample_rate
    return (
        f"{latency.chunks} chunks, {poses} poses in {seconds:.2f} s ({poses / seconds:.1f}/s); "
        f"latency per chunk {latency}; a pose waits for no later sample, its features are up to "
        f"{age * 1e3:g} ms old"
    )
