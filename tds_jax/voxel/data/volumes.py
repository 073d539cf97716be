"""Volumes on disk: sparse .npz, dense .npy or chunked HDF5; scenes and their pairs of frames.

Files index voxels (x, y, z) with the channel last, x forward and y to the left; arrays in memory
are (D, H, W, C) = (Z, X, Y, C), float32.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from tds_jax.data import numpy_files
from tds_jax.data.hdf5 import RowFiles
from tds_jax.data.order import by_number
from tds_jax.data.prepared import ORIGIN
from tds_jax.data.unreadable import naming, opening
from tds_jax.data.whole_file import whole_file
from tds_jax.errors import UserError, some
from tds_jax.voxel.data.naming import frames_of, require_apart

CHANNELS = 4
RADAR = ("occupancy", "intensity", "doppler_m_s", "doppler_variance")
TARGET = ("occupancy", "reflectivity", "doppler_m_s", "doppler_valid")
KINDS = {"radar": "radar_voxel", "target": "target_voxel"}
GEOMETRY, SETTINGS = "geometry.json", "prepared.json"
ENDINGS, STORE = (".npz", ".npy"), ".h5"
VOXEL_ROW = np.dtype([("coords", "<u2", (3,)), ("features", "<f4", (CHANNELS,))])
FRAME_ROW = np.dtype([("name", "S64"), ("start", "<i8"), ("stop", "<i8")])


@dataclasses.dataclass(frozen=True)
class Volume:
    """Occupied voxels: coords (N, 3) integers (x, y, z), features (N, 4) f32, shape (X, Y, Z).

    Channel 0 of features is above 0 everywhere: 1 for occupied.
    """

    coords: np.ndarray
    features: np.ndarray
    shape: tuple[int, int, int]

    def dense(self, shape: tuple[int, ...] = ()) -> np.ndarray:
        """(D, H, W, 4) f32, zeros where nothing is; a larger `shape` (D, H, W) pads at the ends."""
        x, y, z = self.shape
        array = np.zeros((*(shape or (z, x, y)), CHANNELS), np.float32)
        x, y, z = self.coords.T
        array[z, x, y] = self.features
        return array


class Place(NamedTuple):
    """Where a volume is: a file, or rows [start, stop) of a store (stop < 0: the whole file)."""

    path: str
    start: int = 0
    stop: int = -1


@dataclasses.dataclass(frozen=True)
class Frame:
    """One moment of a scene, seen by the radar and as the target.

    earlier: (where a radar volume before it is, (4, 4) matrix row by row from there to here), the
    last first; see `sweeps`.
    """

    scene: str
    name: str
    radar: Place
    target: Place
    earlier: tuple[tuple[Place, tuple[float, ...]], ...] = ()


@dataclasses.dataclass(frozen=True)
class Scene:
    """A recording: its frames in time order, and names of frames that only one side has.

    problems: a line for each store whose frames cannot be told.
    """

    name: str
    frames: tuple[Frame, ...]
    unpaired: tuple[str, ...]
    problems: tuple[str, ...] = ()


class VolumeFiles:
    """Reads volumes; picklable, and opens files when asked."""

    def __init__(self, max_open_files: int, chunk_cache_bytes: int) -> None:
        self._stores = RowFiles(max_open_files, chunk_cache_bytes, chunk_cache_preemption=1.0)

    def read(self, place: Place, kind: str) -> Volume:
        """The volume of a place; kind: 'radar' or 'target'. UserError names what is wrong."""
        if place.stop < 0:
            return read_volume(place.path)
        header = self._stores.header(place.path, kind, "voxels")
        rows = self._stores.raw(place.path, kind, "voxels", place.start, place.stop)
        with naming(place.path, f"the shape of {kind} "):
            shape = np.array([*json.loads(str(header.attributes["shape"])), CHANNELS], np.int64)
        return checked(f"{place.path}: {kind}", rows["coords"], rows["features"], shape)

    def close(self) -> None:
        """Closes this process's stores; the next read opens them again."""
        self._stores.close()


