"""Point clouds voxelised once into a store that training reads; goes on where it was killed.

Options for the public data sets, beside --task=voxel --input=DIR --output=DIR:
NTU4DRadLM: none. View-of-Delft: --radar=radar/training/velodyne --radar_layout=vod_radar
--lidar=lidar/training/velodyne --lidar_layout=vod_lidar --radar_calibration=FILE
--lidar_calibration=FILE. KITTI: --radar= --lidar=training/velodyne --lidar_layout=kitti.
"""

import collections
import dataclasses
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

from tds_jax.config import option, require, require_at_least, require_choice
from tds_jax.data import json_file
from tds_jax.data.hdf5_write import write_tables
from tds_jax.data.identity import below, fingerprint
from tds_jax.data.prepared import ORIGIN, require_known
from tds_jax.data.whole_file import sweep
from tds_jax.errors import UserError, some
from tds_jax.progress import Progress
from tds_jax.voxel.data.clouds import LAYOUTS, Cloud, names_of, read_cloud
from tds_jax.voxel.data.ground import without_ground
from tds_jax.voxel.data.pairing import Pair, left_alone, pair_clouds
from tds_jax.voxel.data.volumes import (
    CHANNELS,
    FRAME_ROW,
    KINDS,
    VOXEL_ROW,
    Volume,
    write_npz,
)
from tds_jax.voxel.data.voxelise import (
    NTU_ROTATION,
    NTU_TRANSLATION_M,
    VoxelGrid,
    radar_volume,
    rigid,
    stored,
    target_volume,
    write_geometry,
)

SETTINGS = "prepared.json"
PLACELESS = 0.9  # share of a cloud's points without a place, at most; organised clouds have many
Points = collections.Counter[tuple[str, str]]
"""(sensor, what is wrong with them) -> points; (sensor, '') -> all of them."""
NTU_RANGES = (0.0, 120.0, -20.0, 20.0, -6.0, 10.0)


