"""Predictions for volumes and clouds: sparse volumes, or points in metres."""

import dataclasses
import itertools
import sys
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from tds_jax.data.places import make_folder_for, pair_files, require_new
from tds_jax.data.seeds import key_data
from tds_jax.data.whole_file import whole_file
from tds_jax.engine import processes
from tds_jax.engine.history import UNTOLD, Made
from tds_jax.engine.report import MODEL
from tds_jax.engine.step import compiled
from tds_jax.errors import UserError, some
from tds_jax.fields import option, require_choice, require_ending
from tds_jax.progress import progress_bar
from tds_jax.voxel import arriving
from tds_jax.voxel.arriving import ENDINGS, Arriving, Sample, samples_of
from tds_jax.voxel.data import pcd, ply
from tds_jax.voxel.data.clouds import LAYOUTS
from tds_jax.voxel.data.counting import PointCounts
from tds_jax.voxel.data.known import KNOWN
from tds_jax.voxel.data.sweeps import before, merged
from tds_jax.voxel.data.volumes import KINDS, STORE, TARGET, Place, Volume, VolumeFiles, write_npz
from tds_jax.voxel.evaluation import FIXED, THRESHOLDS, Thresholds
from tds_jax.voxel.methods.latents import fingerprint
from tds_jax.voxel.prepare import Prepare
from tds_jax.voxel.task import VoxelTask

POINTS = {".ply": ply.encoded, ".pcd": pcd.encoded}
FORMATS = ("npz", *(ending[1:] for ending in POINTS))


