"""Points to occupied voxels: radar volumes, LiDAR targets, calibration between the two."""

import dataclasses
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tds_jax.data.whole_file import whole_file
from tds_jax.errors import UserError
from tds_jax.sizes import format_bytes
from tds_jax.voxel.data.calibration import moved
from tds_jax.voxel.data.clouds import Cloud
from tds_jax.voxel.data.volumes import GEOMETRY, Volume


@dataclasses.dataclass(frozen=True)
class VoxelGrid:
    """ranges: (x0, x1, y0, y1, z0, z1) metres, upper ends excluded; shape: (X, Y, Z) voxels."""

    ranges: tuple[float, ...]
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, ranges: Sequence[float], resolution: float) -> "VoxelGrid":
        """Cubes of `resolution` metres; UserError when they do not fill the ranges."""
        if len(ranges) != 6 or any(ranges[i] >= ranges[i + 1] for i in (0, 2, 4)):
            raise UserError(
                f"--ranges={tuple(ranges)} must be x0,x1,y0,y1,z0,z1 in metres, each pair rising"
            )
        if resolution <= 0:
            raise UserError(f"--resolution={resolution} must be above 0 metres; 0.2 is usual")
        counts = [(ranges[i + 1] - ranges[i]) / resolution for i in (0, 2, 4)]
        if any(abs(n - round(n)) > 1e-6 * n for n in counts):
            raise UserError(
                f"--resolution={resolution} does not divide --ranges={tuple(ranges)} into whole "
                f"voxels ({', '.join(f'{n:g}' for n in counts)}); change one of them"
            )
        x, y, z = (round(n) for n in counts)
        return cls(tuple(map(float, ranges)), (x, y, z))

    def cells(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of (N, 3) metres: flat voxel numbers of those inside, and which they are (N,) bool."""
        lower = np.array(self.ranges[::2])
        size = (np.array(self.ranges[1::2]) - lower) / self.shape
        index = np.floor((points.astype(np.float64) - lower) / size).astype(np.int64)
        inside = ((index >= 0) & (index < self.shape)).all(axis=1)
        return np.ravel_multi_index(tuple(index[inside].T), self.shape), inside

    def coords(self, cells: np.ndarray) -> np.ndarray:
        """(N, 3) integers (x, y, z) of flat voxel numbers."""
        return np.stack(np.unravel_index(cells, self.shape), axis=1).astype(np.int64)


# Bytes of a training step for each voxel of one example, as plans say of voxel_light: on a CPU
# 27.07 GiB for 600 x 200 x 80 (float32), on an H100 6.02 GiB for 608 x 224 x 96 (bfloat16, tiles).
NEED_CPU, NEED_GPU = 3028, 494
MANY = 2**20  # voxels: 3 GiB


def need_words(shape: Sequence[int]) -> list[str]:
    """A line on what a large grid asks of a training step, for who chooses the grid."""
    voxels = math.prod(shape)
    if voxels < MANY:
        return []
    cpu, gpu = (format_bytes(voxels * need) for need in (NEED_CPU, NEED_GPU))
    return [
        f"a grid of {' x '.join(map(str, shape))} voxels is large: voxel_light needs {cpu} for a "
        f"training step of one example on a CPU, {gpu} on a GPU; python -m tds_jax.plan says what "
        "yours needs, and twice the --resolution of prepare takes an eighth"
    ]


def write_geometry(folder: Path, grid: VoxelGrid) -> None:
    """Writes geometry.json, which tells a folder's readers where its voxels are."""
    geometry = {"ranges": list(grid.ranges), "shape": list(grid.shape)}
    with whole_file(folder / GEOMETRY) as temporary:
        temporary.write_text(json.dumps(geometry) + "\n")


def radar_volume(cloud: Cloud, grid: VoxelGrid, matrix: np.ndarray) -> Volume:
    """Occupancy, mean intensity, mean Doppler and its population variance of each hit voxel.

    matrix: (4, 4) from the radar's to the target's frame. Doppler is that of the points that have
    one, and NaN where none has, for `target_volume`; see `stored`.
    """
    cells, inside = grid.cells(moved(cloud.points, matrix))
    hit, of_hit, counts = np.unique(cells, return_inverse=True, return_counts=True)
    doppler = cloud.doppler[inside].astype(np.float64)
    known = np.isfinite(doppler)
    doppler, by = doppler[known], of_hit[known]
    counts_known = np.bincount(by, minlength=len(counts)).astype(np.float64)
    counts_known[counts_known == 0] = np.nan
    speed = _mean(doppler, by, counts_known)
    # About the mean: E[v²] - E[v]² loses its digits where the spread is small.
    variance = _mean((doppler - speed[by]) ** 2, by, counts_known)
    intensity = _mean(cloud.intensity[inside], of_hit, counts)
    return _volume(grid, hit, intensity, speed, variance)


def stored(radar: Volume) -> Volume:
    """A radar volume as files hold it: Doppler and its variance 0 where none was measured."""
    return dataclasses.replace(radar, features=np.nan_to_num(radar.features))


def target_volume(cloud: Cloud, radar: Volume, grid: VoxelGrid, reach: int) -> Volume:
    """Occupancy and mean reflectivity of each LiDAR voxel, with the radar's Doppler near it.

    Doppler: mean over the radar voxels within `reach` voxels along every axis (1: the 3x3x3
    around), and 1 in the last channel; 0 and 0 where there is none.
    """
    cells, inside = grid.cells(cloud.points.astype(np.float64))
    hit, of_hit, counts = np.unique(cells, return_inverse=True, return_counts=True)
    reflectivity = _mean(cloud.intensity[inside], of_hit, counts)
    doppler, valid = _near(grid.coords(hit), radar, reach)
    return _volume(grid, hit, reflectivity, doppler, valid)


def _near(coords: np.ndarray, radar: Volume, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean Doppler of the radar voxels around each of (N, 3) coords, and whether there is one."""
    sums, counts = np.zeros(len(coords)), np.zeros(len(coords))
    # A border of `reach` voxels all round keeps neighbours of the edge from wrapping over.
    bordered = tuple(n + 2 * reach for n in radar.shape)
    measured = np.isfinite(radar.features[:, 2])
    keys = np.ravel_multi_index(tuple((radar.coords[measured] + reach).T), bordered)
    order = np.argsort(keys)
    keys, values = keys[order], radar.features[measured, 2][order].astype(np.float64)
    steps = range(-reach, reach + 1)
    for offset in itertools.product(steps, steps, steps) if len(keys) else ():
        wanted = np.ravel_multi_index(tuple((coords + reach + offset).T), bordered)
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        found = keys[place] == wanted
        sums += np.where(found, values[place], 0)
        counts += found
    return sums / np.maximum(counts, 1), (counts > 0).astype(np.float64)


def _mean(values: np.ndarray, group: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.bincount(group, values, minlength=len(counts)) / counts


def _volume(grid: VoxelGrid, cells: np.ndarray, *channels: np.ndarray) -> Volume:
    features = np.stack([np.ones(len(cells)), *channels], axis=1).astype(np.float32)
    return Volume(grid.coords(cells), features, grid.shape)
