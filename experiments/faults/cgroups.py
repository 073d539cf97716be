"""Memory limits of the system, where this process may make a cgroup within its own."""

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from experiments.faults.hooks import before, data_workers
from experiments.faults.judging import Fault, goes_on, nothing
from experiments.faults.trial import Seen, Trial
from tds_jax.sizes import MIB

ROOT = Path("/sys/fs/cgroup")


def _own() -> tuple[Path, str, str]:
    """The folder of this process's group, and its names of limit and use."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            first = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            return ROOT / "memory" / path.strip("/"), *first
    return ROOT / path.strip("/"), "memory.max", "memory.current"


class Group:
    """A group within ours; what is charged to it is what its processes take from then on."""

    def __init__(self) -> None:
        own, self._limit, self._use = _own()
        self.folder = own / f"faults-{os.getpid()}-{time.monotonic_ns()}"

    def limit(self, amount: int) -> None:
        """To so many bytes more than it has."""
        used = int((self.folder / self._use).read_text())
        (self.folder / self._limit).write_text(str(used + amount))

    def enter(self, process: int | None = None) -> None:
        """That process, or this one, belongs to it."""
        (self.folder / "cgroup.procs").write_text(str(process or os.getpid()))


@contextlib.contextmanager
def group() -> Iterator[Group]:
    """Made, and removed when its processes have ended."""
    found = Group()
    found.folder.mkdir()
    try:
        yield found
    finally:
        for _ in range(100):
            with contextlib.suppress(OSError):
                found.folder.rmdir()
                break
            time.sleep(0.1)


def may_be_made() -> bool:
    """Whether a group can be made here, and limited."""
    try:
        with group() as made:
            made.limit(MIB)
    except (OSError, ValueError):
        return False
    return True


def _train(more: int) -> Callable[[Trial], Seen]:
    """So much is left when it begins to compile."""

    def do(trial: Trial) -> Seen:
        with group() as made:
            less = before("tds_jax.engine.loop:Program", functools.partial(made.limit, more))
            return trial.train(made.enter, less)

    return do


def _plan(trial: Trial) -> Seen:
    with group() as made:
        args = [*trial.flags()[:1], "--target=here", "--config.model.hidden=8"]
        return trial.door("plan", args, made.enter, functools.partial(made.limit, 1024 * MIB))


def _worker(trial: Trial) -> Seen:
    """Data workers alone are in the group, which has too little for them to begin to read."""
    trial.settings["data.workers"] = 1
    with group() as made:

        def catch() -> None:
            made.limit(16 * MIB)
            while True:
                for worker in data_workers():
                    with contextlib.suppress(OSError):  # it has been killed
                        made.enter(worker.pid)
                time.sleep(0.02)

        return trial.train(lambda: threading.Thread(target=catch, daemon=True).start())


_FAULTS = [
    *(Fault(f"cgroup of {more // MIB} MiB more, when compiling",
            _train(more), goes_on, (0, 2, -9), task="signal")
      for more in (4 * MIB, 64 * MIB, 512 * MIB)),
    Fault("data workers without memory in their cgroup", _worker, goes_on, (0, 1, 2)),
    Fault("plan in a cgroup of 1 GiB", _plan, nothing, (0,), "MiB less"),
]  # fmt: skip
FAULTS = _FAULTS if may_be_made() else []
