"""Generated drives through streets, in the layout of the preprocessed radar recordings.

They show that training works; no number on them says anything of real radars.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from tds_jax.data.crew import Crew
from tds_jax.data.generated import synthesize
from tds_jax.fields import option, require, require_at_least, require_between
from tds_jax.progress import Progress
from tds_jax.voxel.data.calibration import NTU_ROTATION, NTU_TRANSLATION_M, moved, rigid
from tds_jax.voxel.data.clouds import Cloud
from tds_jax.voxel.data.poses import write_poses
from tds_jax.voxel.data.streets import (
    RadarNoise,
    lidar_cloud,
    radar_cloud,
    random_street,
    surfaces,
)
from tds_jax.voxel.data.volumes import KINDS, write_npz
from tds_jax.voxel.data.voxelise import (
    VoxelGrid,
    radar_volume,
    target_volume,
    write_geometry,
)

RADAR_FOLDER, LIDAR_FOLDER = "radar_pcl", "livox_lidar"  # as NTU4DRadLM names them


@dataclasses.dataclass(frozen=True)
class Simulation:
    """Everything the generated data depend on."""

    kind: ClassVar[str] = "synthetic_voxel"

    scenes: int = option(12, "Streets, each with traffic of its own; splits are by scene.")
    frames: int = option(24, "Frames per street.")
    seconds_per_frame: float = option(0.5, "Between frames; the car drives 4-10 m/s.")
    depth: int = option(16, "Voxels upwards (Z).")
    height: int = option(64, "Voxels forwards (X).")
    width: int = option(64, "Voxels sideways (Y).")
    ranges: tuple[float, ...] = option(
        (0.0, 32.0, -16.0, 16.0, -2.0, 6.0), "x0,x1,y0,y1,z0,z1 metres around the sensors."
    )
    detections_per_m2: float = option(0.35, "Radar detections on a wall near by.")
    missed: float = option(0.2, "Share of objects that the radar misses in a frame.")
    clutter: float = option(20.0, "False radar points per frame, on average.")
    distance_noise_m: float = option(0.15, "Standard deviation of the radar's distances.")
    azimuth_noise_deg: float = option(1.0, "Standard deviation of the radar's azimuths.")
    elevation_noise_deg: float = option(1.5, "Standard deviation of the radar's elevations.")
    doppler_noise_m_s: float = option(0.1, "Standard deviation of the radar's Doppler.")
    intensity_noise_db: float = option(3.0, "Standard deviation of the radar's intensity.")
    veiled: float = option(0.4, "Radar detections of what only vehicles hide, relative to others.")
    ghosts: float = option(0.3, "Share of the mirror images in walls that the radar hears.")
    clouds: bool = option(False, "Write raw point clouds, for tds_jax.prepare, not volumes.")
    seed: int = option(0, "The same gives the same bytes.")

    def __post_init__(self) -> None:
        for name in ("scenes", "frames", "depth", "height", "width"):
            require_at_least(f"synthetic {name}", getattr(self, name), 1)
        for name in ("clutter", "seed", *(n for n in self.__dict__ if "_noise_" in n)):
            require_at_least(f"synthetic {name}", getattr(self, name), 0)
        for name in ("missed", "veiled", "ghosts"):
            require_between(f"synthetic {name}", getattr(self, name), 0, 1)
        for name in ("detections_per_m2", "seconds_per_frame"):
            value = getattr(self, name)
            require(value > 0, f"synthetic {name}={value} must be above 0")
        pairs = list(zip(self.ranges[::2], self.ranges[1::2], strict=False))
        require(
            len(self.ranges) == 6 and all(low < high for low, high in pairs),
            f"synthetic ranges={self.ranges} must be x0,x1,y0,y1,z0,z1 metres, each pair rising",
        )

    @property
    def grid(self) -> VoxelGrid:
        """Ranges and (X, Y, Z) voxels."""
        return VoxelGrid(self.ranges, (self.height, self.width, self.depth))

    @property
    def noise(self) -> RadarNoise:
        """What the radar does to the points it sees."""
        return RadarNoise(
            self.detections_per_m2,
            self.missed,
            self.clutter,
            self.distance_noise_m,
            self.azimuth_noise_deg,
            self.elevation_noise_deg,
            self.doppler_noise_m_s,
            self.intensity_noise_db,
            self.veiled,
            self.ghosts,
        )

    def run(self, target: Path, progress: Progress) -> Path:
        """Writes the data set into a folder; see `synthesize`."""
        return synthesize(target, self, progress)

    def build(self, folder: Path, progress: Progress, crew: Crew) -> None:
        """A folder per scene; progress is told after every frame."""
        write = _write_clouds if self.clouds else _write_volumes
        own = crew.share(range(self.scenes))
        for done, scene in enumerate(own):
            for frame in write(folder / f"street{scene:02d}", self, scene):
                progress(done * self.frames + frame + 1, len(own) * self.frames)
        if crew.first and not self.clouds:
            write_geometry(folder, self.grid)


class Moment(NamedTuple):
    """A frame of a drive: metres driven along x so far, and what both sensors see."""

    seconds: float
    metres: float
    radar: Cloud
    lidar: Cloud


def drive(simulation: Simulation, scene: int) -> Iterator[Moment]:
    """Every frame of a scene; depends on nothing but the arguments."""
    rng = np.random.default_rng((simulation.seed, scene))
    speed, ranges = rng.uniform(4.0, 10.0), simulation.ranges
    seconds = np.arange(simulation.frames) * simulation.seconds_per_frame
    street = random_street(ranges[1] + speed * seconds[-1], rng)
    # Two points across the smallest voxel side, so that no voxel of a face is skipped.
    x, y, z = simulation.grid.shape
    sides = np.diff(np.reshape(ranges, (3, 2)), axis=1)[:, 0] / (x, y, z)
    spacing = float(sides.min()) / 2
    for moment in seconds.tolist():
        boxes = street.at(moment, speed * moment).within(ranges)
        seen, veiled = surfaces(boxes, spacing)
        lidar = lidar_cloud(boxes, seen, rng)
        noise = simulation.noise
        radar = radar_cloud(boxes, seen, veiled, spacing, speed, noise, ranges, rng)
        yield Moment(moment, speed * moment, radar, lidar)


def _write_volumes(folder: Path, simulation: Simulation, scene: int) -> Iterator[int]:
    """A scene as sparse .npz with its poses; gives each frame's number once it is written."""
    places = {kind: folder / name for kind, name in KINDS.items()}
    for place in places.values():
        place.mkdir(parents=True)
    poses = {}
    for frame, moment in enumerate(drive(simulation, scene)):
        radar = radar_volume(moment.radar, simulation.grid, np.eye(4))
        target = target_volume(moment.lidar, radar, simulation.grid, reach=1)
        write_npz(places["radar"] / f"{frame:06d}.npz", radar)
        write_npz(places["target"] / f"{frame:06d}.npz", target)
        poses[f"{frame:06d}"] = rigid(np.eye(3).ravel().tolist(), (moment.metres, 0.0, 0.0))
        yield frame
    write_poses(folder, poses)


def _write_clouds(folder: Path, simulation: Simulation, scene: int) -> Iterator[int]:
    """A scene as raw point clouds named by time, each in its own sensor's frame."""
    for name in (RADAR_FOLDER, LIDAR_FOLDER):
        (folder / name).mkdir(parents=True)
    to_radar = np.linalg.inv(rigid(NTU_ROTATION, NTU_TRANSLATION_M))
    for frame, (seconds, _, radar, lidar) in enumerate(drive(simulation, scene)):
        points = moved(radar.points, to_radar)
        rows = np.column_stack([points, radar.intensity, radar.doppler]).astype(np.float32)
        np.save(folder / RADAR_FOLDER / f"{seconds:.6f}.npy", rows)
        rows = np.column_stack([lidar.points, lidar.intensity])
        np.save(folder / LIDAR_FOLDER / f"{seconds:.6f}.npy", rows)
        yield frame
