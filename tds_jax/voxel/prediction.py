"""Volumes for files: sparse .npz in, sparse .npz with the same keys out."""

import sys
import zlib
from pathlib import Path

import numpy as np
from flax import nnx

from tds_jax.data.places import make_folder_for, pair_files
from tds_jax.data.seeds import key_data
from tds_jax.engine.report import MODEL
from tds_jax.engine.step import compiled
from tds_jax.errors import UserError
from tds_jax.progress import progress_bar
from tds_jax.voxel.data.volumes import ENDINGS, Volume, read_volume, write_npz
from tds_jax.voxel.evaluation import FIXED, THRESHOLDS, Thresholds
from tds_jax.voxel.methods.latents import fingerprint
from tds_jax.voxel.task import VoxelTask


def predict(
    task: VoxelTask, model: nnx.Module, source: Path, target: Path, workdir: Path | None = None
) -> list[Path]:
    """Sparse volumes on the model's grid for a file or every file of a folder.

    Generators read radar volumes, autoencoders targets, which they reconstruct. Written are the
    voxels above the threshold that the workdir's evaluation calibrated for these weights (without
    one: above 0.5, with a warning), features in the files' units with the occupancy's probability
    as channel 0. Noise is a function of the volume alone: neither of its name nor of its folder.
    """
    pairs = pair_files(source, target, ENDINGS, ".npz")
    run = compiled(model, lambda model, batch: task.method.volumes(model, batch)[MODEL])
    threshold = _threshold(Thresholds.read(workdir) if workdir else None, model)
    weight = task.data.grid.weight(task.data.volume_shape)
    leaf = "radar" if task.generates else "target"
    with progress_bar("predicting") as progress:
        for done, (file, place) in enumerate(pairs):
            progress(done, len(pairs), file.name)
            volume = _checked(task, file)
            seen = task.data.grid.arrange(volume, pooled=() if leaf == "radar" else (3,))
            key = key_data(task.config.seed, zlib.crc32(seen.tobytes()))
            batch = {leaf: seen[None], "weight": weight[None], "key": key[None]}
            _write(place, np.asarray(run(batch)[0]), weight, threshold)
    return [place for _, place in pairs]


def _threshold(known: Thresholds | None, model: nnx.Module) -> float:
    if known and known.weights == fingerprint(model):
        return known.of(MODEL)
    why = "was calibrated for other weights" if known else "is not there yet"
    print(
        f"warning: {THRESHOLDS} {why}; voxels above {FIXED} are written, run evaluate to calibrate",
        file=sys.stderr,
    )
    return FIXED


def _checked(task: VoxelTask, file: Path) -> Volume:
    volume = read_volume(str(file))
    if volume.shape != task.data.volume_shape:
        raise UserError(
            f"{file}: the grid (X, Y, Z) is {volume.shape}, the model was trained on "
            f"{task.data.volume_shape}; voxelise with the same grid"
        )
    return volume


def _write(place: Path, volume: np.ndarray, weight: np.ndarray, threshold: float) -> None:
    make_folder_for(place)
    z, x, y = np.nonzero((volume[..., 0] > threshold) & (weight > 0))
    d, h, w = volume.shape[:3]
    write_npz(place, Volume(np.stack([x, y, z], axis=1), volume[z, x, y], (h, w, d)))
