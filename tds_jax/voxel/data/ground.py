"""Points of the road taken out of a LiDAR cloud, so that the target is what stands on it."""

import numpy as np
from scipy.ndimage import grey_erosion

from tds_jax.voxel.data.clouds import Cloud

CELL_M = 1.0
REACH_CELLS = 10  # how far a cell that sees no ground (a wall, a roof) borrows it
STEEPEST = 0.15  # rise per metre that still counts as road


def without_ground(cloud: Cloud, height_m: float) -> Cloud:
    """The points that lie `height_m` or more above the ground below them; all of them if it is 0.

    The ground is the highest surface no steeper than STEEPEST that lies below the lowest points
    (their 5 % quantile, against reflections from below) of all cells of CELL_M within REACH_CELLS.
    """
    if not height_m or not len(cloud.points):
        return cloud
    cells = np.floor(cloud.points[:, :2] / CELL_M).astype(np.int64)
    cells -= cells.min(axis=0)
    shape = cells.max(axis=0) + 1
    flat = np.ravel_multi_index(tuple(cells.T), tuple(shape))
    lowest = np.full(shape.prod(), np.inf)
    order = np.lexsort((cloud.points[:, 2], flat))
    numbers, first, counts = np.unique(flat[order], return_index=True, return_counts=True)
    lowest[numbers] = cloud.points[order[first + counts // 20], 2]
    ground = _lower_envelope(lowest.reshape(shape)).ravel()
    kept = cloud.points[:, 2] >= ground[flat] + height_m
    return Cloud(
        cloud.points[kept], cloud.intensity[kept], cloud.doppler[kept], cloud.dropped, cloud.dim
    )


def _lower_envelope(lowest: np.ndarray) -> np.ndarray:
    """min over cells c of lowest(c) + STEEPEST · distance to c."""
    steps = np.arange(-REACH_CELLS, REACH_CELLS + 1) * CELL_M
    cone = STEEPEST * np.hypot(steps[:, None], steps[None])
    return grey_erosion(lowest, structure=-cone, mode="constant", cval=np.inf)
