"""The good folder of sessions, and what breaks it: functions folder -> change."""

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

GROUP, RATE, CHANNELS, JOINTS, ROWS = "emg2pose", 250.0, 8, 5, 3000


def good_rows(seed: int, rows: int = ROWS, channels: int = CHANNELS) -> np.ndarray:
    """Rows of a usable session."""
    kind = [("time", "<f8"), ("joint_angles", "<f4", (JOINTS,)), ("emg", "<f4", (channels,))]
    found = np.zeros(rows, kind)
    rng = np.random.default_rng(seed)
    found["time"] = np.arange(rows) / RATE
    found["joint_angles"] = rng.uniform(0.1, 1, (rows, JOINTS))
    found["emg"] = rng.normal(size=(rows, channels))
    return found


def write(
    path: Path,
    rows: np.ndarray,
    group: str = GROUP,
    dataset: str = "timeseries",
    rate: float | str = RATE,
) -> None:
    """One session file; its session name is the file's."""
    with h5py.File(path, "w") as file:
        node = file.create_group(group)
        node.create_dataset(dataset, data=rows)
        node.attrs.update({"sample_rate": rate, "session": path.stem})


def fill(folder: Path, sessions: int = 6) -> Path:
    """A good folder of sessions s0.hdf5, s1.hdf5, …"""
    folder.mkdir(parents=True)
    for i in range(sessions):
        write(folder / f"s{i}.hdf5", good_rows(i))
    return folder


def put(field: str, value: float, *where: object) -> Callable[[Path], None]:
    """A change of s1.hdf5: field[where] = value."""

    def change(folder: Path) -> None:
        rows = good_rows(1)
        rows[field][where] = value
        write(folder / "data" / "s1.hdf5", rows)

    return change


def without(*fields: str) -> Callable[[Path], None]:
    """A change of s1.hdf5: fields left out."""

    def change(folder: Path) -> None:
        rows = good_rows(1)
        kept = [name for name in rows.dtype.names if name not in fields]
        kind = [(name, rows.dtype[name]) for name in kept]
        fewer = np.zeros(len(rows), kind)
        for name in kept:
            fewer[name] = rows[name]
        write(folder / "data" / "s1.hdf5", fewer)

    return change


def session(**changes: object) -> Callable[[Path], None]:
    """s1.hdf5 written with other `write` arguments."""
    return lambda folder: write(folder / "data" / "s1.hdf5", **({"rows": good_rows(1)} | changes))


def text(name: str, content: str) -> Callable[[Path], object]:
    """A text file."""
    return lambda folder: (folder / name).write_text(content)


def truncate(folder: Path) -> None:
    """Half of s1.hdf5."""
    path = folder / "data" / "s1.hdf5"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(folder: Path) -> None:
    """A folder without a file."""
    shutil.rmtree(folder / "data")
    (folder / "data").mkdir()


def one_left(folder: Path) -> None:
    """s0.hdf5 and no other."""
    for i in range(1, 6):
        (folder / "data" / f"s{i}.hdf5").unlink()


def all_failed(folder: Path) -> None:
    """No session has a label."""
    for i in range(6):
        rows = good_rows(i)
        rows["joint_angles"] = 0
        write(folder / "data" / f"s{i}.hdf5", rows)


def no_labels(folder: Path) -> None:
    """A recording to predict for, EMG and time only."""
    rows = good_rows(1)
    fewer = np.zeros(len(rows), [("time", "<f8"), ("emg", "<f4", (CHANNELS,))])
    fewer["time"], fewer["emg"] = rows["time"], rows["emg"]
    write(folder / "emg.hdf5", fewer)


def recording(**changes: object) -> Callable[[Path], None]:
    """x.hdf5 to predict for."""
    return lambda folder: write(folder / "x.hdf5", **({"rows": good_rows(9)} | changes))
