"""What `prepare` writes: stores of many frames, and what each file says of its sources."""

import json
import zipfile
from pathlib import Path

import numpy as np

from tds_jax.data.drive import blame_the_drive
from tds_jax.data.hdf5 import RowFiles
from tds_jax.data.hdf5_write import write_tables
from tds_jax.data.numpy_files import archive
from tds_jax.data.prepared import ORIGIN
from tds_jax.errors import UserError
from tds_jax.voxel.data.volumes import CHANNELS, FRAME_ROW, KINDS, VOXEL_ROW, Volume


def origin_of(path: Path) -> str:
    """What a prepared file says of itself; '' where there is none that is whole and does."""
    if not path.exists():
        return ""
    files = RowFiles(max_open_files=1, chunk_cache_bytes=2**16, chunk_cache_preemption=1.0)
    try:
        if path.suffix == ".npz":
            with archive(path) as arrays:
                return str(arrays.get(ORIGIN, ""))
        return str(files.header(str(path), "target", "voxels").attributes.get(ORIGIN, ""))
    except (OSError, ValueError, zipfile.BadZipFile, UserError) as error:
        blame_the_drive(error, path)
        return ""
    finally:
        files.close()


def write_store(
    path: Path,
    frames: dict[str, tuple[Volume, Volume]],
    shape: tuple[int, int, int],
    origin: str,
    compression: str | None,
) -> None:
    """Writes radar and target volumes by frame name; see `volumes.VolumeFiles` for the reader.

    shape: (X, Y, Z) of them all. origin: see `data.prepared`. compression: a name h5py knows.
    """
    tables: dict[str, np.ndarray] = {}
    attributes: dict[str, str | int | float] = {
        "shape": json.dumps(shape),
        "channels": CHANNELS,
        ORIGIN: origin,
    }
    for side, kind in enumerate(KINDS):
        volumes = [pair[side] for pair in frames.values()]
        ends = np.cumsum([0, *(len(volume.coords) for volume in volumes)])
        index = np.empty(len(volumes), FRAME_ROW)
        index["name"], index["start"], index["stop"] = list(frames), ends[:-1], ends[1:]
        rows = np.empty(ends[-1], VOXEL_ROW)
        for volume, start, stop in zip(volumes, ends[:-1], ends[1:], strict=True):
            rows["coords"][start:stop] = volume.coords
            rows["features"][start:stop] = volume.features
        tables |= {f"{kind}/frames": index, f"{kind}/voxels": rows}
    write_tables(path, tables, attributes, compression)
