"""Small session files for tests, and the windows they must give, by brute force."""

import os

import h5py
import numpy as np


def make_rows(samples, channels=4, joints=3, seed=0, dtype="<f4", rate=100.0):
    """Structured rows of random EMG and angles; no row is a failure."""
    kind = [("time", "<f8"), ("joint_angles", dtype, (joints,)), ("emg", dtype, (channels,))]
    rows = np.zeros(samples, kind)
    rng = np.random.default_rng(seed)
    rows["time"] = np.arange(samples) / rate
    rows["joint_angles"] = rng.uniform(0.1, 1, (samples, joints)).astype(np.float32)
    rows["emg"] = rng.normal(size=(samples, channels)).astype(np.float32)
    return rows


def write_rows(path, rows, group="emg2pose", name="timeseries", attributes=None, **storage):
    with h5py.File(path, "w") as file:
        target = file.create_group(group)
        target.create_dataset(name, data=rows, **storage)
        found = {"sample_rate": 100.0} if attributes is None else attributes
        for key, value in found.items():
            target.attrs[key] = value
    return os.fspath(path)


def write_folder(folder, lengths, **kwargs):
    """Sessions s0.hdf5, s1.hdf5, … of the given lengths; returns their rows."""
    folder.mkdir(exist_ok=True)
    made = [make_rows(n, seed=i, **kwargs) for i, n in enumerate(lengths)]
    for i, rows in enumerate(made):
        write_rows(
            folder / f"s{i}.hdf5", rows, attributes={"sample_rate": 100.0, "session": f"r{i}"}
        )
    return made
