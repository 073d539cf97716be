"""Latents of a trained autoencoder: computed once, kept on disk, read by index."""

import collections
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from tds_jax.data import numpy_files
from tds_jax.data.crew import ALONE, Crew
from tds_jax.data.statistics import Moments, streamed_moments
from tds_jax.data.whole_file import whole_file
from tds_jax.engine.step import split
from tds_jax.progress import Progress
from tds_jax.voxel.data.source import VoxelPairs
from tds_jax.voxel.methods.model import FoldedCells, ScaledAutoencoder


def cached(
    folder: Path,
    model: ScaledAutoencoder | FoldedCells,
    pairs: VoxelPairs,
    digest: str,
    progress: Progress,
    crew: Crew = ALONE,
) -> Path:
    """A .npy of (frames, d, h, w, C) f32: the latents of the targets of `pairs`, in order.

    The file's name is of the weights and of digest, which must tell the pairs; an existing one is
    taken as it is. It appears under its name only when whole; few frames are in memory at a time. A
    crew encodes a part of them each.
    """
    path = folder / f"{fingerprint(model, digest)}.npy"
    if all(crew.gather(path.exists())):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    writes = crew.seeing(folder).first
    encode, frames = _encoder(model), range(len(pairs))

    def encoded(index: int) -> bytes:
        progress(index + 1, len(pairs))
        return encode(pairs.example(index, None)["target"]).tobytes()

    made = (one for some in crew.rounds(frames, encoded) for one in some.values())
    if writes:
        _write(path, model.network.latent_shape((len(pairs), *pairs.shape, 4)), made)
    else:
        collections.deque(made, maxlen=0)
    crew.gather(None)  # it is there
    return path


def _write(path: Path, shape: tuple[int, ...], frames: Iterable[bytes]) -> None:
    with whole_file(path) as temporary, temporary.open("wb") as file:
        layout = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, layout)
        for frame in frames:
            file.write(frame)


def _encoder(model: ScaledAutoencoder | FoldedCells) -> Callable[[np.ndarray], np.ndarray]:
    graphdef, state = nnx.split(model)

    @jax.jit
    def encode(state: Any, volume: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, state).latent(volume)

    # Asked for by name: a split may be encoded where the training loop forbids other uploads.
    return lambda volume: np.asarray(encode(state, jax.device_put(volume[None]))[0])


def fingerprint(model: nnx.Module, digest: str = "") -> str:
    """Changes with any weight of a model, and with `digest`."""
    found = hashlib.blake2b(digest.encode(), digest_size=16)
    _, params, rest = split(model)
    for leaf in jax.tree.leaves((params, rest)):
        found.update(np.asarray(leaf).tobytes())
    return found.hexdigest()


def moments(path: Path) -> dict[str, np.ndarray]:
    """mean and scale (C,) f32 over all frames and cells; one frame in memory at a time."""
    frames: Iterable[Any] = numpy_files.array(path, mapped=True)
    blocks = (np.asarray(frame).reshape(-1, frame.shape[-1]) for frame in frames)
    found: Moments = streamed_moments(blocks)
    return {"mean": found.mean.astype(np.float32), "scale": found.scale().astype(np.float32)}