@dataclasses.dataclass(frozen=True)
class Predict:
    """How clouds come to the run's grid, and what is written of a folder's files."""

    layout: str = option(
        "",
        f"Columns of .bin and .npy clouds: {', '.join(LAYOUTS)}, or x,y,z,rcs,…; '' = as those "
        "that the run's data were prepared from.",
    )
    rotation: tuple[float, ...] = option(
        (), "Radar clouds to the grid's frame, 9 numbers row by row; none: as the run's data."
    )
    translation: tuple[float, ...] = option((), "The same in metres, 3 numbers.")
    format: str = option("npz", "For a folder: 'npz' volumes, or 'ply' or 'pcd' points in metres.")

    def __post_init__(self) -> None:
        require_choice("--format", self.format, FORMATS)

    def run(
        self,
        task: VoxelTask,
        model: nnx.Module,
        source: Path,
        target: Path,
        workdir: Path | None = None,
        made: Made = UNTOLD,
        overwrite: bool = False,
    ) -> list[Path]:
        """Predictions on the model's grid for a file or all of a folder, of a scene or of scenes.

        Generators read the radar, autoencoders targets, which they reconstruct: volumes (.npz,
        .npy), the frames of stores (.h5), named after them, or clouds. Written are the voxels above
        the threshold that the workdir's evaluation calibrated for these weights (without one: above
        0.5, with a warning), features in the files' units with the occupancy's probability as
        channel 0; as .ply or .pcd (by the ending of `target`, or `format`) their centres. Noise is
        a function of the volume alone: neither of its name nor of its folder. `made` is written as
        arrays of .npz, and comments of the others. UserError after all is written, if a file was
        left out. overwrite: replace what is at a prediction's place, which is refused else, before
        anything is computed.
        """
        if not source.is_dir() and source.suffix.lower() != STORE:  # of which a folder is made
            require_ending("--output", target, (".npz", *POINTS))
        samples, lost = self._samples(task, source, target)
        arriving.require_apart(samples)
        require_new([goal for *_, goal in samples], overwrite)
        processes.gather(None)  # nothing is written before all have looked
        total = len(samples) + len(lost)
        are_clouds = [arriving.is_cloud(Path(one.source.path)) for one in samples]
        if not all(are_clouds):
            folder = source if source.is_dir() else source.parent
            arriving.require_place(folder, task.data.native_geometry)
        how = self.arriving(task, any(are_clouds))
        answer = Answering(task, model, workdir)
        own, left_out = _predicted(task, how, answer, samples, made, alone=total == 1)
        how.volumes.close()
        for line in how.points.lines():
            print(f"note: {line}", file=sys.stderr)
        written = list(itertools.chain.from_iterable(processes.gather(own)))
        lost += itertools.chain.from_iterable(processes.gather(left_out))
        if lost:
            raise UserError(
                f"--output={target} has {len(written)} of {total} predictions; left out, see "
                f"above: {some(lost)}"
            )
        return written

    def _samples(
        self, task: VoxelTask, source: Path, target: Path
    ) -> tuple[list[Sample], list[str]]:
        """What is predicted, and the names of stores that cannot be read, which are said."""
        kind = "radar" if task.generates else "target"
        if source.is_file() and source.suffix.lower() == STORE:
            if target.is_file() or target.suffix in (".npz", *POINTS):
                raise UserError(f"--output={target} must be a folder: --input holds many frames")
            return samples_of(source, target / f"of_store.{self.format}", kind), []
        found: list[Sample] = []
        lost = []
        for file, place in self._pairs(task, source, target):
            try:
                found += samples_of(file, place, kind)
            except UserError as error:
                _say_left_out(error)
                lost.append(file.name)
        return found, lost

    def _pairs(self, task: VoxelTask, source: Path, target: Path) -> list[tuple[Path, Path]]:
        if not source.is_dir():
            ending = target.suffix if target.suffix in POINTS else ".npz"
            return pair_files(source, target, ENDINGS, ending)
        known = arriving.prepared_with(task.config.data.path) or Prepare()
        kind, sensor = ("radar", "radar") if task.generates else ("target", "lidar")
        usual = (KINDS[kind], getattr(known, sensor), *(one[sensor] for one in KNOWN.values()))
        pairs = []
        for folder, scene in arriving.folders_of(source, usual):
            if folder != source:
                print(f"note: {folder} is read", file=sys.stderr)
            pairs += pair_files(folder, target / scene, ENDINGS, f".{self.format}")
        return pairs

    def arriving(self, task: VoxelTask, clouds: bool) -> Arriving:
        """How what is given becomes volumes. clouds: whether there are any; says what is assumed of
        them."""
        grid = arriving.grid_of(task.data.native_geometry)
        known = arriving.prepared_with(task.config.data.path) if clouds else None
        layout, calibration = self.layout, arriving.calibration_of(self.rotation, self.translation)
        if known:
            radar = known.radar_columns or known.radar_layout
            lidar = known.lidar_columns or known.lidar_layout
            layout = layout or (radar if task.generates else lidar)
        if known and not (self.rotation or self.translation):
            calibration = known.calibration
        elif clouds and task.generates and not (self.rotation or self.translation):
            print(
                "note: radar clouds are taken to be in the grid's frame, as the run's data tell no "
                "calibration; --rotation and --translation give one",
                file=sys.stderr,
            )
        sensor = "radar" if task.generates else "LiDAR"
        volumes = VolumeFiles(max_open_files=1, chunk_cache_bytes=4 * 2**20)
        return Arriving(sensor, grid, layout, calibration, PointCounts(), volumes)


def _predicted(
    task: VoxelTask,
    how: Arriving,
    answer: "Answering",
    samples: list[Sample],
    made: Made,
    *,
    alone: bool,
) -> tuple[list[Path], list[str]]:
    """(files written, names left out) of this process's share of the samples. alone: there is one,
    and if it cannot be read that is the error."""
    written, left_out = [], []
    own = processes.share(samples)
    with progress_bar("predicting") as progress:
        for done, (name, place, goal) in enumerate(own):
            progress(done, len(own), name)
            try:
                volume = _accumulated(task, how, place)
            except UserError as error:
                if alone:
                    raise
                _say_left_out(error)
                left_out.append(name)
            else:
                _write(goal, answer(volume), made)
                written.append(goal)
    return written, left_out


