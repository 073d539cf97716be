"""Host memory: what is left before the system kills, and what a run will take of it."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import psutil

from tds_jax.config import LoaderConfig
from tds_jax.sizes import MIB

# One reading process: interpreter, numpy, grain and h5py, without jax; measured as PSS.
WORKER = 55 * MIB
# Of cgroups: limit, use, and the name of reclaimable file cache in memory.stat.
_FIRST = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_SECOND = ("memory.max", "memory.current", "inactive_file")


def available(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Bytes this process can still take: the least of MemAvailable and its cgroups' room."""
    rooms = [
        room
        for folder, names in _cgroups(root, own.read_text() if own.exists() else "")
        if (room := _cgroup_room(folder, *names)) is not None
    ]
    return min([psutil.virtual_memory().available, *rooms])


def _cgroups(root: Path, own: str) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """The groups that limit a process, each with the names of its version; they may not be there.

    own: lines 'number:controllers:path', without controllers in version 2. All groups above count,
    and what is mounted counts where a container sees its own group alone, under the host's path.
    """
    groups = [(root, "", _SECOND), (root / "memory", "", _FIRST)]
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            groups.append((root, path.strip("/"), _SECOND))
        elif "memory" in controllers.split(","):
            groups.append((root / "memory", path.strip("/"), _FIRST))
    for top, path, names in groups:
        inside = Path(path)
        yield from ((top / folder, names) for folder in (inside, *inside.parents))


def _cgroup_room(folder: Path, limit: str, usage: str, cache: str) -> int | None:
    """Limit less use, file cache that can be dropped not counted; None without a limit."""
    try:
        most, used = (folder / limit).read_text().strip(), int((folder / usage).read_text())
        stat = (folder / "memory.stat").read_text()
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
    processes = max(1, data.workers)  # each has its own batches ahead
    readers = data.workers + 1  # each has its caches: this process, too, reads statistics
    return HostBytes(
        runtime=runtime,
        compiling=compiling,
        device=device,
        workers=data.workers * WORKER,
        prefetch=processes * data.prefetch * batch,
        cache=readers * data.cache_bytes,
    )


def smaller(data: LoaderConfig) -> LoaderConfig | None:
    """The next more frugal loader, which reads the same batches; None when there is none."""
    if data.prefetch > 1:
        return dataclasses.replace(data, prefetch=data.prefetch // 2)
    if data.workers:
        return dataclasses.replace(data, workers=data.workers // 2)
    return None
