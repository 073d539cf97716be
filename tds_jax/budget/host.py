"""Host memory: what is left before the system kills, and what a run will take of it."""

import dataclasses
from pathlib import Path

import psutil

from tds_jax.config import LoaderConfig
from tds_jax.sizes import MIB

# One reading process: interpreter, numpy, grain and h5py, without jax; measured as PSS.
WORKER = 55 * MIB
_CGROUPS = (
    # version 2, then version 1: limit, use, and the name of reclaimable file cache in memory.stat
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)


def available(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes this process can still take: the least of MemAvailable and its cgroups' room."""
    own = Path("/proc/self/cgroup").read_text() if Path("/proc/self/cgroup").exists() else ""
    folders = {root, *(root / line.split("::/")[1] for line in own.split("\n") if "::/" in line)}
    rooms = [
        room
        for folder in folders
        for names in _CGROUPS
        if (room := _cgroup_room(folder, *names)) is not None
    ]
    return min([psutil.virtual_memory().available, *rooms])


def _cgroup_room(root: Path, limit: str, usage: str, cache: str) -> int | None:
    """Limit less use, file cache that can be dropped not counted; None without a limit."""
    try:
        most, used = (root / limit).read_text().strip(), int((root / usage).read_text())
        stat = (root / usage).with_name("memory.stat").read_text()
    except (OSError, ValueError):
        return None
    if most == "max":
        return None
    caches = dict(line.split() for line in stat.splitlines() if len(line.split()) == 2)
    return max(0, int(most) - used + int(caches.get(cache, 0)))


@dataclasses.dataclass(frozen=True)
class HostBytes:
    """A run's predicted host memory.

    runtime: interpreter, libraries and compiled programs. compiling: the most that compiling added
    to it; over before training starts. device: the step's own bytes, where the device is the host.
    workers, prefetch, cache: reading processes, batches read ahead, caches of open files.
    """

    runtime: int
    compiling: int
    device: int
    workers: int
    prefetch: int
    cache: int

    @property
    def training(self) -> int:
        """What training adds to the runtime."""
        return self.device + self.workers + self.prefetch + self.cache

    @property
    def total(self) -> int:
        """The peak: of compiling, or of training."""
        return self.runtime + max(self.compiling, self.training)


def predict(data: LoaderConfig, batch: int, device: int, runtime: int, compiling: int) -> HostBytes:
    """Host memory for loader settings. batch: bytes of a micro-batch; device: 0 unless on host."""
    processes = max(1, data.workers)  # each has its caches and its own batches ahead
    return HostBytes(
        runtime=runtime,
        compiling=compiling,
        device=device,
        workers=data.workers * WORKER,
        prefetch=processes * data.prefetch * batch,
        cache=processes * data.cache_bytes,
    )


def smaller(data: LoaderConfig) -> LoaderConfig | None:
    """The next more frugal loader, which reads the same batches; None when there is none."""
    if data.prefetch > 1:
        return dataclasses.replace(data, prefetch=data.prefetch // 2)
    if data.workers:
        return dataclasses.replace(data, workers=data.workers // 2)
    return None
