"""The pairs of a run: scenes, splits, the model's grid, statistics; read when first needed."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tds_jax.config import SPLITS, Config
from tds_jax.data import numpy_files
from tds_jax.data.generated import cache_root, settings, stand_in
from tds_jax.data.identity import fingerprint
from tds_jax.engine import processes
from tds_jax.errors import NoSplitError
from tds_jax.fields import require
from tds_jax.progress import progress_bar
from tds_jax.tasks import DataAbout
from tds_jax.voxel.config import VoxelDataConfig
from tds_jax.voxel.data import synthetic
from tds_jax.voxel.data.augment import Augment
from tds_jax.voxel.data.kept import KeptVolumes
from tds_jax.voxel.data.looking import usable
from tds_jax.voxel.data.own_volumes import OwnVolumes
from tds_jax.voxel.data.resize import Geometry, Grid, Shape
from tds_jax.voxel.data.source import (
    Split,
    Statistics,
    VoxelPairs,
    channel_statistics,
    native_geometry,
    native_shape,
    split_frames,
)
from tds_jax.voxel.data.sweeps import with_earlier
from tds_jax.voxel.data.volumes import GEOMETRY, Scene, VolumeFiles, find_scenes, half_scenes

SHARED_CHANGES = ("flip", "intensity", "doppler")  # augmentations that change the target, too


@dataclasses.dataclass(frozen=True)
class VoxelInputs:
    """What a run must know of its files. volume_shape: (X, Y, Z); lower, size: metres of the first
    corner and of a voxel, in the order (z, x, y)."""

    volume_shape: tuple[int, ...]
    lower: tuple[float, ...]
    size: tuple[float, ...]


class VoxelData:
    """Pairs of a config's folder, or generated ones. recorded: what is known of the files."""

    def __init__(self, config: Config, inputs: dict[str, Any] | None) -> None:
        data: VoxelDataConfig = config.data
        self._data = data
        self._open = data.max_open_files, data.chunk_cache_bytes
        offered = dataclasses.asdict(data)
        offered["seed"] = config.seed
        self._own = OwnVolumes(data.source, offered, *self._open) if data.source else None
        self._files = self._own or KeptVolumes(*self._open, data.keep_bytes)
        self._grid = Grid(data.grid, _shape(data.shape), _shape(data.multiple))
        self.recorded = _plain(VoxelInputs(**inputs)) if inputs else self._inputs_of_data()
        self.shape = self._grid.result(self.volume_shape)

    @property
    def volume_shape(self) -> Shape:
        """(X, Y, Z) of the files."""
        return _shape(self.recorded.volume_shape)

    @property
    def native_geometry(self) -> Geometry:
        """Where the voxels of the files' grid are."""
        x, y, z = self.volume_shape
        return Geometry((z, x, y), self.recorded.lower, self.recorded.size)  # type: ignore[arg-type]

    @property
    def geometry(self) -> Geometry:
        """Where the voxels of the model's grid are."""
        return self._grid.geometry(self.native_geometry)

    @property
    def sweeps(self) -> int:
        """How many of the radar make one."""
        return self._data.sweeps

    @property
    def grid(self) -> Grid:
        """From the files' grid to the model's."""
        return self._grid

    @functools.cached_property
    def _opened(self) -> tuple[str, Split, list[str]]:
        data = self._data
        root = data.source or data.path or self._made()
        scenes, warnings = self._scenes(root)
        if data.sweeps > 1:
            require(
                self._own is None,
                f"data.sweeps={data.sweeps} needs poses.txt beside a scene's files, which "
                f"data.source={data.source!r} has not; use 1, and let the source merge its own",
            )
            scenes = [with_earlier(one, Path(root) / one.name, data.sweeps) for one in scenes]
        chosen = {split: getattr(data, f"{split}_scenes") for split in SPLITS}
        parts, said = split_frames(scenes, chosen, data.split_ratio)
        warnings += said
        for scene in scenes:
            if lost := len(scene.unpaired):
                warnings.append(
                    f"{root}/{scene.name}: {lost} frames have no partner of the same name "
                    f"({scene.unpaired[0]} is the first); they are left out"
                )
        return root, parts, warnings

    def _made(self) -> str:
        return stand_in(self.cache, self._simulation(), "volumes", processes.crew())

    def _scenes(self, root: str) -> tuple[list[Scene], list[str]]:
        if self._own:
            return self._own.scenes(), []
        scenes, warnings = self._usable(root, find_scenes(root))
        return scenes, warnings + half_scenes(root)

    def _usable(self, root: str | Path, scenes: list[Scene]) -> tuple[list[Scene], list[str]]:
        """Scenes without what cannot be read, and lines on that; generated ones are whole."""
        if not self._data.path:
            return scenes, []
        with progress_bar("looking at volumes") as progress:
            return usable(
                root,
                scenes,
                VolumeFiles(*self._open),  # what is looked at is of all splits: none is kept
                self._data.max_bad_files,
                self.cache / "index",
                progress,
                processes.crew(),
            )

    def about(self) -> DataAbout:
        """See `tasks.Task.data_about`."""
        root, parts, _ = self._opened
        scenes = {frame.scene for part in parts.values() for frame in part}
        splits = ", ".join(f"{name} {len(part)}" for name, part in parts.items())
        (x, y, z), (a, b, c) = self.volume_shape, self.shape
        words = (
            f"{len(scenes)} scenes, {sum(map(len, parts.values()))} frames ({splits}) of "
            f"{x} x {y} x {z} voxels (X, Y, Z), for the model {b} x {c} x {a}"
        )
        return DataAbout(root, words, self._data.generated)

    @property
    def cache(self) -> Path:
        """Where generated data and latents are kept."""
        return cache_root(self._data.cache_dir)

    def _simulation(self) -> synthetic.Simulation:
        data = self._data
        depth, height, width = data.synthetic_shape
        given = settings(synthetic.Simulation, data) | {"ranges": data.ranges}
        return synthetic.Simulation(**given, depth=depth, height=height, width=width)

    def _inputs_of_data(self) -> VoxelInputs:
        if self._data.generated:  # known before the volumes are generated
            z, x, y = self._data.synthetic_shape
            found = Geometry.of(self._data.ranges, (x, y, z))
        else:
            root, parts, _ = self._opened
            x, y, z = native_shape(parts["train"], self._files)
            found = native_geometry(root, (x, y, z), self._data.ranges)
        return _plain(VoxelInputs((x, y, z), found.lower, found.size))

    def inputs(self) -> dict[str, Any]:
        """`recorded` as JSON holds it."""
        return {name: list(value) for name, value in dataclasses.asdict(self.recorded).items()}

    def warnings(self) -> list[str]:
        """What was left out, and splits that share something."""
        return self._opened[2]

    def digest(self) -> str:
        """Changes with any frame's name or split."""
        digest = hashlib.blake2b(digest_size=8)
        for split, frames in self._opened[1].items():
            names = (f"{split} {frame.scene} {frame.name}\n" for frame in frames)
            digest.update("".join(names).encode())
        return digest.hexdigest()

    def data_files(self) -> dict[str, str]:
        """Name -> path of the frames' files and of geometry.json; {} for a data.source."""
        root, parts, _ = self._opened
        if self._data.source:
            return {}
        frames = [frame for split in parts.values() for frame in split]
        used = {place.path for frame in frames for place in (frame.radar, frame.target)}
        geometry = os.path.join(root, GEOMETRY)
        used |= {geometry} if os.path.exists(geometry) else set()
        return {os.path.relpath(path, root): path for path in sorted(used)}

    def contents(self, split: str, kinds: Sequence[str] = ("target",)) -> str:
        """Changes with the content of any file of the split's volumes of some kinds, 'radar' and
        'target', and with their order."""
        root, parts, _ = self._opened
        if self._own:
            return self._own.contents([frame.target for frame in parts[split]], kinds)
        places = [getattr(frame, kind) for frame in parts[split] for kind in kinds]
        files = {os.path.relpath(place.path, root): place.path for place in places}
        spans = [(os.path.relpath(p.path, root), p.start, p.stop) for p in places]
        return fingerprint(files, spans)

    def has(self, split: str) -> bool:
        """Whether a split has a frame."""
        return bool(self._opened[1][split])

    def pairs(self, split: str, augment: Augment | None = None) -> VoxelPairs:
        """The frames of a split."""
        frames = self._opened[1][split]
        if not frames:
            raise NoSplitError(
                f"{self._opened[0]}: the {split} split has no frame; add scenes or change "
                "data.split_ratio"
            )
        geometry, sweeps = self.native_geometry, self._data.sweeps
        return VoxelPairs(
            frames, self._files, self._grid, self.volume_shape, augment, geometry, sweeps
        )

    def augment(self, radar_only: bool) -> Augment | None:
        """The config's changes of training pairs, or those of them that leave the target alone."""
        names = [field.name for field in dataclasses.fields(Augment)]
        found = {name: getattr(self._data, f"augment_{name}") for name in names}
        if radar_only:
            found |= dict.fromkeys(SHARED_CHANGES, 0.0)
        return Augment(**found)

    @functools.cached_property
    def statistics(self) -> Statistics:
        """Of the train split."""
        with progress_bar("statistics of the train split") as progress:
            return channel_statistics(
                self.pairs("train"), self._data.max_statistics_frames, progress, processes.crew()
            )


