"""Where the radar stands beside the LiDAR: rigid (4, 4) matrices of numbers or of files."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tds_jax.data.drive import blame_the_drive
from tds_jax.errors import UserError

# Of NTU4DRadLM: p_lidar = R p_radar + T.
NTU_ROTATION = (
    *(0.999928, 0.008716, -0.008397),
    *(-0.008356, 0.999089, 0.041872),
    *(0.008753, -0.041798, 0.999089),
)
NTU_TRANSLATION_M = (0.144833, 0.002794, 0.135302)
ORTHOGONAL_TOLERANCE = 1e-3  # of R Rᵀ: printed calibrations have six digits or fewer
FARTHEST_M = 100.0  # two sensors of one vehicle; more is hardly metres
LINE = "Tr_velo_to_cam:"


def rigid(rotation: Sequence[float], translation: Sequence[float]) -> np.ndarray:
    """(4, 4) matrix of a row-major rotation and a translation in metres; or UserError."""
    matrix = np.eye(4)
    if len(rotation) != 9 or len(translation) != 3:
        raise UserError(
            f"calibration has {len(rotation)} rotation and {len(translation)} translation numbers; "
            f"give 9, row by row, and 3"
        )
    matrix[:3, :3] = np.reshape(rotation, (3, 3))
    matrix[:3, 3] = translation
    error = np.abs(matrix[:3, :3] @ matrix[:3, :3].T - np.eye(3)).max()
    if not error <= ORTHOGONAL_TOLERANCE:  # also NaN
        raise UserError(
            f"calibration rotation {tuple(rotation)} is no rotation (R Rᵀ misses 1 by "
            f"{error:.2g}); give it row by row"
        )
    if np.linalg.det(matrix[:3, :3]) < 0:
        raise UserError(
            f"calibration rotation {tuple(rotation)} is no rotation: it mirrors an axis (its "
            f"determinant is -1), as no sensor can turn; check the signs of its rows"
        )
    if not np.abs(matrix[:3, 3]).max() <= FARTHEST_M:
        raise UserError(
            f"calibration translation {tuple(translation)} is not within {FARTHEST_M:g} m; give "
            f"three numbers in metres"
        )
    return matrix


def moved(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(N, 3) f64 points through a (4, 4) rigid transform."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def read_calibration(path: str | Path) -> np.ndarray:
    """(4, 4) of the line 'Tr_velo_to_cam: 12 numbers' in a KITTI-style file; or UserError."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        blame_the_drive(error, path)
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    found = [line.removeprefix(LINE).split() for line in lines if line.startswith(LINE)]
    try:
        (numbers,) = found
        rows = np.array(numbers, np.float64).reshape(3, 4)
    except ValueError as error:
        raise UserError(f"{path}: expected one line '{LINE} 12 numbers'; check the file") from error
    try:
        return rigid(rows[:, :3].ravel().tolist(), rows[:, 3].tolist())
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The radar beside the LiDAR: `fixed` in all frames, or as files of both sensors say.

    radar, lidar: a file for all frames, or a folder of one per frame, NAME.txt beside the cloud
    NAME; in the scene, or any other path. '' with `fixed`.
    """

    fixed: np.ndarray
    radar: str = ""
    lidar: str = ""

    def files(self, scene: Path, radar: Path, lidar: Path) -> tuple[Path, ...]:
        """What the matrix of a pair of clouds is read from, the radar's first."""
        sides = ((self.radar, radar), (self.lidar, lidar))
        return tuple(_file(scene, name, cloud) for name, cloud in sides if name)

    def matrix(self, scene: Path, radar: Path, lidar: Path) -> np.ndarray:
        """(4, 4) from the radar's to the LiDAR's frame, for a pair of clouds; or UserError."""
        if not self.radar:
            return self.fixed
        of_radar, of_lidar = map(read_calibration, self.files(scene, radar, lidar))
        return np.linalg.inv(of_lidar) @ of_radar

    def require_readable(self, scene: Path) -> None:
        """Raises UserError for a file that holds for a whole scene, or a folder that is none."""
        for name in (self.radar, self.lidar):
            if name and not _place(scene, name).is_dir():
                read_calibration(_place(scene, name))


def _place(scene: Path, name: str) -> Path:
    return scene / name if (scene / name).exists() else Path(name)


def _file(scene: Path, name: str, cloud: Path) -> Path:
    place = _place(scene, name)
    return place / f"{cloud.stem}.txt" if place.is_dir() else place
