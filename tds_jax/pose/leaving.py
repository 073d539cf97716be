"""Poses as they are made: lines of CSV or JSON, UDP datagrams, a stream of LSL."""

import contextlib
import json
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np

from tds_jax.data.whole_file import naming
from tds_jax.engine.history import Made
from tds_jax.errors import UserError
from tds_jax.fields import require_ending
from tds_jax.pose.arriving import LSL, PIPE, library

UDP = "udp:"  # begins what names a port of UDP
JSON_LINES = (".jsonl",)
TEXTS = (".csv", ".txt", *JSON_LINES)


class Output(Protocol):
    """Where poses go.

    at: seconds since the first sample. stamp: LSL's time of the sample that the pose is of; None
    where samples have none. pose: (J,) radians.
    """

    def write(self, at: float, stamp: float | None, pose: np.ndarray) -> None:
        """One pose."""

    def flush(self) -> None:
        """After the poses of a chunk."""


def is_live(target: str) -> bool:
    """Whether poses go elsewhere than into a file."""
    return target == PIPE or target.startswith((LSL, UDP))


@contextlib.contextmanager
def opened(target: str, names: Sequence[str], rate_hz: float, made: Made) -> Iterator[Output]:
    """The output that --output names, open inside. rate_hz: poses per second.

    made: of which model they are; lines and datagrams have no place for it.
    """
    if target == PIPE:
        yield CsvLines(sys.stdout, names)
    elif target.startswith(UDP):
        with _datagrams(target) as datagrams:
            yield datagrams
    elif target.startswith(LSL):
        yield Outlet(target.removeprefix(LSL), names, rate_hz, made)
    else:
        require_ending("--output", target, TEXTS)
        if not Path(target).absolute().parent.is_dir():
            raise UserError(f"--output={target}: its folder does not exist; create or name another")
        with naming(Path(target)), open(target, "w") as file:
            lines = Path(target).suffix in JSON_LINES
            yield JsonLines(file) if lines else CsvLines(file, names)


class CsvLines:
    """A line of names, 'time' and the joints', then a line per pose: seconds, radians."""

    def __init__(self, file: TextIO, names: Sequence[str]) -> None:
        self._file = file
        print("time", *names, sep=",", file=file)

    def write(self, at: float, stamp: float | None, pose: np.ndarray) -> None:
        """See `Output`."""
        print(f"{at:.6f}", *(f"{angle:.6f}" for angle in pose), sep=",", file=self._file)

    def flush(self) -> None:
        """See `Output`."""
        self._file.flush()


def as_json(at: float, pose: np.ndarray) -> str:
    """{"time": seconds, "joint_angles": [radians]} in a line."""
    angles = [round(float(angle), 6) for angle in pose]
    return json.dumps({"time": round(at, 6), "joint_angles": angles})


class JsonLines:
    """A line of `as_json` per pose."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, at: float, stamp: float | None, pose: np.ndarray) -> None:
        """See `Output`."""
        print(as_json(at, pose), file=self._file)

    def flush(self) -> None:
        """See `Output`."""
        self._file.flush()


class Datagrams:
    """A datagram of `as_json` per pose; nobody need listen."""

    def __init__(self, port: socket.socket) -> None:
        self._port = port

    def write(self, at: float, stamp: float | None, pose: np.ndarray) -> None:
        """See `Output`."""
        with contextlib.suppress(ConnectionRefusedError):  # what the one before came back with
            self._port.send(as_json(at, pose).encode())

    def flush(self) -> None:
        """Nothing waits."""


@contextlib.contextmanager
def _datagrams(target: str) -> Iterator[Datagrams]:
    host, _, port = target.removeprefix(UDP).rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"--output={target} must be {UDP}HOST:PORT, such as {UDP}localhost:9000")
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)
    except OSError as error:
        raise UserError(f"--output={target}: {host} is not known ({error.strerror})") from error
    # A datagram that nobody receives is no error: what listens to a name listens on IPv4.
    family, kind, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    with socket.socket(family, kind) as open_port:
        open_port.connect(address)
        yield Datagrams(open_port)


class Outlet:
    """A stream of LSL: a channel per joint in radians, stamped with its sample's time."""

    def __init__(self, name: str, names: Sequence[str], rate_hz: float, made: Made) -> None:
        lsl = library()
        info = lsl.StreamInfo(
            name, "JointAngles", len(names), rate_hz, "float32", f"tds_jax {name}"
        )
        channels: Any = info.desc().append_child("channels")
        for joint in names:
            channel = channels.append_child("channel")
            channel.append_child_value("label", joint).append_child_value("unit", "radians")
        for what, value in made.items():
            info.desc().append_child_value(what, str(value))
        self._clock, self._outlet = lsl.local_clock, lsl.StreamOutlet(info)

    def write(self, at: float, stamp: float | None, pose: np.ndarray) -> None:
        """See `Output`."""
        self._outlet.push_sample(pose.tolist(), self._clock() if stamp is None else stamp)

    def flush(self) -> None:
        """Nothing waits."""
