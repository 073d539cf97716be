"""Point clouds voxelised once into a store that training reads; goes on where it was killed.

NTU4DRadLM, View-of-Delft and KITTI are known by their folders, see `data.known`; other data need
--radar, --lidar, their layouts or columns, and a calibration.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tds_jax.data import json_file
from tds_jax.data.identity import below, fingerprint
from tds_jax.data.prepared import require_known
from tds_jax.data.whole_file import sweep
from tds_jax.errors import UserError, some
from tds_jax.fields import option, require, require_at_least, require_choice
from tds_jax.progress import Progress
from tds_jax.voxel.data.calibration import (
    NTU_ROTATION,
    NTU_TRANSLATION_M,
    Calibration,
    moved,
    rigid,
)
from tds_jax.voxel.data.clouds import LAYOUTS, Cloud, names_of, read_cloud
from tds_jax.voxel.data.counting import PointCounts
from tds_jax.voxel.data.ground import without_ground
from tds_jax.voxel.data.known import KNOWN, data_set_of
from tds_jax.voxel.data.naming import require_apart
from tds_jax.voxel.data.odometry import TRACK, carry_poses
from tds_jax.voxel.data.pairing import (
    Pair,
    far_apart,
    left_alone,
    pair_clouds,
    read_as,
    write_names,
)
from tds_jax.voxel.data.stores import origin_of, write_store
from tds_jax.voxel.data.volumes import (
    KINDS,
    SETTINGS,
    Volume,
    frames_in,
    write_npz,
)
from tds_jax.voxel.data.voxelise import (
    VoxelGrid,
    need_words,
    radar_volume,
    stored,
    target_volume,
    write_geometry,
)

NAMES = "frames.csv"
NTU_RANGES = (0.0, 120.0, -20.0, 20.0, -6.0, 10.0)


@dataclasses.dataclass(frozen=True)
class Prepare:
    """What the volumes depend on, and how they are stored; the defaults are NTU4DRadLM's."""

    radar: str = option("radar_pcl", "Folder of radar clouds in each scene; '' = LiDAR alone.")
    lidar: str = option("livox_lidar", "Folder of LiDAR clouds in each scene.")
    radar_layout: str = option("ntu_radar", f"Columns: {', '.join(LAYOUTS)}; .pcd names its own.")
    lidar_layout: str = option("ntu_lidar", "The same for LiDAR.")
    radar_columns: str = option(
        "", "Of .bin and .npy, '[float64:]x,y,z,rcs,doppler,…', instead of --radar_layout."
    )
    lidar_columns: str = option("", "The same for LiDAR.")
    ranges: tuple[float, ...] = option(NTU_RANGES, "x0,x1,y0,y1,z0,z1 metres in LiDAR's frame.")
    resolution: float = option(0.2, "Side of a voxel in metres.")
    rotation: tuple[float, ...] = option(
        (), "Radar to LiDAR, 9 numbers row by row; none: NTU4DRadLM's in its folders, else no turn."
    )
    translation: tuple[float, ...] = option((), "Radar to LiDAR in metres, 3 numbers; as above.")
    radar_calibration: str = option(
        "", "KITTI-style file of the radar (Tr_velo_to_cam), or folder of one per cloud."
    )
    lidar_calibration: str = option("", "The same of the LiDAR; goes with the radar's.")
    ground_m: float = option(
        0.0, "Leave out LiDAR points lower than this above the road; 0 = keep all."
    )
    reach: int = option(1, "Voxels around a LiDAR voxel whose radar Doppler it takes.")
    poses: str = option(TRACK, "In each scene, if there: LiDAR's 'time x y z qx qy qz qw'.")
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

    @property
    def calibration(self) -> Calibration:
        """From the radar's to the LiDAR's frame."""
        numbers = self.rotation or tuple(np.eye(3).ravel()), self.translation or (0, 0, 0)
        if self._is_ntu:
            numbers = NTU_ROTATION, NTU_TRANSLATION_M
        return Calibration(rigid(*numbers), self.radar_calibration, self.lidar_calibration)

    @property
    def _is_ntu(self) -> bool:
        """Nothing is said of the calibration, and the sensors are those of NTU4DRadLM."""
        usual = {name: getattr(self, name) for name in KNOWN["NTU4DRadLM"]}
        said = (self.rotation, self.translation, self.radar_calibration, self.radar_columns)
        return usual == KNOWN["NTU4DRadLM"] and not any(said)

    def _of_data_set(self, source: Path) -> tuple["Prepare", list[str]]:
        """These settings, or where they are the default ones those of a known data set."""
        kinds = {name: getattr(self, name) for settings in KNOWN.values() for name in settings}
        usual = {field.name: field.default for field in dataclasses.fields(Prepare)}
        name = data_set_of(source)
        if not name or name == "NTU4DRadLM" or any(kinds[n] != usual[n] for n in kinds):
            return self, self._unsaid()
        job = dataclasses.replace(self, **KNOWN[name])
        said = " ".join(f"--{option}={value}" for option, value in KNOWN[name].items())
        return job, [f"{source}: taken for {name} by its folders: {said}", *job._unsaid()]

    def _unsaid(self) -> list[str]:
        """A line where a calibration is used that nobody has given."""
        if self._is_ntu:
            return ["radar to LiDAR: the calibration of NTU4DRadLM, whose folders these are"]
        if not self.radar or self.rotation or self.translation or self.radar_calibration:
            return []
        return [
            "radar to LiDAR: no calibration is given, so both are taken to be in one frame; if "
            "they are not, give --rotation and --translation, or --radar_calibration and "
            "--lidar_calibration"
        ]

    def run(self, source: Path, target: Path, progress: Progress) -> tuple[int, int, list[str]]:
        """Every scene of a folder, or the folder itself as one scene.

        Returns the number of files written, of files that an earlier call had written, and one line
        for each frame and scene that was left out; what else there is to say is printed. A file
        appears when whole, and is written again when a cloud or calibration of it has changed.
        UserError when the target holds something else, or was made with other settings.
        """
        source = source.resolve()  # a scene is named after its folder, also when that is '.'
        if target.resolve() == source:
            raise UserError(f"--output={target} must be a folder other than --input")
        job, notes = self._of_data_set(source)
        written, kept, skipped, more = job._all_scenes(source, target, progress)
        for line in notes + more + need_words(job.grid.shape):
            print(f"note: {line}", file=sys.stderr)
        return written, kept, skipped

    def _all_scenes(
        self, source: Path, target: Path, progress: Progress
    ) -> tuple[int, int, list[str], list[str]]:
        folders = self._scenes(source)
        scenes, skipped = self._pairs(folders)
        self._claim(target, {folder.name for folder in folders})
        write_names(target / NAMES, scenes)
        total, done = sum(map(len, scenes.values())), 0
        written, kept = 0, 0
        points = PointCounts()
        skipped = skipped + self._left_out(source)
        notes = []
        if self.radar_layout == Prepare.radar_layout and not self.radar_columns:
            notes += read_as(0, scenes, self.radar_layout)
        if self.lidar_layout == Prepare.lidar_layout and not self.lidar_columns:
            notes += read_as(1, scenes, self.lidar_layout)
        for folder, pairs in scenes.items():
            notes += left_alone(folder, self.radar, self.lidar, pairs) + far_apart(folder, pairs)
            place = target / folder.name
            place.mkdir(exist_ok=True)
            notes += carry_poses(folder, self.poses, pairs, place)
            for first, names in self._files(len(pairs)):
                part = pairs[first : first + self._frames_at_once]
                origin = self._origin(folder, part)
                if self._is_done([place / name for name in names], origin, len(part)):
                    kept += len(names)
                else:
                    skipped += self._write(folder, place, names, first, part, points, origin)
                    written += sum((place / name).exists() for name in names)
                done += len(part)
                progress(done, total)
            self._sweep(place, len(pairs))
        return written, kept, skipped, notes + points.lines()

    def _scenes(self, source: Path) -> list[Path]:
        folders = [name for name in (self.radar, self.lidar) if name]
        candidates = sorted(source.iterdir()) if source.is_dir() else []
        candidates = [path for path in candidates if not path.name.startswith(".")]
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
        require_apart(found)
        return found

    def _pairs(self, folders: Sequence[Path]) -> tuple[dict[Path, list[Pair]], list[str]]:
        """The clouds of every scene, and a line for each that has none; UserError if all do."""
        found, wrong = {}, []
        for folder in folders:
            try:
                self.calibration.require_readable(folder)
                found[folder] = pair_clouds(folder, self.radar, self.lidar, self.max_gap_s)
            except UserError as error:
                wrong.append(str(error))
        if not found:
            raise UserError(wrong[0])
        return found, [f"skipped {line}" for line in wrong]

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
        wanted = json.loads(json.dumps(dataclasses.asdict(self)))
        sweep(target)
        # A folder of before an option was there is one of its default.
        if path.exists() and wanted | json_file.read(path, "choose another --output") != wanted:
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

    def _is_done(self, targets: Sequence[Path], origin: str, count: int) -> bool:
        """Whether all targets are there, of these sources, and hold all frames."""
        if any(origin_of(path) != origin for path in targets):
            return False
        # An earlier call may have left some out.
        return self.store != "hdf5" or len(frames_in(targets[0])) == count

    def _origin(self, scene: Path, pairs: Sequence[Pair]) -> str:
        """Fingerprint of the clouds of some frames and of the files that place them."""
        sources = {path for pair in pairs for path in self._sources(scene, *pair)}
        # The others are named when they are read, and left out.
        return fingerprint(below(sorted(str(path) for path in sources if os.access(path, os.R_OK))))

    def _sources(self, scene: Path, radar: Path | None, lidar: Path) -> tuple[Path, ...]:
        if radar is None:
            return (lidar,)
        return radar, lidar, *self.calibration.files(scene, radar, lidar)

    def _write(
        self,
        scene: Path,
        place: Path,
        names: list[str],
        first: int,
        pairs: Sequence[Pair],
        points: PointCounts,
        origin: str,
    ) -> list[str]:
        """Writes the files of some frames; a line for each frame left out. Counts in `points`."""
        skipped, found = [], {}
        for number, pair in enumerate(pairs, start=first):
            try:
                found[f"{number:06d}"] = self._volumes(scene, *pair, points)
            except UserError as error:
                skipped.append(f"skipped {error}")
        if not found:  # what an earlier call made of clouds that have changed since
            for name in names:
                (place / name).unlink(missing_ok=True)
        elif self.store == "hdf5":
            write_store(place / names[0], found, self.grid.shape, origin, self.compression or None)
        else:
            (volumes,) = found.values()
            for name, volume in zip(names, volumes, strict=True):
                (place / name).parent.mkdir(exist_ok=True)
                write_npz(place / name, volume, origin)
        return skipped

    def _volumes(
        self, scene: Path, radar_path: Path | None, lidar_path: Path, points: PointCounts
    ) -> tuple[Volume, Volume]:
        seen, matrix = Cloud.of(np.zeros((0, 3)), np.zeros(0), np.zeros(0)), np.eye(4)
        if radar_path:
            seen = read_cloud(radar_path, self.radar_columns or self.radar_layout)
            points.read("radar", radar_path, seen)
            matrix = self.calibration.matrix(scene, radar_path, lidar_path)
            points.placed("radar", moved(seen.points, matrix), self.grid)
        lidar = read_cloud(lidar_path, self.lidar_columns or self.lidar_layout)
        points.read("LiDAR", lidar_path, lidar)
        lidar = without_ground(lidar, self.ground_m)
        points.placed("LiDAR", lidar.points, self.grid)
        radar = radar_volume(seen, self.grid, matrix)
        target = target_volume(lidar, radar, self.grid, self.reach)
        if not len(target.coords):
            raise UserError(
                f"{lidar_path}: none of its {len(lidar.points)} points is inside --ranges="
                f"{tuple(self.ranges)}"
            )
        return stored(radar), target
