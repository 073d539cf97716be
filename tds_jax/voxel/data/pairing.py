"""Which radar cloud and which LiDAR cloud of a scene belong together."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tds_jax.data.whole_file import whole_table
from tds_jax.errors import UserError, some
from tds_jax.voxel.data.clouds import ENDINGS, names_of
from tds_jax.voxel.data.naming import frames_of, numbers_in

BARE = ".bin"

# Milli-, micro- and nanoseconds since 1970, by their number of digits; anywhere in a name.
EPOCH_DIGITS = {13: 1e-3, 16: 1e-6, 19: 1e-9}
_EPOCH = re.compile(r"(?<!\d)\d{13}(?:\d{3}){0,2}(?!\d)")
INDEX_FILES = ("radar_index_sequence.txt", "lidar_index_sequence.txt")

Pair = tuple[Path | None, Path]


def pair_clouds(scene: Path, radar: str, lidar: str, max_gap_s: float) -> list[Pair]:
    """(radar, LiDAR) files of a scene, in order; radar '' pairs every LiDAR file with None.

    By the index files of the scene (a frame number per line, one line per pair) if it has them;
    else by the nearest time where all names are seconds with a decimal point; else by equal names.
    Where no name is on both sides: by equal numbers in them (1 and 000001), or by the nearest time
    where all names hold one in whole milli-, micro- or nanoseconds.
    """
    lidar_files = _clouds(scene / lidar)
    if not radar:
        return [(None, path) for path in lidar_files.values()]
    radar_files = _clouds(scene / radar)
    if all((scene / name).exists() for name in INDEX_FILES):
        return _indexed_pairs(scene, radar_files, lidar_files)
    if all(map(_is_time, [*radar_files, *lidar_files])):
        return _by_time(scene, radar_files, lidar_files, max_gap_s)
    if radar_files.keys() & lidar_files.keys():
        return [(path, lidar_files[n]) for n, path in radar_files.items() if n in lidar_files]
    if pairs := _by_number(radar_files, lidar_files):
        return pairs
    if all(seconds_of(name) for name in [*radar_files, *lidar_files]):
        return _by_time(scene, radar_files, lidar_files, max_gap_s)
    return []


def _by_time(
    scene: Path, radar_files: dict[str, Path], lidar_files: dict[str, Path], max_gap_s: float
) -> list[Pair]:
    radar_s, lidar_s = (np.array([seconds_of(n) for n in f]) for f in (radar_files, lidar_files))
    first, second = list(radar_files.values()), list(lidar_files.values())
    i, j = nearest_pairs(radar_s, lidar_s, max_gap_s)
    _require_one_clock(scene, radar_s[i], lidar_s[j])
    return [(first[a], second[b]) for a, b in zip(i, j, strict=True)]


def _by_number(radar_files: dict[str, Path], lidar_files: dict[str, Path]) -> list[Pair]:
    """Files whose names hold the same numbers; none where two of a side do."""
    radar, lidar = (
        {numbers_in(name): path for name, path in files.items()}
        for files in (radar_files, lidar_files)
    )
    if len(radar) < len(radar_files) or len(lidar) < len(lidar_files):
        return []
    return [(path, lidar[n]) for n, path in radar.items() if n and n in lidar]


def _require_one_clock(scene: Path, radar_s: np.ndarray, lidar_s: np.ndarray) -> None:
    """Paired times of sensors on one clock lie nearer to each other than frames do, mostly."""
    if len(radar_s) < 2:
        return
    gap = float(np.median(np.abs(radar_s - lidar_s)))
    period = float(np.median(np.diff(radar_s)))
    if gap > period:
        raise UserError(
            f"{scene}: radar and LiDAR frames nearest in time are {gap:g} s apart in the median, "
            f"radar frames {period:g} s: two clocks? Bring the names to one, or write "
            f"{' and '.join(INDEX_FILES)}"
        )


def far_apart(scene: Path, pairs: Sequence[Pair]) -> list[str]:
    """Lines on pairs whose names differ otherwise than times that are near to each other."""
    names = [(radar.stem, lidar.stem) for radar, lidar in pairs if radar]
    if not names or not all(seconds_of(name) for pair in names for name in pair):
        other = [pair for pair in names if pair[0] != pair[1]]
        first = " with ".join(other[0]) if other else ""
        return [f"{scene}: {len(other)} clouds pair by their numbers ({first}, …)"] * bool(other)
    times = np.array([[seconds_of(name) for name in pair] for pair in names])
    gaps = np.abs(times[:, 0] - times[:, 1])
    period = float(np.median(np.diff(times[:, 0]))) if len(times) > 1 else math.inf
    if not (far := int(np.count_nonzero(gaps > period))):
        unlike = any(one != other and not _is_time(one) for one, other in names)
        median = f"{np.median(gaps):.3g} s apart in the median"
        return [f"{scene}: clouds pair by the times in their names, {median}"] * unlike
    return [
        f"{scene}: {far} of {len(gaps)} pairs are further apart than radar frames are ({period:g} "
        f"s), the worst {gaps.max():g} s; --max_gap_s={period:g} leaves them out"
    ]


def left_alone(scene: Path, radar: str, lidar: str, pairs: Sequence[Pair]) -> list[str]:
    """A line for each sensor of a scene some of whose clouds are in no pair; radar '' has none."""
    lines = []
    for side, folder in enumerate((radar, lidar)):
        files = _clouds(scene / folder) if folder else {}
        used = {pair[side] for pair in pairs}
        alone = [name for name, path in files.items() if path not in used]
        if alone:
            lines.append(
                f"{scene / folder}: {len(alone)} of {len(files)} clouds are in no pair "
                f"({some(alone)}); name two clouds of one moment alike, or both by seconds"
            )
    return lines


def nearest_pairs(
    radar_s: np.ndarray, lidar_s: np.ndarray, max_gap_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """Frame numbers (radar (P,), lidar (P,)) that belong together by ascending time stamps.

    Each frame of the sensor with fewer frames (of equally many: the radar) takes the other's
    nearest in time, the earlier of two as near; pairs further apart than max_gap_s are left out
    (0: no limit).
    """
    if len(radar_s) > len(lidar_s):
        lidar, radar = nearest_pairs(lidar_s, radar_s, max_gap_s)
        return radar, lidar
    if not len(radar_s):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    upper = np.clip(np.searchsorted(lidar_s, radar_s), 0, len(lidar_s) - 1)
    lower = np.maximum(upper - 1, 0)
    nearest = np.where(lidar_s[upper] - radar_s < radar_s - lidar_s[lower], upper, lower)
    gap = np.abs(lidar_s[nearest] - radar_s)
    kept = np.flatnonzero(gap <= (max_gap_s or math.inf))
    return kept, nearest[kept]


def _indexed_pairs(
    scene: Path, radar_files: dict[str, Path], lidar_files: dict[str, Path]
) -> list[Pair]:
    radar, lidar = (
        _indexed(scene / name, files)
        for name, files in zip(INDEX_FILES, (radar_files, lidar_files), strict=True)
    )
    if len(radar) != len(lidar):
        raise UserError(
            f"{scene}: {INDEX_FILES[0]} has {len(radar)} lines, {INDEX_FILES[1]} {len(lidar)}; "
            f"write one line per pair in both"
        )
    return list(zip(radar, lidar, strict=True))


def _clouds(folder: Path) -> dict[str, Path]:
    """Clouds by name without ending, in order of time."""
    clouds = frames_of(folder, ENDINGS)
    if not clouds:
        raise UserError(f"{folder}: no cloud, expected {', '.join(ENDINGS)}; check the folder")
    return clouds


def _is_time(text: str) -> bool:
    return "." in text and text.replace(".", "", 1).isdecimal()


def seconds_of(name: str) -> float:
    """The time that a cloud's name is, or the one that it holds, in seconds; else 0."""
    if _is_time(name):
        return float(name)
    found = _EPOCH.findall(name)
    return int(found[0]) * EPOCH_DIGITS[len(found[0])] if len(found) == 1 else 0.0


