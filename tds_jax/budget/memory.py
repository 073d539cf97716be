"""Bytes: predicted by ahead-of-time compilation, measured on the device and on the host."""

import contextlib
import dataclasses
import os
import threading
from collections.abc import Iterator
from typing import Any

import jax
import psutil

from tds_jax.budget.packing import scratch_bytes


@dataclasses.dataclass(frozen=True)
class DeviceBytes:
    """XLA's own account of one compiled program, in bytes of device memory.

    arguments: inputs (state and batch). temporaries: activations, gradients, workspace.
    outputs: results that do not reuse an argument's buffer. scratch: what one product takes beside
    XLA's account (on CPU; elsewhere 0, see a target's margin).
    """

    arguments: int
    outputs: int
    temporaries: int
    scratch: int

    @property
    def total(self) -> int:
        """All of them, the peak of the step."""
        return self.arguments + self.outputs + self.temporaries + self.scratch


def predict(compiled: jax.stages.Compiled) -> DeviceBytes:
    """Bytes a compiled step needs, from its buffer assignment and text; nothing is allocated.

    `peak_memory_in_bytes` is not used: on CPU it leaves the temporaries out.
    """
    stats = compiled.memory_analysis()
    assert stats is not None, "this backend keeps no account of its buffers"
    return DeviceBytes(
        arguments=stats.argument_size_in_bytes,
        outputs=stats.output_size_in_bytes - stats.alias_size_in_bytes,
        temporaries=stats.temp_size_in_bytes,
        scratch=scratch_bytes(compiled.as_text() or "") if _on_cpu(compiled) else 0,
    )


def _on_cpu(compiled: jax.stages.Compiled) -> bool:
    """Whether it runs on CPU; a program without arguments holds nothing worth telling."""
    shardings = jax.tree.leaves(compiled.input_shardings)
    devices = {device for sharding in shardings for device in sharding.device_set}
    return {device.platform for device in devices} == {"cpu"}


class Exhausted(Exception):
    """A device ran out of memory. setting: the one that decides how much it holds at once."""

    def __init__(self, setting: str) -> None:
        super().__init__(f"the device ran out of memory; see {setting}")
        self.setting = setting


@contextlib.contextmanager
def noticing(setting: str) -> Iterator[None]:
    """Turns a device's out-of-memory error inside into Exhausted(setting)."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not exhausted(error):
            raise
        raise Exhausted(setting) from error


def exhausted(error: Exception) -> bool:
    """True if a device or a compiler has said that memory ran out."""
    return "RESOURCE_EXHAUSTED" in str(error)


COMPILING, BEGINNING, STEPPING, EVALUATING = "compiling", "beginning", "stepping", "evaluating"


def device_peak() -> int | None:
    """Measured peak bytes of the busiest local device; None where it is not kept (CPU)."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    peaks = [s["peak_bytes_in_use"] for s in stats if s and "peak_bytes_in_use" in s]
    return max(peaks) if peaks else None


class DeviceMeter:
    """What compiling, stepping and evaluating took of the busiest local device.

    A device remembers one peak, for ever: what comes after a higher one is known to be no higher.
    So each piece of work is noted when it has been done, and whether it has raised the peak.
    found: work -> (peak in bytes, whether it is this work's own); empty on CPU.
    """

    def __init__(self) -> None:
        self.found: dict[str, tuple[int, bool]] = {}
        self._peak = device_peak() or 0

    def note(self, work: str) -> None:
        """All since the last note was this work."""
        peak = device_peak()
        if peak is None:
            return
        if peak > self._peak or work not in self.found:
            self.found[work] = (peak, peak > self._peak)
        self._peak = peak

    def own(self, work: str) -> int | None:
        """The work's own peak; None where it is not known, or only that it is no higher."""
        peak, own = self.found.get(work, (0, False))
        return peak if own else None


def host_bytes() -> int:
    """Proportional set size of this process and its children: what the host really gives up.

    PSS counts a page shared by n processes as 1/n in each, so that workers are not counted twice.
    """
    own = psutil.Process(os.getpid())
    total = 0
    for process in [own, *own.children(recursive=True)]:
        try:
            total += _pss(process)
        except psutil.Error:  # the child ended between the listing and the reading
            continue
    return total


def _pss(process: psutil.Process) -> int:
    info = process.memory_full_info()
    return getattr(info, "pss", info.rss)


class HostMeter:
    """Samples `host_bytes` in a thread; `peak` is the largest value seen. Use as a context."""

    def __init__(self, seconds: float = 0.5) -> None:
        self.peak = 0
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        while not self._stop.is_set():
            self.peak = max(self.peak, host_bytes())
            self._stop.wait(self._seconds)

    def __enter__(self) -> "HostMeter":
        self._thread.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stop.set()
        self._thread.join()
        self.peak = max(self.peak, host_bytes())
