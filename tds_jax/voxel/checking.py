"""What a folder of volumes holds and what is wrong with it, from one pass over every file."""

import collections
import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tds_jax.errors import UserError
from tds_jax.progress import Progress
from tds_jax.tasks import Checked
from tds_jax.voxel.data.volumes import (
    KINDS,
    RADAR,
    TARGET,
    Frame,
    Scene,
    VolumeFiles,
    find_scenes,
    half_scenes,
)


@dataclasses.dataclass(frozen=True)
class _Seen:
    """What is kept of one volume: its place, grid, voxels, and mean of each channel."""

    place: str
    shape: tuple[int, int, int]
    voxels: int
    means: np.ndarray
    finding: str


@dataclasses.dataclass(frozen=True)
class Check:
    """Reads volumes as training would; there is nothing to set."""

    def run(self, folder: Path, progress: Progress) -> Checked:
        """Reads every frame of every scene once, one volume in memory at a time."""
        scenes = find_scenes(folder)
        files = VolumeFiles(max_open_files=1, chunk_cache_bytes=4 * 2**20)
        frames = [frame for scene in scenes for frame in scene.frames]
        seen: dict[str, list[_Seen]] = {kind: [] for kind in KINDS}
        unreadable: list[str] = []
        usable = 0
        for done, frame in enumerate(frames, start=1):
            try:
                pair = {kind: _look(files, frame, kind) for kind in KINDS}
            except UserError as error:
                unreadable.append(str(error))
            else:
                usable += int(pair["target"].voxels > 0)
                for kind, one in pair.items():
                    seen[kind].append(one)
            progress(done, len(frames))
        files.close()
        every = [one for side in seen.values() for one in side]
        findings = {
            "unreadable": [line for scene in scenes for line in scene.problems] + unreadable,
            "unpaired": half_scenes(folder) + list(_unpaired(scenes)),
            "empty": [f"{one.place}: no occupied voxel" for one in every if not one.voxels],
            "grid": _grids(every),
            "values": [f"{one.place}: {one.finding}" for one in every if one.finding],
            "splits": _splits(scenes),
        }
        found = {kind: lines for kind, lines in findings.items() if lines}
        return Checked(usable, _summary(scenes, len(frames), usable, seen), found)


def _look(files: VolumeFiles, frame: Frame, kind: str) -> _Seen:
    place = getattr(frame, kind)
    volume = files.read(place, kind)
    where = place.path if place.stop < 0 else f"{place.path} frame {frame.name} ({kind})"
    values, count = volume.features, len(volume.coords)
    means = values.mean(axis=0, dtype=np.float64) if count else np.full(len(RADAR), np.nan)
    distinct = len(np.unique(np.ravel_multi_index(tuple(volume.coords.T), volume.shape)))
    rules = {
        f"{count - distinct} voxels appear twice; the last one counts": distinct < count,
        "occupancy is not 1 everywhere": bool((values[:, 0] != 1).any()),
        "Doppler variance is negative": kind == "radar" and bool((values[:, 3] < 0).any()),
        "Doppler-valid is neither 0 nor 1": kind == "target"
        and bool((~np.isin(values[:, 3], (0, 1))).any()),
    }
    finding = "; ".join(text for text, broken in rules.items() if broken)
    return _Seen(where, volume.shape, count, means, finding)


def _unpaired(scenes: Sequence[Scene]) -> Iterable[str]:
    for scene in scenes:
        for name in scene.unpaired:
            yield f"{scene.name}/{name}: only one of {' and '.join(KINDS.values())} has it"


def _grids(every: Sequence[_Seen]) -> list[str]:
    counts = collections.Counter(one.shape for one in every).most_common()
    if len(counts) < 2:
        return []
    usual, _ = counts[0]
    others = [one for one in every if one.shape != usual]
    return [f"{one.place}: grid (X, Y, Z) {one.shape}, most have {usual}" for one in others]


def _splits(scenes: Sequence[Scene]) -> list[str]:
    if len(scenes) >= 3:
        return []
    return [
        f"{len(scenes)} scene{'s' * (len(scenes) > 1)}: validation or test will be frames of "
        f"training scenes; record three or more"
    ]


def _summary(
    scenes: Sequence[Scene], frames: int, usable: int, seen: dict[str, list[_Seen]]
) -> dict[str, Any]:
    table: dict[str, Any] = {
        "scenes": {scene.name: len(scene.frames) for scene in scenes},
        "frames": frames,
        "usable": usable,
    }
    for (kind, side), names in zip(seen.items(), (RADAR, TARGET), strict=True):
        shapes = sorted({one.shape for one in side})
        table[f"{kind}_grid"] = ", ".join(" x ".join(map(str, shape)) for shape in shapes)
        if side:
            voxels = np.array([one.voxels for one in side])
            table[f"{kind}_voxels"] = [float(q) for q in np.quantile(voxels, [0, 0.5, 1])]
            share = voxels.mean() / np.prod(side[0].shape, dtype=np.float64)
            table[f"{kind}_occupied"] = f"{share:.4%} of the grid"
        full = [one for one in side if one.voxels]
        if full:
            weights = [one.voxels for one in full]
            means = np.average([one.means for one in full], axis=0, weights=weights)
            table |= {
                f"{kind}_mean_{name}": f"{value:.4g}"
                for name, value in list(zip(names, means, strict=True))[1:]
            }
    return table
