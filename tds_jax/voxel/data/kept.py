"""Volumes that are read from files once and kept, as many as fit in memory."""

import dataclasses
import threading
from typing import Any

import numpy as np

from tds_jax.voxel.data.volumes import Place, Volume, VolumeFiles

OBJECTS = 1024  # bytes of a volume beside its numbers: what it, its arrays and its key are made of


class KeptVolumes(VolumeFiles):
    """`VolumeFiles` whose volumes stay in memory from the first time they are asked for.

    An archive of three small arrays costs most of a millisecond to open, once an epoch. keep_bytes:
    the most that all of them take, with indices of 2 bytes where the grid allows. What comes later
    is read every time: in an order that is new each epoch, to push out the oldest would help no
    more. Threads may read one twice. A copy in another process begins empty.
    """

    def __init__(self, max_open_files: int, chunk_cache_bytes: int, keep_bytes: int) -> None:
        super().__init__(max_open_files, chunk_cache_bytes)
        self._given = max_open_files, chunk_cache_bytes, keep_bytes
        self._free, self._lock = keep_bytes, threading.Lock()
        self._kept: dict[tuple[Place, str], Volume] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return KeptVolumes, self._given

    def read(self, place: Place, kind: str) -> Volume:
        """See `VolumeFiles.read`; features that are kept cannot be written to."""
        kept = self._kept.get((place, kind))
        if kept is None:
            found = super().read(place, kind)
            self._keep((place, kind), found)
            return found
        return dataclasses.replace(kept, coords=kept.coords.astype(np.int64))

    def _keep(self, key: tuple[Place, str], volume: Volume) -> None:
        coords = volume.coords.astype(np.uint16 if max(volume.shape) <= 2**16 else np.int64)
        size = coords.nbytes + volume.features.nbytes + OBJECTS
        with self._lock:
            if key in self._kept or size > self._free:
                return
            self._free -= size
            volume.features.flags.writeable = False
            self._kept[key] = dataclasses.replace(volume, coords=coords)
