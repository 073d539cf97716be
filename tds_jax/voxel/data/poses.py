"""Where the sensors were at each frame of a scene: poses.txt, in the columns of TUM's files."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from tds_jax.data.unreadable import opening
from tds_jax.data.whole_file import whole_file
from tds_jax.errors import UserError

POSES = "poses.txt"
COLUMNS = "frame x y z qx qy qz qw"


def read_poses(folder: Path) -> dict[str, np.ndarray]:
    """{frame: (4, 4) from the sensors' frame then to one that stands still} of a scene.

    Lines of `COLUMNS`: the frame's name, metres, a quaternion; '#' begins a remark. UserError
    where there is no such file, or a line is none.
    """
    path = folder / POSES
    if not path.exists():
        raise UserError(
            f"{path} is not there, and data.sweeps above 1 needs it: a line '{COLUMNS}' for every "
            "frame; write it, or use data.sweeps=1"
        )
    with opening(str(path)):
        lines = path.read_text().splitlines()
    rows = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    return {row[0]: _matrix(path, row) for row in rows}


def write_poses(folder: Path, poses: Mapping[str, np.ndarray]) -> None:
    """Writes a scene's poses.txt; see `read_poses`."""
    lines = [f"# {COLUMNS}"]
    for name, matrix in poses.items():
        numbers = (*matrix[:3, 3], *Rotation.from_matrix(matrix[:3, :3]).as_quat())
        lines.append(" ".join([name, *(f"{number:.9g}" for number in numbers)]))
    with whole_file(folder / POSES) as temporary:
        temporary.write_text("\n".join(lines) + "\n")


def _matrix(path: Path, row: list[str]) -> np.ndarray:
    try:
        x, y, z, *quaternion = map(float, row[1:])
        rotation = Rotation.from_quat(quaternion).as_matrix()
    except ValueError as error:
        raise UserError(
            f"{path}: line {' '.join(row)!r} is no pose ({error}); write '{COLUMNS}'"
        ) from error
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, (x, y, z)
    return matrix
