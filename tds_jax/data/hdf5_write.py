"""Writes one recording in the layout of the public wrist-EMG files."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import h5py
import numpy as np

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
    with h5py.File(path, "w") as file:
        node = file.create_group(group)
        node.attrs.update(attrs)
        rows = node.create_dataset("timeseries", (len(time),), row, compression=compression)
        for start in range(0, len(time), _ROWS_PER_WRITE):
            part = slice(start, min(start + _ROWS_PER_WRITE, len(time)))
            block = np.empty(part.stop - part.start, row)
            block["time"], block["joint_angles"], block["emg"] = (
                time[part],
                joint_angles[part],
                emg[part],
            )
            rows[part] = block


def write_prediction(
    path: str | Path, rows: int, joints: int, blocks: Iterable[tuple[np.ndarray, np.ndarray]]
) -> None:
    """Writes `prediction/time` (rows,) f8 and `prediction/joint_angles` (rows, joints) f4.

    blocks: consecutive (time (n,), joint_angles (n, joints)). The file appears under its name only
    when whole; what was there before stays until then.
    """
    temporary = Path(f"{path}.tmp")
    try:
        with h5py.File(temporary, "w") as file:
            node = file.create_group("prediction")
            time = node.create_dataset("time", (rows,), "<f8")
            angles = node.create_dataset("joint_angles", (rows, joints), "<f4")
            start = 0
            for block_time, block_angles in blocks:
                part = slice(start, start + len(block_time))
                time[part], angles[part] = block_time, block_angles
                start = part.stop
        if start != rows:
            raise ValueError(f"blocks hold {start} rows, expected {rows}")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
