"""Several sweeps of a radar as one: earlier ones moved to where the sensors are now.

What stands still is seen again and again, noise is not, and what moves leaves a trail: a voxel's
channel 0 says how long ago it was last seen.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tds_jax.errors import UserError
from tds_jax.voxel.data.calibration import moved
from tds_jax.voxel.data.naming import frames_of
from tds_jax.voxel.data.poses import POSES, read_poses
from tds_jax.voxel.data.resize import Geometry
from tds_jax.voxel.data.volumes import ENDINGS, Place, Scene, Volume


class Earlier(NamedTuple):
    """A sweep before the one in question. matrix: (4, 4) row by row, from where the sensors were
    then to where they are now."""

    radar: Place
    matrix: tuple[float, ...]


def with_earlier(scene: Scene, folder: Path, sweeps: int) -> Scene:
    """The scene, each frame with the `sweeps` - 1 before it, the last first; fewer at its start.

    UserError where the folder's poses.txt does not know a frame.
    """
    poses = read_poses(folder)
    names = [frame.name for frame in scene.frames]
    _require_known(folder, names, poses)
    frames = [
        dataclasses.replace(
            frame,
            earlier=tuple(
                _earlier(other.radar, poses[other.name], poses[frame.name])
                for other in reversed(scene.frames[max(i - sweeps + 1, 0) : i])
            ),
        )
        for i, frame in enumerate(scene.frames)
    ]
    return dataclasses.replace(scene, frames=tuple(frames))


def before(radar: Path, sweeps: int) -> tuple[Earlier, ...]:
    """What `with_earlier` finds for a volume that lies as a frame of a scene: SCENE/FOLDER/file."""
    beside = frames_of(radar.parent, ENDINGS)
    names = list(beside)
    poses = read_poses(radar.parent.parent)
    own = names.index(radar.stem)
    chosen = names[max(own - sweeps + 1, 0) : own + 1]
    _require_known(radar.parent.parent, chosen, poses)
    return tuple(
        _earlier(Place(str(beside[name])), poses[name], poses[radar.stem])
        for name in reversed(chosen[:-1])
    )


def _require_known(folder: Path, names: Sequence[str], poses: dict[str, np.ndarray]) -> None:
    for name in names:
        if name not in poses:
            raise UserError(f"{folder / POSES} has no line of frame {name!r}; add it")


def _earlier(place: Place, then: np.ndarray, now: np.ndarray) -> Earlier:
    return Earlier(place, tuple(np.ravel(np.linalg.solve(now, then)).tolist()))


def merged(
    newest: Volume, earlier: Sequence[tuple[Volume, np.ndarray]], sweeps: int, geometry: Geometry
) -> Volume:
    """One volume of the newest and earlier ones (with their (4, 4) matrices), the last first.

    A voxel has the values of the newest sweep that sees it, their mean where several of that
    sweep's voxels come to lie in it, and in channel 0 what it had times (sweeps - age) / sweeps.
    Values are as measured then: a Doppler is not that of now.
    """
    taken = np.zeros(newest.shape, bool)
    parts = []
    for age, (volume, matrix) in enumerate([(newest, np.eye(4)), *earlier]):
        coords, features = (
            _moved(volume, matrix, geometry) if age else (volume.coords, volume.features)
        )
        features = features * np.array([(sweeps - age) / sweeps, 1, 1, 1], np.float32)
        free = ~taken[tuple(coords.T)]
        taken[tuple(coords.T)] = True
        parts.append((coords[free], features[free]))
    coords, features = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Volume(coords, features, newest.shape)


def _moved(volume: Volume, matrix: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """(coords, features) of the voxels that a volume's centres come to lie in, on the same grid."""
    lower, size = (np.roll(values, -1) for values in (geometry.lower, geometry.size))  # x, y, z
    points = moved((volume.coords + 0.5) * size + lower, matrix)
    index = np.floor((points - lower) / size).astype(np.int64)
    inside = ((index >= 0) & (index < volume.shape)).all(axis=1)
    flat = np.ravel_multi_index(tuple(index[inside].T), volume.shape)
    cells, of_cell, counts = np.unique(flat, return_inverse=True, return_counts=True)
    sums = np.zeros((len(cells), volume.features.shape[1]))
    np.add.at(sums, of_cell, volume.features[inside])
    means = (sums / counts[:, None]).astype(np.float32)
    return np.stack(np.unravel_index(cells, volume.shape), axis=1), means