def _shape(values: tuple[int, ...]) -> Shape:
    d, h, w = values
    return d, h, w


def _plain(inputs: VoxelInputs) -> VoxelInputs:
    """Tuples of plain numbers, whether they come from JSON or from arrays."""
    shape = tuple(int(n) for n in inputs.volume_shape)
    lower, size = (tuple(float(v) for v in values) for values in (inputs.lower, inputs.size))
    return VoxelInputs(shape, lower, size)


class Examples:
    """What a model trains on: some leaves of each pair, and the stored latent of its target.

    latents: a .npy of (frames, d, h, w, C), or None. With it, `weight` is 1 for the whole example.
    See data.pipeline.Source.
    """

    def __init__(self, pairs: VoxelPairs, leaves: tuple[str, ...], latents: Path | None) -> None:
        self._pairs, self._leaves, self._latents = pairs, leaves, latents

    def __len__(self) -> int:
        return len(self._pairs)

    def __repr__(self) -> str:
        return repr(self._pairs)

    def example(self, index: int, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
        """Example `index`."""
        pair = self._pairs.example(index, rng)
        kept = {name: pair[name] for name in self._leaves}
        if self._latents is not None:
            # Mapped anew each time: cheap, and nothing is held open across processes.
            kept["latent"] = np.array(numpy_files.array(self._latents, mapped=True)[index])
            kept["weight"] = np.ones((), np.float32)
        return kept
