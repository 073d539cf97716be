"""Point clouds from files of any ending known here, by their columns' names or a layout."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tds_jax.data import numpy_files
from tds_jax.data.unreadable import opening, reason
from tds_jax.errors import UserError
from tds_jax.fields import require, require_choice
from tds_jax.voxel.data import las, pcd, ply
from tds_jax.voxel.data.plausible import require_plausible

# Column names of files that do not name their columns themselves. A cloud keeps x, y, z,
# intensity and doppler; other names are read past.
LAYOUTS = {
    "kitti": ("x", "y", "z", "intensity"),
    "vod_lidar": ("x", "y", "z", "intensity"),
    "vod_radar": ("x", "y", "z", "intensity", "doppler", "doppler_compensated", "time"),
    "nuscenes_lidar": ("x", "y", "z", "intensity", "ring"),
    "ntu_lidar": ("x", "y", "z", "intensity"),
    "ntu_radar": ("x", "y", "z", "intensity", "doppler"),
}
# What files that name their columns call those that a cloud keeps.
USUAL_NAMES = {
    "intensity": ("intensity", "i", "reflectivity", "reflectance", "rcs", "power", "snr"),
    "doppler": (
        "doppler", "velocity", "v_r", "vr", "radial_velocity", "radial_speed", "range_rate", "v",
        "doppler_m_s",  # as predictions are written
    ),
}  # fmt: skip
NAMED = {".pcd": pcd.read, ".ply": ply.read, ".las": las.read, ".laz": las.read}
ENDINGS = (".npy", ".bin", *NAMED)
WIDE = "float64:"
PREFIX = "scalar_"  # put before names of columns by CloudCompare


@dataclasses.dataclass(frozen=True)
class Cloud:
    """points (N, 3) f32 metres; intensity (N,) f32; doppler (N,) f32 m/s, NaN where not measured.

    dropped: points left out because a coordinate was NaN or Inf. dim: points kept whose intensity
    was, and is 0 here.
    """

    points: np.ndarray
    intensity: np.ndarray
    doppler: np.ndarray
    dropped: int
    dim: int

    @classmethod
    def of(cls, points: np.ndarray, intensity: np.ndarray, doppler: np.ndarray) -> "Cloud":
        """Casts to f32 and leaves out points without a place; a Doppler of Inf is not measured."""
        with np.errstate(over="ignore"):
            rows = np.column_stack([points, intensity, doppler]).astype(np.float32)
        kept = rows[np.isfinite(rows[:, :3]).all(axis=1)]
        light, speed = (np.isfinite(kept[:, column]) for column in (3, 4))
        intensity = np.where(light, kept[:, 3], np.float32(0))
        doppler = np.where(speed, kept[:, 4], np.float32(np.nan))
        dim = int(np.count_nonzero(~light))
        return cls(kept[:, :3], intensity, doppler, len(rows) - len(kept), dim)


def names_of(layout: str) -> tuple[str, ...]:
    """Columns of a key of LAYOUTS, or those written out, 'x,y,z,rcs,…', under a cloud's names.

    'float64:' before them says what a .bin file's numbers are; else they are float32. Raises
    UserError for an unknown key, and where x, y or z is missing or a name comes twice.
    """
    if "," not in layout:
        require_choice("layout", layout, tuple(LAYOUTS))
        return LAYOUTS[layout]
    usual = {other: name for name, others in USUAL_NAMES.items() for other in others}
    names = tuple(usual.get(name, name) for name in _written_out(layout).split(","))
    require(
        {"x", "y", "z"} <= set(names) and len(set(names)) == len(names),
        f"columns {layout!r} must name x, y and z, and nothing twice (intensity and doppler under "
        "any of their usual names)",
    )
    return names


def _written_out(layout: str) -> str:
    return layout.lower().replace(" ", "").removeprefix(WIDE)


def read_cloud(path: str | Path, layout: str) -> Cloud:
    """Reads one file, or UserError. layout: see `names_of`; files that name columns need none."""
    path = Path(path)
    try:
        with opening(str(path)):
            if named := NAMED.get(path.suffix.lower()):
                return _cloud(_known(path, named(path)))
            names = names_of(layout)
            kind = "<f8" if layout.lower().startswith(WIDE) else "<f4"
            return _cloud(_columns(path, _matrix(path, names, np.dtype(kind)), names, layout))
    except EOFError as error:
        raise UserError(f"{path}: cannot be read ({error}); copy the file again") from error


def cloud_of(name: str, points: np.ndarray | Mapping[str, np.ndarray], layout: str) -> Cloud:
    """The cloud of a matrix (N, columns of the layout), or of columns by their names, as in files.

    UserError, beginning with a name, for what is none.
    """
    if not isinstance(points, Mapping):
        return _cloud(_columns(name, points, names_of(layout), layout))
    columns = {str(key): np.asarray(values).ravel() for key, values in points.items()}
    if len(set(map(len, columns.values()))) > 1 or any(
        c.dtype.kind not in "fiu" for c in columns.values()
    ):
        raise UserError(f"{name}: columns must be numbers, one per point in each")
    return _cloud(_known(name, columns))


def _matrix(path: Path, names: tuple[str, ...], kind: np.dtype) -> np.ndarray:
    width = len(names)
    if path.suffix.lower() == ".npy":
        try:
            return numpy_files.array(path)
        except ValueError as error:
            text = f"{path}: not a .npy array ({reason(error)}); copy the file again"
            raise UserError(text) from error
    if path.suffix.lower() != ".bin":
        raise UserError(f"{path}: unknown ending, expected one of {', '.join(ENDINGS)}")
    values = np.fromfile(path, kind)
    if values.size % width or path.stat().st_size % kind.itemsize:
        raise UserError(
            f"{path}: {path.stat().st_size} bytes are no whole points of {width} {kind}; choose "
            f"another layout ({', '.join(LAYOUTS)}) or copy the file again"
        )
    require_plausible(path, values, names)
    return values.reshape(-1, width)


def _columns(
    path: Path | str, matrix: np.ndarray, names: tuple[str, ...], layout: str
) -> dict[str, np.ndarray]:
    if matrix.ndim != 2 or matrix.shape[1] != len(names) or matrix.dtype.kind not in "fiu":
        raise UserError(
            f"{path}: array {matrix.shape} of {matrix.dtype}, layout {layout!r} has the columns "
            f"{', '.join(names)}; choose another of {', '.join(LAYOUTS)}, or x,y,z,… "
            "(of prepare: --radar_columns, --lidar_columns; of predict: --layout)"
        )
    return dict(zip(names, matrix.T, strict=True))


def _cloud(columns: dict[str, np.ndarray]) -> Cloud:
    points = np.column_stack([columns[name] for name in ("x", "y", "z")])
    dark, still = np.zeros(len(points)), np.full(len(points), np.nan)
    return Cloud.of(points, columns.get("intensity", dark), columns.get("doppler", still))


def _known(path: Path | str, columns_of_file: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns under the names that a cloud knows; or UserError."""
    found = {name.lower().removeprefix(PREFIX): values for name, values in columns_of_file.items()}
    if missing := {"x", "y", "z"} - found.keys():
        raise UserError(
            f"{path}: field {sorted(missing)[0]!r} is missing, the file has "
            f"{', '.join(found)}; rename the field"
        )
    columns = {name: found[name] for name in ("x", "y", "z")}
    for name, others in USUAL_NAMES.items():
        present = [other for other in others if other in found]
        if present:
            columns[name] = found[present[0]]
    if "doppler" not in columns and {"vx", "vy"} <= found.keys():
        columns["doppler"] = _along_the_ray(columns, found["vx"], found["vy"])
    return columns


def _along_the_ray(columns: dict[str, np.ndarray], vx: np.ndarray, vy: np.ndarray) -> np.ndarray:
    """The radial part of velocities over ground, away from the sensor positive, m/s."""
    x, y = (columns[name].astype(np.float64) for name in ("x", "y"))
    distance = np.hypot(x, y)
    return np.divide(x * vx + y * vy, distance, np.full(len(x), np.nan), where=distance > 0)