@dataclasses.dataclass(frozen=True)
class Prepare:
    """What the volumes depend on, and how they are stored; the defaults are NTU4DRadLM's."""

    radar: str = option("radar_pcl", "Folder of radar clouds in each scene; '' = LiDAR alone.")
    lidar: str = option("livox_lidar", "Folder of LiDAR clouds in each scene.")
    radar_layout: str = option("ntu_radar", f"Columns: {', '.join(LAYOUTS)}; .pcd names its own.")
    lidar_layout: str = option("ntu_lidar", "The same for LiDAR.")
    radar_columns: str = option(
        "", "Columns of .bin and .npy, 'x,y,z,rcs,doppler,…', instead of --radar_layout."
    )
    lidar_columns: str = option("", "The same for LiDAR.")
    ranges: tuple[float, ...] = option(NTU_RANGES, "x0,x1,y0,y1,z0,z1 metres in LiDAR's frame.")
    resolution: float = option(0.2, "Side of a voxel in metres.")
    rotation: tuple[float, ...] = option(
        (), "Radar to LiDAR, 9 numbers row by row; none: NTU4DRadLM's for ntu_radar, else no turn."
    )
    translation: tuple[float, ...] = option((), "Radar to LiDAR in metres, 3 numbers; as above.")
    radar_calibration: str = option("", "KITTI-style file of the radar (Tr_velo_to_cam).")
    lidar_calibration: str = option("", "KITTI-style file of the LiDAR; goes with the radar's.")
    ground_m: float = option(
        0.0, "Leave out LiDAR points lower than this above the road; 0 = keep all."
    )
    reach: int = option(1, "Voxels around a LiDAR voxel whose radar Doppler it takes.")
    max_gap_s: float = option(0.0, "Time between paired frames, at most; 0 = any.")
    store: str = option("hdf5", "'hdf5', chunked, or 'npz', a file per frame and sensor.")
    frames_per_file: int = option(64, "Of 'hdf5'; so many volumes are in memory at once.")
    compression: str = option("gzip", "Of 'hdf5': 'gzip', 'lzf' or ''.")

    def __post_init__(self) -> None:
        require(bool(self.lidar), "--lidar='' but the target comes from LiDAR; name its folder")
        require_choice("--radar_layout", self.radar_layout, tuple(LAYOUTS))
        require_choice("--lidar_layout", self.lidar_layout, tuple(LAYOUTS))
        for name in ("radar_columns", "lidar_columns"):
            if columns := getattr(self, name):
                require("," in columns, f"--{name}={columns!r} must name columns: x,y,z,…")
                names_of(columns)
        require_choice("--store", self.store, ("hdf5", "npz"))
        require_choice("--compression", self.compression, ("gzip", "lzf", ""))
        require_at_least("--frames_per_file", self.frames_per_file, 1)
        for name in ("reach", "max_gap_s", "ground_m"):
            require_at_least(f"--{name}", getattr(self, name), 0)
        require(
            bool(self.radar_calibration) == bool(self.lidar_calibration),
            "--radar_calibration and --lidar_calibration go together; give both or neither",
        )

    @property
    def grid(self) -> VoxelGrid:
        """Ranges and (X, Y, Z) voxels."""
        return VoxelGrid.of(self.ranges, self.resolution)

    def matrix(self) -> np.ndarray:
        """(4, 4) from the radar's to the LiDAR's frame."""
        if self.radar_calibration:
            radar, lidar = map(read_calibration, (self.radar_calibration, self.lidar_calibration))
            return np.linalg.inv(lidar) @ radar
        is_ntu = (
            self.radar_layout == "ntu_radar"
            and not self.radar_columns
            and not (self.rotation or self.translation)
        )
        rotation = NTU_ROTATION if is_ntu else self.rotation or tuple(np.eye(3).ravel())
        return rigid(rotation, NTU_TRANSLATION_M if is_ntu else self.translation or (0, 0, 0))

    def run(self, source: Path, target: Path, progress: Progress) -> tuple[int, int, list[str]]:
        """Every scene of a folder, or the folder itself as one scene.

        Returns the number of files written, of files that an earlier call had written, and one line
        for each frame, sensor and scene of which something was left out. A file appears when whole,
        and is written again when a cloud of it has changed. UserError when the target holds
        something else, or was made with other settings.
        """
        source = source.resolve()  # a scene is named after its folder, also when that is '.'
        if target.resolve() == source:
            raise UserError(f"--output={target} must be a folder other than --input")
        scenes = {
            folder: pair_clouds(folder, self.radar, self.lidar, self.max_gap_s)
            for folder in self._scenes(source)
        }
        self._claim(target, {folder.name for folder in scenes})
        total, done = sum(map(len, scenes.values())), 0
        written, kept = 0, 0
        points: Points = collections.Counter()
        skipped = self._left_out(source)
        for folder, pairs in scenes.items():
            skipped += left_alone(folder, self.radar, self.lidar, pairs)
            place = target / folder.name
            place.mkdir(exist_ok=True)
            for first, names in self._files(len(pairs)):
                part = pairs[first : first + self._frames_at_once]
                origin = self._origin(part)
                if all(_origin_of(place / name) == origin for name in names):
                    kept += len(names)
                else:
                    skipped += self._write(place, names, first, part, points, origin)
                    written += sum((place / name).exists() for name in names)
                done += len(part)
                progress(done, total)
            self._sweep(place, len(pairs))
        return written, kept, skipped + _of_points(points)

    def _scenes(self, source: Path) -> list[Path]:
        folders = [name for name in (self.radar, self.lidar) if name]
        candidates = sorted(source.iterdir()) if source.is_dir() else []
        found = [
            folder
            for folder in [source, *candidates]
            if all((folder / name).is_dir() for name in folders)
        ]
        if not found:
            raise UserError(
                f"--input={source}: neither it nor a folder in it has "
                f"{' and '.join(f'{name}/' for name in folders)}; set --radar and --lidar"
            )
        return found

    def _left_out(self, source: Path) -> list[str]:
        """A line for each folder that has clouds of one sensor and not of the other."""
        lines = []
        for folder in (path for path in sorted(source.iterdir()) if path.is_dir()):
            names = [name for name in (self.radar, self.lidar) if name]
            absent = [name for name in names if not (folder / name).is_dir()]
            if absent and len(absent) < len(names):
                inside = some(sorted(path.name for path in folder.iterdir()))
                lines.append(f"{folder}: no {absent[0]}/ in it (it holds {inside}); left out")
        return lines

    def _claim(self, target: Path, scenes: set[str]) -> None:
        path = target / SETTINGS
        wanted = json.dumps(dataclasses.asdict(self), indent=1) + "\n"
        sweep(target)
        if path.exists() and path.read_text() != wanted:
            raise UserError(f"{path}: made with other settings; choose another --output")
        if not path.exists() and target.exists() and any(target.iterdir()):
            raise UserError(f"--output={target} is not empty and not from prepare; choose another")
        target.mkdir(parents=True, exist_ok=True)
        require_known(target, (path.name for path in target.iterdir() if path.is_dir()), scenes)
        write_geometry(target, self.grid)
        json_file.write(path, dataclasses.asdict(self))

    @property
    def _frames_at_once(self) -> int:
        return self.frames_per_file if self.store == "hdf5" else 1

    def _files(self, count: int) -> Iterator[tuple[int, list[str]]]:
        """(first frame, names of the files) of every part of a scene."""
        for first in range(0, count, self._frames_at_once):
            last = min(first + self._frames_at_once, count) - 1
            sparse = [f"{folder}/{first:06d}.npz" for folder in KINDS.values()]
            yield first, [f"{first:06d}-{last:06d}.h5"] if self.store == "hdf5" else sparse

    def _sweep(self, place: Path, count: int) -> None:
        """Removes files of an earlier call that ended at another frame."""
        wanted = {place / name for _, names in self._files(count) for name in names}
        for path in (*place.glob("*.h5"), *place.glob("*/*.npz")):
            if path not in wanted:
                path.unlink()

    def _origin(self, pairs: Sequence[Pair]) -> str:
        """Fingerprint of the clouds of some frames and of the files that place them."""
        clouds = [str(path) for pair in pairs for path in pair if path]
        return fingerprint(below(clouds), *self.matrix().ravel().tolist())

    def _write(
        self,
        place: Path,
        names: list[str],
        first: int,
        pairs: Sequence[Pair],
        points: Points,
        origin: str,
    ) -> list[str]:
        """Writes the files of some frames; a line for each frame left out. Counts in `points`."""
        skipped, found = [], {}
        for number, pair in enumerate(pairs, start=first):
            try:
                found[f"{number:06d}"] = self._volumes(*pair, points)
            except UserError as error:
                skipped.append(f"skipped {error}")
        if self.store == "hdf5":
            _write_store(place / names[0], found, self.grid.shape, origin, self.compression or None)
        for volumes in found.values() if self.store == "npz" else ():
            for name, volume in zip(names, volumes, strict=True):
                (place / name).parent.mkdir(exist_ok=True)
                write_npz(place / name, volume, origin)
        return skipped

    def _volumes(
        self, radar_path: Path | None, lidar_path: Path, points: Points
    ) -> tuple[Volume, Volume]:
        seen = Cloud.of(np.zeros((0, 3)), np.zeros(0), np.zeros(0))
        if radar_path:
            seen = read_cloud(radar_path, self.radar_columns or self.radar_layout)
        lidar = read_cloud(lidar_path, self.lidar_columns or self.lidar_layout)
        for sensor, path, cloud in (("radar", radar_path, seen), ("LiDAR", lidar_path, lidar)):
            _count(points, sensor, path, cloud)
        radar = radar_volume(seen, self.grid, self.matrix())
        lidar = without_ground(lidar, self.ground_m)
        target = target_volume(lidar, radar, self.grid, self.reach)
        if not len(target.coords):
            raise UserError(
                f"{lidar_path}: none of its {len(lidar.points)} points is inside --ranges="
                f"{tuple(self.ranges)}"
            )
        return stored(radar), target