def read_volume(path: str) -> Volume:
    """A sparse .npz (coords, features, shape) or a dense .npy (X, Y, Z, 4); or UserError."""
    with naming(path), opening(path):
        if path.lower().endswith(".npy"):
            return sparse(path, numpy_files.array(path, mapped=True))
        with numpy_files.archive(path) as arrays:
            missing = {"coords", "features", "shape"} - set(arrays)
            if missing:
                raise UserError(
                    f"{path}: array {sorted(missing)[0]!r} is missing, the file has "
                    f"{sorted(arrays)}; write coords, features and shape"
                )
            return checked(path, arrays["coords"], arrays["features"], arrays["shape"])


def sparse(path: str, array: np.ndarray) -> Volume:
    """The volume of a dense array (X, Y, Z, 4); UserError, beginning with a path, for another."""
    if array.ndim != 4 or array.shape[3] != CHANNELS:
        raise UserError(
            f"{path}: shape {array.shape}, expected (X, Y, Z, {CHANNELS}); write the channel last"
        )
    coords = np.argwhere((array[..., 0] > 0) | np.isnan(array[..., 0]))
    return checked(path, coords, array[tuple(coords.T)], np.array(array.shape))


def checked(path: str, coords: np.ndarray, features: np.ndarray, shape: np.ndarray) -> Volume:
    """The volume of the arrays of a sparse file; UserError, beginning with a path, for others."""
    if coords.ndim != 2 or coords.shape[1] != 3 or features.shape != (len(coords), CHANNELS):
        raise UserError(
            f"{path}: coords {coords.shape} and features {features.shape}, expected (N, 3) and "
            f"(N, {CHANNELS}); write one row per occupied voxel in both"
        )
    if shape.shape != (4,) or shape[3] != CHANNELS or (shape < 1).any():
        raise UserError(
            f"{path}: shape {shape.tolist()}, expected [X, Y, Z, {CHANNELS}]; rewrite the file"
        )
    if len(coords) and ((coords < 0) | (coords >= shape[:3])).any():
        raise UserError(
            f"{path}: coords from {coords.min(axis=0).tolist()} to {coords.max(axis=0).tolist()} "
            f"leave the grid {shape[:3].tolist()}; voxelise with one grid for all frames"
        )
    features = np.asarray(features, np.float32)
    _require_finite(path, features)
    kept = features[:, 0] > 0
    x, y, z = (int(n) for n in shape[:3])
    return Volume(coords[kept].astype(np.int64), features[kept], (x, y, z))


def _require_finite(where: str, features: np.ndarray) -> None:
    if not np.isfinite(features).all():
        raise UserError(f"{where}: features hold NaN or Inf; clean the points and voxelise again")


