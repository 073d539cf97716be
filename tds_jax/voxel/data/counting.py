"""What is not as it should be in the points of clouds, counted while they are voxelised."""

import collections
import dataclasses
from pathlib import Path

import numpy as np

from tds_jax.errors import UserError
from tds_jax.voxel.data.clouds import Cloud
from tds_jax.voxel.data.voxelise import VoxelGrid

PLACELESS = 0.9  # share of a cloud's points without a place, at most; organised clouds have many


@dataclasses.dataclass
class PointCounts:
    """Of all clouds read by one call. found: (sensor, what is wrong) -> points."""

    whole: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    found: collections.Counter[tuple[str, str]] = dataclasses.field(
        default_factory=collections.Counter
    )
    clouds: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    unseen: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def read(self, sensor: str, path: Path | str, cloud: Cloud) -> None:
        """Adds a cloud as it was read; UserError where most of its points have no place."""
        whole = len(cloud.points) + cloud.dropped
        if cloud.dropped > PLACELESS * whole:
            raise UserError(
                f"{path}: {cloud.dropped} of {whole} points have NaN or Inf for a coordinate, more "
                f"than {PLACELESS:.0%}; write the points anew, or name the file's columns"
            )
        self.whole[sensor] += whole
        self.found[sensor, "have NaN or Inf for a coordinate and are left out"] += cloud.dropped
        dim = "have NaN or Inf for an intensity, which is 0 in the volumes"
        self.found[sensor, dim] += cloud.dim
        if sensor == "radar":
            silent = int(np.count_nonzero(np.isnan(cloud.doppler)))
            self.found[sensor, "have no Doppler, which is absent from their voxels"] += silent

    def placed(self, sensor: str, points: np.ndarray, grid: VoxelGrid) -> int:
        """Adds which of (N, 3) metres in the grid's frame are outside of it; how many are not."""
        inside = int(np.count_nonzero(grid.cells(points)[1]))
        outside = "are outside of the ranges and left out"
        self.found[sensor, outside] += len(points) - inside
        self.clouds[sensor] += 1
        self.unseen[sensor] += not inside
        return inside

    def lines(self) -> list[str]:
        """A line for what was wrong with points of a sensor, and for clouds without any inside."""
        points = [
            f"{sensor}: {count} of {self.whole[sensor]} points {what}"
            for (sensor, what), count in self.found.items()
            if count
        ]
        return points + [
            f"{sensor}: {count} of {self.clouds[sensor]} clouds have no point inside the ranges"
            for sensor, count in self.unseen.items()
            if count
        ]
