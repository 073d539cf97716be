"""Writes recordings in the layout of the public wrist-EMG files, and predictions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from tds_jax.data.whole_file import whole_file

_TABLE_CHUNK = 4096  # rows: a few to tens of a frame's voxels are read together (22 B each: 90 kB)
_ROWS_PER_WRITE = 65_536  # × (8 + 4·20 + 4·16) B = 10 MB of structured rows at a time


def write_session(
    path: str | Path,
    group: str,
    time: np.ndarray,
    joint_angles: np.ndarray,
    emg: np.ndarray,
    attrs: Mapping[str, str | int | float],
    compression: str | None = None,
) -> None:
    """Writes `group`/timeseries: one compound row (time f8, joint_angles f4, emg f4) per sample.

    time: (T,) seconds. joint_angles: (T, J) radians, all-zero rows where labels are missing.
    emg: (T, C). attrs go on the group. compression: None (contiguous, the fastest to read at
    random) or a name h5py knows, such as 'gzip' (chunked by h5py's guess). Overwrites the file.
    Raises ValueError if the three arrays differ in length.
    """
    if not len(time) == len(joint_angles) == len(emg):
        raise ValueError(f"{len(time)=}, {len(joint_angles)=}, {len(emg)=} must be equal")
    row = np.dtype(
        [
            ("time", "<f8"),
            ("joint_angles", "<f4", joint_angles.shape[1:]),
            ("emg", "<f4", emg.shape[1:]),
        ]
    )

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(time), _ROWS_PER_WRITE):
            part = slice(start, min(start + _ROWS_PER_WRITE, len(time)))
            block = np.empty(part.stop - part.start, row)
            block["time"], block["joint_angles"], block["emg"] = (
                time[part],
                joint_angles[part],
                emg[part],
            )
            yield block

    write_rows(path, group, len(time), row, blocks(), attrs, compression)


def write_rows(
    path: str | Path,
    group: str,
    count: int,
    row: np.dtype,
    blocks: Iterable[np.ndarray],
    attrs: Mapping[str, str | int | float],
    compression: str | None = None,
) -> None:
    """Writes `group`/timeseries of `count` rows from consecutive structured blocks of type `row`.

    The file appears under its name only when whole; what was there before stays until then.
    ValueError if the blocks hold another number of rows.
    """
    with whole_file(path) as temporary, h5py.File(temporary, "w") as file:
        node = file.create_group(group)
        node.attrs.update(attrs)
        rows, start = node.create_dataset("timeseries", (count,), row, compression=compression), 0
        for block in blocks:
            rows[start : start + len(block)] = block
            start += len(block)
        _require_rows(start, count)


def _require_rows(found: int, expected: int) -> None:
    if found != expected:
        raise ValueError(f"blocks hold {found} rows, expected {expected}")


def write_prediction(
    path: str | Path,
    rows: int,
    joints: Sequence[str],
    blocks: Iterable[tuple[np.ndarray, np.ndarray]],
    made: Mapping[str, str | int],
) -> None:
    """Writes `prediction/time` (rows,) f8 and `prediction/joint_angles` (rows, joints) f4.

    Both say their units, the latter also the names of its columns, the group what `made` says.
    blocks: consecutive (time (n,), joint_angles (n, joints)). The file appears under its name only
    when whole; what was there before stays until then.
    """
    with whole_file(path) as temporary, h5py.File(temporary, "w") as file:
        node = file.create_group("prediction")
        node.attrs.update(made)
        time = node.create_dataset("time", (rows,), "<f8")
        angles = node.create_dataset("joint_angles", (rows, len(joints)), "<f4")
        time.attrs["units"] = "s"
        angles.attrs.update({"units": "rad", "joint_names": list(joints)})
        start = 0
        for block_time, block_angles in blocks:
            part = slice(start, start + len(block_time))
            time[part], angles[part] = block_time, block_angles
            start = part.stop
        _require_rows(start, rows)


def write_tables(
    path: str | Path,
    tables: Mapping[str, np.ndarray],
    attrs: Mapping[str, str | int | float],
    compression: str | None,
) -> None:
    """Writes structured rows under 'group/dataset' names, chunked; attrs go on every group.

    compression: None or a name h5py knows, such as 'gzip'. The file appears under its name only
    when whole; what was there before stays until then.
    """
    with whole_file(path) as temporary, h5py.File(temporary, "w") as file:
        for name, rows in tables.items():
            # HDF5 has no chunks of an empty table.
            chunks = {"chunks": (min(len(rows), _TABLE_CHUNK),), "compression": compression}
            table = file.create_dataset(name, data=rows, **(chunks if len(rows) else {}))
            table.parent.attrs.update(attrs)