def _accumulated(task: VoxelTask, how: Arriving, place: Place) -> Volume:
    """A volume, for a model of several sweeps with those before it."""
    newest, sweeps = how.read(place), task.data.sweeps
    if sweeps == 1 or not task.generates:
        return newest
    if place.stop >= 0 or arriving.is_cloud(Path(place.path)):
        raise UserError(
            f"{place.path}: the run merges data.sweeps={sweeps} of the radar; give volumes of a "
            "scene, SCENE/radar_voxel/*.npz, with poses.txt in the scene"
        )
    earlier = [
        (how.read(one.radar), np.reshape(one.matrix, (4, 4)))
        for one in before(Path(place.path), sweeps)
    ]
    return merged(newest, earlier, sweeps, task.data.native_geometry)


def _say_left_out(error: UserError) -> None:
    print(f"warning: left out {error}", file=sys.stderr)


class Found(NamedTuple):
    """What a model sees in a volume: its voxels above the threshold.

    coords (N, 3) integers (x, y, z); features (N, 4) f32 in the files' units, channel 0 the
    occupancy's probability; shape (X, Y, Z) of the grid; points (N, 3) f64 metres, their centres;
    origin (3,) metres of the grid's lowest corner and voxel_size (3,) metres, in the order x, y, z.
    """

    coords: np.ndarray
    features: np.ndarray
    shape: tuple[int, int, int]
    points: np.ndarray
    origin: np.ndarray
    voxel_size: np.ndarray


class Answering:
    """Volume -> `Found` by the model, compiled once, above the threshold that the workdir keeps."""

    def __init__(self, task: VoxelTask, model: nnx.Module, workdir: Path | None) -> None:
        self._task = task
        self._run = compiled(model, lambda model, batch: task.method.volumes(model, batch)[MODEL])
        self._weight = task.data.grid.weight(task.data.volume_shape)
        self._threshold = _threshold(Thresholds.read(workdir) if workdir else None, model)

    def __call__(self, volume: Volume) -> Found:
        """Noise is a function of the volume alone."""
        task, leaf = self._task, "radar" if self._task.generates else "target"
        seen = task.data.grid.arrange(volume, pooled=() if leaf == "radar" else (3,))
        key = key_data(task.config.seed, zlib.crc32(seen.tobytes()))
        batch: dict[str, Any] = {leaf: seen[None], "weight": self._weight[None], "key": key[None]}
        made = np.asarray(self._run(batch)[0])
        full = (made[..., 0] > self._threshold) & (self._weight > 0)
        z, x, y = np.nonzero(full)
        d, h, w = made.shape[:3]
        geometry = task.data.geometry
        place = (np.roll(values, -1) for values in (geometry.lower, geometry.size))  # z is last
        coords = np.stack([x, y, z], axis=1)
        return Found(coords, made[z, x, y], (h, w, d), geometry.points(full), *place)


def _threshold(known: Thresholds | None, model: nnx.Module) -> float:
    if known and known.weights == fingerprint(model):
        return known.of(MODEL)
    why = "was calibrated for other weights" if known else "is not there yet"
    print(
        f"warning: {THRESHOLDS} {why}; voxels above {FIXED} are written, run evaluate to calibrate",
        file=sys.stderr,
    )
    return FIXED


def _write(place: Path, found: Found, made: Made) -> None:
    make_folder_for(place)
    if encoded := POINTS.get(place.suffix):
        columns = dict(zip("xyz", found.points.T, strict=True))
        columns |= dict(zip(TARGET, found.features.T, strict=True))
        with whole_file(place) as temporary:
            temporary.write_bytes(encoded(columns, made))
        return
    write_npz(
        place,
        Volume(found.coords, found.features, found.shape),
        about={"origin_m": found.origin, "voxel_size_m": found.voxel_size, **made},
    )