def _count(points: Points, sensor: str, path: Path | None, cloud: Cloud) -> None:
    """Adds a cloud's points; UserError where most of them have no place."""
    whole = len(cloud.points) + cloud.dropped
    if cloud.dropped > PLACELESS * whole:
        raise UserError(
            f"{path}: {cloud.dropped} of {whole} points have NaN or Inf for a coordinate, more "
            f"than {PLACELESS:.0%}; write the points anew, or name the file's columns"
        )
    points[sensor, ""] += whole
    points[sensor, "have NaN or Inf for a coordinate and are left out"] += cloud.dropped
    points[sensor, "have NaN or Inf for an intensity, which is 0 in the volumes"] += cloud.dim


def _of_points(points: Points) -> list[str]:
    """A line for what was wrong with points of a sensor, in all clouds read by this call."""
    return [
        f"{sensor}: {count} of {points[sensor, '']} points {what}"
        for (sensor, what), count in points.items()
        if what and count
    ]


def _origin_of(path: Path) -> str:
    """What a prepared file says of itself; '' where there is none that is whole and does."""
    try:
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                return str(arrays.get(ORIGIN, ""))
        with h5py.File(path) as file:
            return str(file["target"].attrs.get(ORIGIN, ""))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return ""


def read_calibration(path: str) -> np.ndarray:
    """(4, 4) of the line 'Tr_velo_to_cam: 12 numbers' in a KITTI-style file; or UserError."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    found = [line.split(":", 1)[1].split() for line in lines if line.startswith("Tr_velo_to_cam:")]
    if len(found) != 1 or len(found[0]) != 12:
        raise UserError(f"{path}: expected one line 'Tr_velo_to_cam: 12 numbers'; check the file")
    rows = np.array(found[0], np.float64).reshape(3, 4)
    return rigid(rows[:, :3].ravel().tolist(), rows[:, 3].tolist())


def _write_store(
    path: Path,
    frames: dict[str, tuple[Volume, Volume]],
    shape: tuple[int, int, int],
    origin: str,
    compression: str | None,
) -> None:
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
