"""Radar/target pairs as examples; splits by scene; statistics of the train split."""

import copy
import dataclasses
import functools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from tds_jax.config import SPLITS
from tds_jax.data.crew import ALONE, Crew
from tds_jax.data.statistics import Moments
from tds_jax.errors import UserError
from tds_jax.progress import Progress, silent
from tds_jax.voxel.data.augment import Augment
from tds_jax.voxel.data.counts import Counts, spread_over
from tds_jax.voxel.data.resize import Geometry, Grid
from tds_jax.voxel.data.sweeps import merged
from tds_jax.voxel.data.volumes import GEOMETRY, Frame, Place, Scene, Volume, VolumeFiles

Split = dict[str, tuple[Frame, ...]]


class VoxelPairs:
    """The pairs of a split, in time order; see data.pipeline.Source.

    An example is `radar` and `target` (D, H, W, 4) and `weight` (D, H, W), which is 0 in padding;
    all f32, raw units. volume_shape: (X, Y, Z) that every file must have. augment: applied when an
    example is asked for with a random generator. geometry: of the files' grid, and sweeps: how many
    of the radar make one, see `sweeps.merged`.
    """

    def __init__(
        self,
        frames: Sequence[Frame],
        files: VolumeFiles,
        grid: Grid,
        volume_shape: tuple[int, int, int],
        augment: Augment | None,
        geometry: Geometry | None = None,
        sweeps: int = 1,
    ) -> None:
        self._geometry, self._sweeps = geometry, sweeps
        self.frames = tuple(frames)
        self.grid = grid
        self.volume_shape = volume_shape
        self.shape = grid.result(volume_shape)
        self._files = files
        self._augment = augment

    def __len__(self) -> int:
        return len(self.frames)

    def __repr__(self) -> str:
        return f"VoxelPairs({len(self.frames)} frames of {self.shape})"

    def example(self, index: int, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
        """Example `index`; UserError when a file's grid is another than the first one's."""
        frame = self.frames[index]
        radar = self.grid.arrange(self._radar(frame), pooled=())
        target = self.grid.arrange(self._read(frame.target, "target"), pooled=(3,))
        weight = self.grid.weight(self.volume_shape)
        if self._augment is not None and rng is not None:
            radar, target, weight = self._augment(radar, target, weight, rng)
        return {"radar": radar, "target": target, "weight": weight}

    def _radar(self, frame: Frame) -> Volume:
        newest = self._read(frame.radar, "radar")
        if self._geometry is None or self._sweeps == 1:
            return newest
        earlier = [
            (self._read(place, "radar"), np.reshape(matrix, (4, 4)))
            for place, matrix in frame.earlier
        ]
        return merged(newest, earlier, self._sweeps, self._geometry)

    def _read(self, place: Place, kind: str) -> Volume:
        volume = self._files.read(place, kind)
        if volume.shape != self.volume_shape:
            raise UserError(
                f"{place.path}: the {kind} grid (X, Y, Z) is {volume.shape}, that of the first "
                f"frame {self.volume_shape}; voxelise all frames with one grid"
            )
        return volume


def native_shape(frames: Sequence[Frame], files: VolumeFiles) -> tuple[int, int, int]:
    """(X, Y, Z) of the files, as the first frame's radar says."""
    return files.read(frames[0].radar, "radar").shape


def native_geometry(
    root: str | Path, shape: tuple[int, int, int], ranges: tuple[float, ...]
) -> Geometry:
    """Where the files' voxels are: the folder's geometry.json, or else `ranges` in metres.

    UserError when geometry.json speaks of another grid than the files have.
    """
    found = stored_geometry(root)
    if found is None:
        return Geometry.of(ranges, shape)
    z, x, y = found.shape
    if (x, y, z) != shape:
        raise UserError(
            f"{Path(root) / GEOMETRY}: shape {(x, y, z)}, but the volumes have {shape}; correct or "
            "remove the file"
        )
    return found


def stored_geometry(root: str | Path) -> Geometry | None:
    """What a folder's geometry.json says; None without one."""
    path = Path(root) / GEOMETRY
    if not path.exists():
        return None
    try:
        stored = json.loads(path.read_text())
        return Geometry.of(tuple(stored["ranges"]), tuple(stored["shape"]))
    except (ValueError, KeyError, TypeError, IndexError, ZeroDivisionError) as error:
        raise UserError(f"{path}: not as prepare writes it ({error}); prepare again") from error


def split_frames(
    scenes: Sequence[Scene], chosen: dict[str, tuple[str, ...]], ratio: tuple[float, ...]
) -> tuple[Split, list[str]]:
    """Frames of train, val and test, and warnings.

    chosen: scene names per split; a scene may be in several, which is warned of. With all of them
    empty, scenes in order of name are dealt by `ratio` (train, val, test). Where val or test has no
    scene of its own (fewer than three scenes, or none chosen), it gets the last part, by ratio, of
    the time of every train scene, which is warned of: neighbouring frames are much alike.
    """
    names = [scene.name for scene in scenes]
    for split in SPLITS:
        for name in set(chosen[split]) - set(names):
            raise UserError(
                f"data.{split}_scenes names {name!r}, the folder has {', '.join(names)}; "
                f"use one of them"
            )
    by_split = chosen if any(chosen.values()) else _dealt(names, ratio)
    if not by_split["train"]:
        raise UserError(f"data.train_scenes is empty; choose some of {', '.join(names)}")
    found = {scene.name: scene.frames for scene in scenes}
    warnings = list(_shared(by_split))
    absent = [split for split in SPLITS[1:] if not by_split[split]]
    shares = [ratio[SPLITS.index(split)] for split in ("train", *absent)]
    frames: dict[str, list[Frame]] = {
        split: [frame for name in by_split[split] for frame in found[name]] for split in SPLITS
    }
    if absent:
        frames["train"] = []
        for name in by_split["train"]:
            for split, part in zip(("train", *absent), _cut(found[name], shares), strict=True):
                frames[split] += part
        warnings.append(
            f"{' and '.join(absent)} get the last frames of the train scenes ("
            f"{', '.join(by_split['train'])}): they are much alike; use more scenes"
        )
    return {split: tuple(frames[split]) for split in SPLITS}, warnings


def _dealt(names: Sequence[str], ratio: tuple[float, ...]) -> dict[str, tuple[str, ...]]:
    """Each split a run of names, at least one where there are three or more; test before val."""
    count = len(names)
    test = min(max(round(count * ratio[2]), 1), count - 1)
    val = min(max(round(count * ratio[1]), 1), count - 1 - test)
    train = count - val - test
    parts = names[:train], names[train : train + val], names[train + val :]
    return dict(zip(SPLITS, map(tuple, parts), strict=True))


def _cut(frames: Sequence[Frame], shares: Sequence[float]) -> list[Sequence[Frame]]:
    ends = np.round(np.cumsum(shares) / sum(shares) * len(frames)).astype(int)
    return [frames[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _shared(by_split: dict[str, tuple[str, ...]]) -> list[str]:
    return [
        f"{split} shares {', '.join(both)} with train: its numbers say nothing of new scenes"
        for split in SPLITS[1:]
        if (both := sorted(set(by_split[split]) & set(by_split["train"])))
    ]


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Of a split, over voxels that count: mean (4,) and scale (4,) of `radar` and `target`.

    Values are those of occupied voxels (target Doppler: where it is valid); the flags (occupancy,
    Doppler-valid) have mean 0 and scale 1. occupancy: share of target voxels that are occupied.
    empty: frames whose radar or target has no voxel. counts: of the frames that the prior is of.
    reflectivity: slope and offset of the least-squares line from a radar's intensity to the
    reflectivity of the target at the same voxel: they are in different units.
    """

    radar_mean: np.ndarray
    radar_scale: np.ndarray
    target_mean: np.ndarray
    target_scale: np.ndarray
    occupancy: float
    empty: int
    counts: Counts
    reflectivity: tuple[float, float]

    @functools.cached_property  # asked for twice for every frame that is evaluated
    def prior(self) -> np.ndarray:
        """(D, H, W, 4), channel 0 the share of frames in which a voxel is occupied, the others the
        mean value there when it is (Doppler: when it is valid), and the split's mean where it never
        is."""
        return self.counts.prior(np.array([self.occupancy, *self.target_mean[1:]], np.float32))

    def without(self, own: Counts) -> Self:
        """The same with a prior that does not know some of its frames.

        Without any frame left it says the split's occupancy and mean values everywhere.
        """
        return dataclasses.replace(self, counts=self.counts.without(own))

    def leaves(self) -> dict[str, dict[str, np.ndarray]]:
        """What normalising needs, as a nested dict of f32 arrays."""
        return {
            "radar": {"mean": self.radar_mean, "scale": self.radar_scale},
            "target": {"mean": self.target_mean, "scale": self.target_scale},
        }


def channel_statistics(
    source: VoxelPairs, max_frames: int, progress: Progress = silent, crew: Crew = ALONE
) -> Statistics:
    """Streaming, over at most max_frames frames spread over the split; one frame in memory.

    A crew reads a part of them each.
    """
    chosen = spread_over(len(source), max_frames)
    radar, target = _ChannelMoments(flags=()), _ChannelMoments(flags=(3,))
    counts = Counts.none(source.shape)
    both = Moments.of(np.zeros((0, 3)))
    occupied = total = 0.0
    empty = 0
    own = crew.share(chosen.tolist())
    for done, index in enumerate(own):
        example = source.example(index, None)
        voxels = [radar.add(example["radar"]), target.add(example["target"])]
        empty += 0 in voxels
        occupied, total = occupied + voxels[1], total + float(example["weight"].sum())
        counts = counts.plus(example["target"])
        both = both.merge(_common(example["radar"], example["target"]))
        progress(done + 1, len(own))
    parts = crew.gather((radar, target, both, np.array([occupied, total, empty])))
    radars, targets, commons, counted = zip(*parts, strict=True)
    radar, target, both = _merged(radars), _merged(targets), _merged(commons)
    occupied, total, empty = np.sum(counted, axis=0).tolist()
    sums, valid = crew.add([counts.sums, counts.valid])
    counts = Counts(sums, valid, len(chosen))
    mean, scale = radar.result()
    means, scales = target.result()
    line = _line(both, float(means[1]))
    return Statistics(mean, scale, means, scales, occupied / total, int(empty), counts, line)


def _merged(parts: Iterable[Any]) -> Any:
    return functools.reduce(lambda one, other: one.merge(other), parts)


def _common(radar: np.ndarray, target: np.ndarray) -> Moments:
    """Of intensity, reflectivity and their sum, over voxels that both have."""
    both = (radar[..., 0] > 0) & (target[..., 0] > 0)
    pair = radar[both, 1].astype(np.float64), target[both, 1].astype(np.float64)
    return Moments.of(np.column_stack([*pair, sum(pair)]))


def _line(both: Moments, mean: float) -> tuple[float, float]:
    """(slope, offset) by `_common`; without anything in common, or a spread, the mean alone."""
    if not both.count:
        return 0.0, mean
    # Var(a + b) = Var a + Var b + 2 Cov(a, b)
    of_a, of_b, of_sum = both.squares
    rounding = both.count * (np.finfo(np.float32).eps * both.mean[0]) ** 2
    slope = float((of_sum - of_a - of_b) / (2 * of_a)) if of_a > rounding else 0.0
    return slope, float(both.mean[1] - slope * both.mean[0])


class _ChannelMoments:
    """Moments of each channel's values where they exist; flags keep mean 0 and scale 1."""

    def __init__(self, flags: tuple[int, ...]) -> None:
        self.values: dict[int, Any] = {c: Moments.of(np.zeros((0, 1))) for c in (1, 2, 3)}
        self.has_flag = bool(flags)
        for c in flags:
            del self.values[c]

    def merge(self, other: Self) -> Self:
        """Of the volumes of both."""
        found = copy.copy(self)
        found.values = {c: one.merge(other.values[c]) for c, one in self.values.items()}
        return found

    def add(self, volume: np.ndarray) -> int:
        """Adds (D, H, W, 4); returns how many voxels are occupied."""
        rows = volume[volume[..., 0] > 0]
        for c in self.values:
            known = rows[rows[:, 3] > 0] if self.has_flag and c == 2 else rows
            self.values[c] = self.values[c].merge(Moments.of(known[:, c : c + 1]))
        return len(rows)

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        mean, scale = np.zeros(4, np.float32), np.ones(4, np.float32)
        for c, moments in self.values.items():
            mean[c], scale[c] = moments.mean[0], moments.scale()[0]
        return mean, scale
