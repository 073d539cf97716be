"""Point clouds from .npy, .bin and .pcd files, by the column layouts of the public data sets."""

import dataclasses
import re
from pathlib import Path

import numpy as np

from tds_jax.errors import UserError

# Column names of files that do not name their columns themselves. A cloud keeps x, y, z,
# intensity and doppler; other names are read past.
LAYOUTS = {
    "kitti": ("x", "y", "z", "intensity"),
    "vod_lidar": ("x", "y", "z", "intensity"),
    "vod_radar": ("x", "y", "z", "intensity", "doppler", "doppler_compensated", "time"),
    "ntu_lidar": ("x", "y", "z", "intensity"),
    "ntu_radar": ("x", "y", "z", "intensity", "doppler"),
}
# What .pcd files call the columns that a cloud keeps.
PCD_NAMES = {
    "intensity": ("intensity", "i", "reflectivity", "reflectance", "rcs", "power", "snr"),
    "doppler": ("doppler", "velocity", "v_r", "radial_velocity", "v"),
}
ENDINGS = (".npy", ".bin", ".pcd")


@dataclasses.dataclass(frozen=True)
class Cloud:
    """points (N, 3) f32 metres; intensity (N,) f32; doppler (N,) f32 m/s, 0 where not measured.

    dropped: points left out because a value was NaN or Inf.
    """

    points: np.ndarray
    intensity: np.ndarray
    doppler: np.ndarray
    dropped: int

    @classmethod
    def of(cls, points: np.ndarray, intensity: np.ndarray, doppler: np.ndarray) -> "Cloud":
        """Casts to f32 and leaves out points with NaN or Inf."""
        with np.errstate(over="ignore"):
            rows = np.column_stack([points, intensity, doppler]).astype(np.float32)
        kept = rows[np.isfinite(rows).all(axis=1)]
        return cls(kept[:, :3], kept[:, 3], kept[:, 4], len(rows) - len(kept))


def read_cloud(path: str | Path, layout: str) -> Cloud:
    """Reads one file; layout: a key of LAYOUTS, which .pcd files do not need. Or UserError."""
    path = Path(path)
    try:
        if path.suffix == ".pcd":
            return _cloud(_read_pcd(path))
        return _cloud(_columns(path, _matrix(path, len(LAYOUTS[layout])), layout))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the path") from error
    except (OSError, EOFError) as error:
        raise UserError(f"{path}: cannot be read ({error}); copy the file again") from error


def _matrix(path: Path, width: int) -> np.ndarray:
    if path.suffix == ".npy":
        try:
            return np.load(path, allow_pickle=False)
        except ValueError as error:
            raise UserError(f"{path}: not a .npy array ({error}); copy the file again") from error
    if path.suffix != ".bin":
        raise UserError(f"{path}: unknown ending, expected one of {', '.join(ENDINGS)}")
    values = np.fromfile(path, "<f4")
    if values.size % width or path.stat().st_size % 4:
        raise UserError(
            f"{path}: {path.stat().st_size} bytes are no whole points of {width} float32; choose "
            f"another layout ({', '.join(LAYOUTS)}) or copy the file again"
        )
    return values.reshape(-1, width)


def _columns(path: Path, matrix: np.ndarray, layout: str) -> dict[str, np.ndarray]:
    names = LAYOUTS[layout]
    if matrix.ndim != 2 or matrix.shape[1] != len(names) or matrix.dtype.kind not in "fiu":
        raise UserError(
            f"{path}: array {matrix.shape} of {matrix.dtype}, layout {layout!r} has the columns "
            f"{', '.join(names)}; choose another of {', '.join(LAYOUTS)}"
        )
    return dict(zip(names, matrix.T, strict=True))


def _cloud(columns: dict[str, np.ndarray]) -> Cloud:
    points = np.column_stack([columns[name] for name in ("x", "y", "z")])
    nothing = np.zeros(len(points))
    return Cloud.of(points, columns.get("intensity", nothing), columns.get("doppler", nothing))


def _read_pcd(path: Path) -> dict[str, np.ndarray]:
    """Columns of a PCD v0.7 file, ascii or binary, under the names a cloud knows."""
    header, body = _pcd_header(path)
    try:
        sizes, counts = (list(map(int, header[key])) for key in ("SIZE", "COUNT"))
        points, kind = int(header["POINTS"][0]), header["DATA"][0]
        types = [f"<{t.lower()}{size}" for t, size in zip(header["TYPE"], sizes, strict=True)]
        fields = list(zip(header["FIELDS"], types, [(n,) for n in counts], strict=True))
        # The same name may come twice (padding fields are all called '_').
        row = np.dtype([(f"{i} {name}", *rest) for i, (name, *rest) in enumerate(fields)])
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise UserError(f"{path}: the PCD header is wrong ({error}); write it again") from error
    if kind == "binary":
        if len(body) < points * row.itemsize:
            raise UserError(
                f"{path}: {len(body)} bytes of points, the header says {points} of {row.itemsize}; "
                f"copy the file again"
            )
        rows = np.frombuffer(body, row, points)
        found = {name: rows[f"{i} {name}"][:, 0] for i, (name, *_) in enumerate(fields)}
    elif kind == "ascii":
        found = _ascii(path, body, header["FIELDS"], counts, points)
    else:
        raise UserError(f"{path}: DATA {kind} is not supported; write it as ascii or binary")
    return _known(path, {name.lower(): column for name, column in found.items()})


def _pcd_header(path: Path) -> tuple[dict[str, list[str]], bytes]:
    content = path.read_bytes()
    end = re.search(rb"^DATA .*\n", content, re.MULTILINE)
    if end is None:
        raise UserError(f"{path}: no DATA line, this is no PCD file; replace it or move it away")
    lines = content[: end.end()].decode("ascii", "replace").splitlines()
    words = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    header = {first: rest for first, *rest in words}
    header.setdefault("COUNT", ["1"] * len(header.get("FIELDS", [])))
    return header, content[end.end() :]


def _ascii(
    path: Path, body: bytes, names: list[str], counts: list[int], points: int
) -> dict[str, np.ndarray]:
    values = np.array(body.split(), dtype="S")
    try:
        matrix = values.astype(np.float64).reshape(points, sum(counts))
    except ValueError as error:
        raise UserError(
            f"{path}: {len(values)} numbers, the header says {points} points of {sum(counts)}; "
            f"copy the file again"
        ) from error
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return {name: matrix[:, i] for name, i in zip(names, first, strict=True)}


def _known(path: Path, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if missing := {"x", "y", "z"} - found.keys():
        raise UserError(
            f"{path}: field {sorted(missing)[0]!r} is missing, the file has "
            f"{', '.join(found)}; rename the field"
        )
    columns = {name: found[name] for name in ("x", "y", "z")}
    for name, others in PCD_NAMES.items():
        present = [other for other in others if other in found]
        if present:
            columns[name] = found[present[0]]
    return columns
