"""Samples as they come: from a pipe, or from a stream of the Lab Streaming Layer."""

import os
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from tds_jax.errors import UserError
from tds_jax.pose.models import PoseModel
from tds_jax.pose.recording import require_fit
from tds_jax.pose.scales import other_scale
from tds_jax.pose.selection import select_channels
from tds_jax.pose.task import PoseTask

PIPE = "-"
LSL = "lsl:"  # begins what names a stream of LSL
WAIT_SECONDS = 10.0  # for a stream to be found
POLL_SECONDS = 0.1  # after which a stream without samples lets signals be seen
MOST_SAMPLES = 65_536  # taken at once
GAUGE_SECONDS = 1.0  # of EMG that are looked at before its unit is judged


class Chunk(NamedTuple):
    """emg (n, C) f32, of the model's electrodes. stamps (n,) seconds of LSL's clock, or None."""

    emg: np.ndarray
    stamps: np.ndarray | None


def is_live(source: str) -> bool:
    """Whether samples come from elsewhere than a file."""
    return source == PIPE or source.startswith(LSL)


def chunks(task: PoseTask, source: str) -> Iterator[Chunk]:
    """What comes, as it comes, until it ends; UserError before the first if it does not fit."""
    if source == PIPE:
        return (Chunk(emg, None) for emg in _piped(sys.stdin.fileno(), task.recorded.num_channels))
    return _streamed(task, source.removeprefix(LSL))


def _piped(pipe: int, channels: int) -> Iterator[np.ndarray]:
    """(n, C) f32 of whatever bytes have come, at once; a last partial sample is dropped."""
    sample, rest = 4 * channels, b""
    while data := os.read(pipe, 1 << 20):
        rest += data
        whole = len(rest) // sample * sample
        if whole:
            yield np.frombuffer(rest[:whole], "<f4").reshape(-1, channels)
        rest = rest[whole:]


def library() -> Any:
    """pylsl; UserError that names the extra where it, or the library it needs, is not there."""
    try:
        import pylsl
    except (ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"lsl: needs pylsl ({reason}); pip install 'tds_jax[lsl]'") from error
    return pylsl


def _streamed(task: PoseTask, name: str) -> Iterator[Chunk]:
    """The stream of that name, until whoever sends it is gone."""
    lsl = library()
    found = lsl.resolve_byprop("name", name, 1, WAIT_SECONDS)
    if not found:
        others = sorted({info.name() for info in lsl.resolve_streams(1.0)})
        raise UserError(
            f"--input={LSL}{name}: no stream of this name in {WAIT_SECONDS:g} s; there "
            f"{'are ' + ', '.join(others) if others else 'is none'}; start it, or check the network"
        )
    info = found[0]
    rate = info.nominal_srate() or None  # 0: at any time
    require_fit(task, f"--input={LSL}{name}", info.channel_count(), rate)
    return _pulled(lsl, lsl.StreamInlet(info, recover=False), task.config.data.channels)


def _pulled(lsl: Any, inlet: Any, channels: tuple[int, ...]) -> Iterator[Chunk]:
    inlet.open_stream(timeout=WAIT_SECONDS)  # not before they are wanted: they would wait
    while True:
        try:
            samples, stamps = inlet.pull_chunk(timeout=POLL_SECONDS, max_samples=MOST_SAMPLES)
        except lsl.util.LostError:
            return
        if len(stamps):
            emg = select_channels(np.asarray(samples, np.float32), channels)
            yield Chunk(emg, np.asarray(stamps))


class Gauge:
    """Looks at the first second of EMG; UserError if it is in another unit than in training.

    name: what people are told has it.
    """

    def __init__(self, name: str, task: PoseTask, model: PoseModel) -> None:
        self._name, rate = name, task.recorded.sample_rate
        known = task.config.data.normalize  # else nothing is, of what it was trained on
        self._scale = np.asarray(model.normalizer.scale[...]) if known else None
        self._left, self._seen = round(GAUGE_SECONDS * rate), list[np.ndarray]()

    def see(self, emg: np.ndarray) -> None:
        """The next samples (n, C)."""
        if self._scale is None:
            return
        self._seen.append(emg[: self._left])
        self._left -= len(self._seen[-1])
        if not self._left:
            self.judge()

    def judge(self) -> None:
        """Now, with what there is: a stream may end before its first second does."""
        seen, scale = self._seen, self._scale
        self._seen, self._scale = [], None
        if scale is None or not sum(map(len, seen)):
            return
        emg = np.concatenate(seen)
        if wrong := other_scale(lambda start, stop: emg[start:stop], len(emg), scale):
            raise UserError(f"{self._name}: {wrong}")