def _indexed(path: Path, files: dict[str, Path]) -> list[Path]:
    """The files of an index file's lines."""
    ordered = list(files.values())
    try:
        return [ordered[_natural(line)] for line in path.read_text().split()]
    except (ValueError, IndexError) as error:
        raise UserError(
            f"{path}: a line is no frame number below {len(ordered)} ({error}); make it again"
        ) from error


def _natural(text: str) -> int:
    if int(text) < 0:
        raise ValueError(f"{text} is negative")
    return int(text)


def read_as(side: int, scenes: Mapping[Path, Sequence[Pair]], layout: str) -> list[str]:
    """A line if .bin files of a side (0: radar, 1: LiDAR) are read in a layout nobody asked for.

    They tell neither names nor number of their columns.
    """
    clouds = (pair[side] for pairs in scenes.values() for pair in pairs)
    count = sum(cloud is not None and cloud.suffix.lower() == BARE for cloud in clouds)
    sensor = ("radar", "lidar")[side]
    names = names_of(layout)
    line = (
        f"{count} {sensor} files ({BARE}) do not say what their columns are: taken to be "
        f"{len(names)}, {', '.join(names)}; if they are others, give --{sensor}_layout or "
        f"--{sensor}_columns"
    )
    return [line] * bool(count)


def write_names(path: Path, scenes: Mapping[Path, Sequence[Pair]]) -> None:
    """The clouds behind each frame's number, within their scene."""
    with whole_table(path) as table:
        table.writerow(("scene", "frame", "radar", "lidar"))
        for scene, pairs in scenes.items():
            for number, pair in enumerate(pairs):
                names = (str(cloud.relative_to(scene)) if cloud else "" for cloud in pair)
                table.writerow((scene.name, f"{number:06d}", *names))