def write_npz(
    path: str | Path,
    volume: Volume,
    origin: str = "",
    about: Mapping[str, np.ndarray | str | int] = MappingProxyType({}),
) -> None:
    """Writes the sparse layout, compressed; the file appears under its name only when whole.

    origin: what it was made from, '' = untold; see `data.prepared`. about: what else the file says,
    by names: where it lies, in metres in the order x, y, z, and of which model it is.
    """
    arrays: dict[str, Any] = {
        "coords": volume.coords.astype(np.int64),
        "features": volume.features.astype(np.float32),
        "shape": np.array([*volume.shape, CHANNELS], np.int64),
        **about,
    }
    if origin:
        arrays[ORIGIN] = np.array(origin)
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def find_scenes(root: str | Path) -> list[Scene]:
    """The scenes of a folder, by name; other folders are left out.

    A scene is a folder with radar_voxel/ and target_voxel/, whose files pair by the name before the
    ending, or one with *.h5 as `prepare` writes it. UserError if there is none, one without any
    pair, or no store that can be read.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise UserError(f"data.path={folder} is no folder; name the one that holds the scenes")
    entries = sorted(folder.iterdir(), key=lambda entry: by_number(entry.name))
    found = {entry: scene for entry in entries if (scene := _scene(entry))}
    require_apart(list(found))
    scenes = list(found.values())
    if not scenes:
        folders = " and ".join(f"{name}/" for name in KINDS.values())
        if (folder / SETTINGS).exists():
            raise UserError(
                f"data.path={folder}: no scene, for tds_jax.prepare wrote it and could make no "
                "frame; call it again, into another --output, and mend what its lines say"
            )
        raise UserError(
            f"data.path={folder}: no scene, expected folders that hold {folders} or *.h5; name the "
            f"folder above them or voxelise with tds_jax.prepare"
        )
    if not any(scene.frames for scene in scenes) and (lost := [*_problems(scenes)]):
        raise UserError(lost[0] + f" ({len(lost)} stores are unusable)" * (len(lost) > 1))
    for scene in scenes:
        if not (scene.frames or scene.problems):
            raise UserError(
                f"{folder / scene.name}: no radar frame has a target of the same name (unpaired: "
                f"{some(scene.unpaired) or 'none'}); name the two files of a frame alike"
            )
    return scenes


def half_scenes(root: str | Path) -> list[str]:
    """A line for each folder that holds volumes of one kind alone, and so is no scene."""
    lines = []
    for folder in sorted(Path(root).iterdir(), key=lambda entry: by_number(entry.name)):
        absent = [name for name in KINDS.values() if not (folder / name).is_dir()]
        if len(absent) == 1 and _scene(folder) is None:
            lines.append(f"{folder}: no {absent[0]}/ in it; it is no scene")
    return lines


def _problems(scenes: Sequence[Scene]) -> Iterator[str]:
    for scene in scenes:
        yield from scene.problems


def _scene(folder: Path) -> Scene | None:
    if all((folder / name).is_dir() for name in KINDS.values()):
        return _paired_files(folder)
    stores = list(frames_of(folder, (STORE,)).values()) if folder.is_dir() else []
    return _stored(folder.name, stores) if stores else None


def _paired_files(folder: Path) -> Scene:
    found = {kind: _volumes_of(folder / name) for kind, name in KINDS.items()}
    radar, target = found["radar"], found["target"]
    frames = [
        Frame(folder.name, name, Place(radar[name]), Place(target[name]))
        for name in radar
        if name in target
    ]
    return Scene(
        folder.name, tuple(frames), tuple(sorted(radar.keys() ^ target.keys(), key=by_number))
    )


def _volumes_of(folder: Path) -> dict[str, str]:
    return {name: str(path) for name, path in frames_of(folder, ENDINGS).items()}


def _stored(name: str, stores: Sequence[Path]) -> Scene:
    files = RowFiles(max_open_files=1, chunk_cache_bytes=2**20, chunk_cache_preemption=1.0)
    frames: list[Frame] = []
    unpaired: set[str] = set()
    problems: list[str] = []
    for path in map(str, stores):
        try:
            radar, target = (_index(files, path, kind) for kind in KINDS)
        except UserError as error:
            problems.append(str(error))
            continue
        unpaired |= radar.keys() ^ target.keys()
        frames += [Frame(name, n, radar[n], target[n]) for n in radar if n in target]
    files.close()
    return Scene(name, tuple(frames), tuple(sorted(unpaired, key=by_number)), tuple(problems))


def places_in(path: Path, kind: str) -> dict[str, Place]:
    """{frame: where it is} of a store's 'radar' or 'target'; or UserError."""
    files = RowFiles(max_open_files=1, chunk_cache_bytes=2**20, chunk_cache_preemption=1.0)
    try:
        return _index(files, str(path), kind)
    finally:
        files.close()


def frames_in(path: Path) -> list[str]:
    """Names of the frames of which a store holds both volumes."""
    radar, target = (places_in(path, kind) for kind in KINDS)
    return [name for name in radar if name in target]


def _index(files: RowFiles, path: str, kind: str) -> dict[str, Place]:
    index, voxels = files.header(path, kind, "frames"), files.header(path, kind, "voxels")
    for header, row in ((index, FRAME_ROW), (voxels, VOXEL_ROW)):
        missing = [name for name in row.names or () if name not in header.fields]
        if missing or "shape" not in header.attributes:
            raise UserError(
                f"{path}: {kind} lacks {(missing or ['shape'])[0]!r}; voxelise with tds_jax.prepare"
            )
    rows = files.raw(path, kind, "frames", 0, index.rows)
    with naming(path, f"the names of {kind}'s frames "):
        return {r["name"].decode(): Place(path, int(r["start"]), int(r["stop"])) for r in rows}
