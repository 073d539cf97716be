"""Point clouds of .las and .laz files, by laspy, which is an extra."""

from pathlib import Path

import numpy as np

from tds_jax.errors import UserError


def read(path: Path) -> dict[str, np.ndarray]:
    """Dimension -> (N,): x, y, z as f64 metres, all others as the file holds them; or UserError."""
    try:
        import laspy
    except ImportError as error:
        raise UserError(f"{path}: .las and .laz need laspy: pip install 'tds_jax[las]'") from error
    try:
        points = laspy.read(path)
    except (laspy.LaspyException, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read ({reason}); copy the file again") from error
    places = {axis: np.asarray(getattr(points, axis)) for axis in ("x", "y", "z")}
    others = [name for name in points.point_format.dimension_names if name not in ("X", "Y", "Z")]
    return {name: np.asarray(points[name]) for name in others} | places
