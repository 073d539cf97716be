"""Parts of one's own, as a user writes them."""

import csv
from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx


class Joints(nnx.Module):
    """(B, T, C) -> (B, T - 8, J): a linear map of the last 9 samples of every electrode."""

    left_context = 8

    def __init__(self, num_channels, num_joints, hidden, dtype, rngs):
        del dtype
        self.up = nnx.Conv(num_channels, hidden, (9,), padding="VALID", rngs=rngs)
        self.down = nnx.Linear(hidden, num_joints, rngs=rngs)

    def __call__(self, emg, keys):
        del keys
        return self.down(jnp.tanh(self.up(emg)))


class Days(nnx.Module):
    """(B, T, H, W, C) -> (B, L, H, W): each lead a linear map of all a cell's days."""

    def __init__(self, num_channels, leads, rngs, days=4):
        self.linear = nnx.Linear(days * num_channels, leads, rngs=rngs)

    def __call__(self, x, train, keys):
        del train, keys
        cells = jnp.moveaxis(x, 1, 3).reshape(x.shape[0], *x.shape[2:4], -1)
        return jnp.moveaxis(self.linear(cells), -1, 1)


class TooMany(Joints):
    def __call__(self, emg, keys):
        return super().__call__(emg, keys)[:, :-1]


class Other:
    """No module of flax."""


def needs_more(num_channels, colour):
    return num_channels, colour


NUMBER = 3


def smooth(poses, target):
    """(B, N) squared error, and squared change of it from row to row."""
    error = poses - target
    change = jnp.pad(jnp.diff(error, axis=1), ((0, 0), (1, 0), (0, 0)))
    return jnp.mean(error**2 + change**2, axis=-1)


def worst(poses, target):
    """(B, N) largest error of a joint."""
    return jnp.max(jnp.abs(poses - target), axis=-1)


def flat(poses, target):
    """One number for a whole batch, which cannot be accumulated."""
    return jnp.mean((poses - target) ** 2)


def biased(prediction, target):
    """(B, L, H, W) squared error, too much counting twice."""
    error = prediction - target
    return jnp.where(error > 0, 2.0, 1.0) * jax.lax.square(error)


class Recordings:
    """The recordings of a folder of s0.hdf5 …, and the splits that its metadata.csv says."""

    def __init__(self, path):
        self.folder = Path(path)
        self.rows = list(csv.DictReader((self.folder / "metadata.csv").read_text().splitlines()))
        self.unpicklable = lambda: None

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, number):
        with h5py.File(self.folder / f"{self.rows[number]['filename']}.hdf5") as file:
            rows = file["emg2pose/timeseries"][:]
        arrays = {name: rows[name] for name in ("emg", "joint_angles")}
        return arrays | {"sample_rate": 100.0, "user": f"u{number % 2}"} | self.rows[number]


class Broken(Recordings):
    def __getitem__(self, number):
        return {"emg": np.zeros((400, 4), "f4"), "sample_rate": 100.0, "split": "training"}


class Failing(Recordings):
    def __getitem__(self, number):
        raise OSError("the disk is gone")


def fields(path):
    """The dataset of a file, whose values are read when needed."""
    return xr.open_dataset(path)


class Volumes:
    """The pairs of a folder of scenes: sparse radar, dense target."""

    def __init__(self, path):
        self.radar = sorted(Path(path).glob("*/radar_voxel/*.npz"))

    def __len__(self):
        return len(self.radar)

    def scene(self, number):
        return self.radar[number].parts[-3]

    def __getitem__(self, number):
        place = self.radar[number]
        radar, target = (
            dict(np.load(p)) for p in (place, place.parents[1] / "target_voxel" / place.name)
        )
        dense = np.zeros(target["shape"], "f4")
        dense[tuple(target["coords"].T)] = target["features"]
        return {"radar": radar, "target": dense}


class Cells(nnx.Module):
    """(B, D, H, W, 4) -> the same: what a cell and the one above say of it."""

    def __init__(self, num_channels, base, rngs):
        self.see = nnx.Linear(2 * num_channels, base, rngs=rngs)
        self.say = nnx.Linear(base, num_channels, rngs=rngs)

    def __call__(self, radar, keys):
        del keys
        both = jnp.concatenate([radar, jnp.roll(radar, -1, axis=1)], axis=-1)
        return self.say(nnx.relu(self.see(both)))
