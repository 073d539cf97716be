"""What is given to `predict`: volumes as they are, and clouds brought to a run's grid."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tds_jax.data import json_file, numpy_files
from tds_jax.errors import UserError
from tds_jax.voxel.data.calibration import Calibration, moved, rigid
from tds_jax.voxel.data.clouds import ENDINGS as CLOUDS
from tds_jax.voxel.data.clouds import NAMED, Cloud, cloud_of, read_cloud
from tds_jax.voxel.data.counting import PointCounts
from tds_jax.voxel.data.naming import by_number
from tds_jax.voxel.data.resize import Geometry
from tds_jax.voxel.data.source import stored_geometry
from tds_jax.voxel.data.volumes import ENDINGS as VOLUMES
from tds_jax.voxel.data.volumes import (
    SETTINGS,
    STORE,
    Place,
    Volume,
    VolumeFiles,
    checked,
    places_in,
    sparse,
)
from tds_jax.voxel.data.voxelise import VoxelGrid, radar_volume, stored, target_volume
from tds_jax.voxel.prepare import Prepare

ENDINGS = tuple(dict.fromkeys((*VOLUMES, *CLOUDS, STORE)))


class Sample(NamedTuple):
    """What one prediction is made of, and where that goes. name: as people are told of it."""

    name: str
    source: Place
    target: Path


def samples_of(file: Path, target: Path, kind: str) -> list[Sample]:
    """The sample that a file is; of a store of `prepare` its frames, beside `target` by name.

    kind: 'radar' or 'target'. UserError for a store that cannot be read.
    """
    if file.suffix.lower() != STORE:
        return [Sample(file.name, Place(str(file)), target)]
    return [
        Sample(f"{file.name} {name}", place, target.with_name(name + target.suffix))
        for name, place in places_in(file, kind).items()
    ]


def require_apart(samples: Sequence[Sample]) -> None:
    """Raises UserError where two samples would be written to one place."""
    first: dict[Path, Sample] = {}
    for one in samples:
        if first.setdefault(one.target, one) is not one:
            raise UserError(
                f"{one.source.path} and {first[one.target].source.path} both hold what goes to "
                f"{one.target}; remove one, or predict one at a time"
            )


def prepared_with(folder: str) -> Prepare | None:
    """The settings that a folder of volumes was prepared with; None where it does not say."""
    path = Path(folder) / SETTINGS
    if not folder or not path.exists():
        return None
    known = {field.name for field in dataclasses.fields(Prepare)}
    values = json_file.read(path, "prepare the data anew")
    lists: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in values.items()
    }
    return Prepare(**{name: value for name, value in lists.items() if name in known})


def grid_of(native: Geometry) -> VoxelGrid:
    """The grid of volumes whose place is known in array order; its ranges as they were written.

    lower + size · n misses a limit such as 20 by some 1e-15, which could move points that lie on a
    face: twelve digits are what a person writes, at most.
    """
    z, x, y = zip(native.lower, native.size, native.shape, strict=True)
    ends = [(low, low + size * count) for low, size, count in (x, y, z)]
    ranges = tuple(float(f"{limit:.12g}") for pair in ends for limit in pair)
    return VoxelGrid(ranges, (x[2], y[2], z[2]))


def require_place(folder: Path, native: Geometry) -> None:
    """Raises UserError where the volumes of a folder, or of one above, lie elsewhere than a run's.

    Files of another shape have a line of their own.
    """
    at = folder.resolve()
    found = next((one for p in (at, *at.parents[:2]) if (one := stored_geometry(p))), None)
    if found is None or found.shape != native.shape:
        return
    if not np.allclose((found.lower, found.size), (native.lower, native.size), rtol=1e-6):
        raise UserError(
            f"{folder}: its volumes have voxels of {_metres(found.size)} from "
            f"{_metres(found.lower)} on (z, x, y), the model was trained on {_metres(native.size)} "
            f"from {_metres(native.lower)} on; voxelise with the same --ranges and --resolution"
        )


def _metres(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.6g}' for value in values)}) m"


def folders_of(source: Path, names: tuple[str, ...]) -> list[tuple[Path, str]]:
    """(folder of files, its scene's name) below a folder: itself, a scene's, or those of scenes.

    names: what the folder of the sensor may be called in a scene; the first that is there counts.
    Without any, a scene's own folder, where stores of `prepare` are.
    """
    if any(path.suffix.lower() in ENDINGS for path in source.iterdir()):
        return [(source, "")]
    if inside := _first(source, names):
        return [(inside, "")]
    entries = sorted(source.iterdir(), key=lambda path: by_number(path.name))
    found = [(inside, path.name) for path in entries if (inside := _first(path, names))]
    return found or [(source, "")]


def _first(scene: Path, names: tuple[str, ...]) -> Path | None:
    inside = next((scene / name for name in names if name and (scene / name).is_dir()), None)
    has_stores = scene.is_dir() and any(scene.glob(f"[!.]*{STORE}"))
    return inside or (scene if has_stores else None)


@dataclasses.dataclass(frozen=True)
class Arriving:
    """How the samples of a `predict` become volumes. sensor: 'radar' or 'LiDAR'.

    layout: of clouds without names of columns, '' if unknown. calibration: of radar clouds. points:
    counts what is wrong with them. volumes: reads the others.
    """

    sensor: str
    grid: VoxelGrid
    layout: str
    calibration: Calibration
    points: PointCounts
    volumes: VolumeFiles

    def read(self, place: Place) -> Volume:
        """The volume that a place holds or its points make; or UserError."""
        file = Path(place.path)
        if not is_cloud(file):
            kind = "radar" if self.sensor == "radar" else "target"
            return _on(self.grid, file, self.volumes.read(place, kind))
        if not self.layout and file.suffix.lower() not in NAMED:
            raise UserError(
                f"{file}: its columns have no names and the run's data tell none; give --layout"
            )
        return self._voxelised(file, read_cloud(file, self.layout), self._matrix(file))

    def take(self, name: str, x: Any) -> Volume:
        """`read` of what is in memory: an array (X, Y, Z, 4), {'coords', 'features', 'shape'} of a
        sparse volume, an array of points in the columns of the layout, or columns by name."""
        if isinstance(x, Mapping) and "coords" in x:
            arrays = [np.asarray(x[key]) for key in ("coords", "features", "shape")]
            return _on(self.grid, name, checked(name, *arrays))
        if not isinstance(x, Mapping):
            x = np.asarray(x)
            if x.ndim != 2:
                return _on(self.grid, name, sparse(name, x))
            if not self.layout:
                raise UserError(f"{name}: its columns have no names; give layout")
        if self.sensor == "radar" and self.calibration.radar:
            raise UserError(
                f"{name}: the run's scenes have a calibration each, and an array is of none; give "
                "rotation and translation"
            )
        return self._voxelised(name, cloud_of(name, x, self.layout), self._matrix(Path(name)))

    def _voxelised(self, name: Path | str, cloud: Cloud, matrix: np.ndarray) -> Volume:
        self.points.read(self.sensor, name, cloud)
        cloud = dataclasses.replace(cloud, points=moved(cloud.points, matrix))
        inside = self.points.placed(self.sensor, cloud.points, self.grid)
        if len(cloud.points) and not inside:
            raise UserError(
                f"{name}: none of its {len(cloud.points)} points is inside the run's ranges "
                f"{self.grid.ranges}; metres, in the frame of the grid?"
            )
        return self._volume(cloud)

    def _matrix(self, file: Path) -> np.ndarray:
        if self.sensor != "radar":
            return np.eye(4)
        name = self.calibration.radar
        scene = next((p for p in file.resolve().parents if name and (p / name).exists()), Path())
        return self.calibration.matrix(scene, file, file)

    def _volume(self, cloud: Cloud) -> Volume:
        here = np.eye(4)  # the points have been moved
        if self.sensor == "radar":
            return stored(radar_volume(cloud, self.grid, here))
        nothing = Cloud.of(np.zeros((0, 3)), np.zeros(0), np.zeros(0))
        return target_volume(cloud, radar_volume(nothing, self.grid, here), self.grid, 0)


def is_cloud(file: Path) -> bool:
    """By its ending; a .npy of a matrix is one, too."""
    if file.suffix.lower() != ".npy":
        return file.suffix.lower() in CLOUDS
    try:
        return numpy_files.array(file, mapped=True).ndim == 2
    except (ValueError, OSError, EOFError):
        return False  # whoever reads it says what is wrong


def calibration_of(rotation: tuple[float, ...], translation: tuple[float, ...]) -> Calibration:
    """Of numbers; those that are missing turn and move nothing."""
    return Calibration(rigid(rotation or tuple(np.eye(3).ravel()), translation or (0, 0, 0)))


def _on(grid: VoxelGrid, file: Path | str, volume: Volume) -> Volume:
    if volume.shape != grid.shape:
        raise UserError(
            f"{file}: the grid (X, Y, Z) is {volume.shape}, the model was trained on {grid.shape}; "
            "voxelise with the same grid"
        )
    return volume
