"""Learning what the target looks like where the radar is what was seen: diffusion of latents."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax.config import Config
from tds_jax.engine import metrics, processes
from tds_jax.engine.report import MODEL
from tds_jax.engine.step import Batch, Objective
from tds_jax.fields import require
from tds_jax.nn.noise import key_of
from tds_jax.progress import progress_bar
from tds_jax.voxel.config import DIRECT, settings
from tds_jax.voxel.data.dataset import VoxelData
from tds_jax.voxel.methods import build, diffusion, latents, losses, trained
from tds_jax.voxel.methods.model import Answer, FoldedCells, LatentDenoiser, ScaledAutoencoder

LEAVES = ("radar",)
SAMPLE, SAMPLES = "sample", "samples"  # one alone; the occupancies of all


class Diffusion:
    """The method of 'diffusion'; see `task.Method`."""

    leaves: tuple[str, ...] = LEAVES

    def __init__(self, config: Config) -> None:
        weight = config.loss.sample_dice_weight
        require(
            not weight or bool(config.model.fold),
            f"loss.sample_dice_weight={weight} needs cells that are denoised themselves; give "
            "model.fold, as configs/voxel_folded.py does, or use loss.sample_dice_weight=0",
        )
        self._config = config
        self._levels = build.levels(config.model)

    def init(self, rngs: nnx.Rngs) -> LatentDenoiser:
        """A fresh denoiser; the autoencoder in it is random until `statistics` are put in."""
        return build.denoiser(self._config, rngs)

    @functools.cached_property
    def _trained(self) -> ScaledAutoencoder | None:
        folder = self._config.model.autoencoder
        return trained.autoencoder(self._config, Path(folder)) if folder else None

    def _autoencoder(self, data: VoxelData) -> ScaledAutoencoder | FoldedCells:
        return self._trained or trained.folded_cells(self._config, data)

    @functools.cached_property
    def _direct(self) -> Answer | None:
        folder = self._config.model.direct
        return trained.direct(self._config, Path(folder)) if folder else None

    def digest(self) -> str:
        """Of the frozen networks' weights: latents of others would not fit the checkpoint's."""
        return "".join(latents.fingerprint(one) for one in (self._trained, self._direct) if one)

    def latents(self, data: VoxelData, split: str) -> Path:
        """The stored latents of a split's targets."""
        return stored_latents(self._autoencoder(data), data, split, self._config.memory.dtype)

    def statistics(self, data: VoxelData) -> dict[str, Any]:
        """The frozen networks, units of the radar, and mean and scale of the latents."""
        direct = {"direct": trained.leaves(self._direct)} if self._direct else {}
        return direct | {
            "autoencoder": trained.leaves(self._autoencoder(data)),
            "radar": data.statistics.leaves()["radar"],
            "latent": latents.moments(self.latents(data, "train")),
        }

    def loss(
        self, model: LatentDenoiser, batch: Batch, train: bool
    ) -> tuple[Objective, dict[str, Any]]:
        """Weighted squared error of the estimate, at a level and with noise of the example's key;
        and, if asked, how far the occupancy that it says is from the truth's.

        Validation draws them, too: from keys that stay the same from one look to the next.
        """
        draws, truth = self._config.model.draws, model.scaled(batch["latent"])
        open_to_it = truth - model.anchor(batch["radar"])
        keys, clean, truth, condition = repeated(
            draws, batch["key"], open_to_it, truth, model.condition(batch["radar"])
        )
        sigma = self._levels.draw(keys)
        noise = diffusion.noise(keys, diffusion.NOISE_DRAW, clean.shape[1:])
        noisy = clean + diffusion.rows(sigma, clean) * noise
        if train:
            condition = condition * rows_kept(keys, self._config.model.guidance_dropout, condition)
        wrong = model.denoise(condition)(noisy, sigma) - clean
        error = jnp.mean(wrong**2, axis=(1, 2, 3, 4))
        charge = diffusion.loss_weight(sigma, model.data) * error
        if self._config.loss.sample_dice_weight:
            charge += self._config.loss.sample_dice_weight * missed(model, truth + wrong, truth)
        charge = per_example(draws, charge)
        error, weight = per_example(draws, error), batch["weight"]
        states = {"mse": metrics.Mean(jnp.sum(weight * error), jnp.sum(weight))}
        return Objective(jnp.sum(weight * charge), jnp.sum(weight)), states

    def volumes(self, model: LatentDenoiser, batch: Batch) -> dict[str, jax.Array]:
        """{'model': samples by Heun's method given the radar}, raw values."""
        sample = sampler(self._config, model, batch)
        samples = settings(self._config).samples
        mean, first, all_of_them = drawn(lambda draw: model.decode(sample(draw)), samples)
        return {MODEL: mean} | with_samples(first, all_of_them) | one_answer(model, batch)


def sampler(
    config: Config, model: LatentDenoiser, batch: Batch
) -> Callable[[int | jax.Array], jax.Array]:
    """draw -> scaled latents given a batch's radar, from noise of the examples' keys."""
    denoise = model.guided(model.condition(batch["radar"]))
    levels = build.levels(config.model).grid(config.model.sampler_steps)
    shape, anchor = latent_shape(config, batch), model.anchor(batch["radar"])
    temperature = config.model.temperature

    def one(draw: int | jax.Array) -> jax.Array:
        start = temperature * diffusion.noise(batch["key"], draw, shape)
        return anchor + diffusion.sample(denoise, start, levels)

    return one


def missed(model: LatentDenoiser, estimate: jax.Array, truth: jax.Array) -> jax.Array:
    """(B,) Dice loss of the occupancy in scaled latents of folded cells.

    Squared errors are least for the mean of what may be; this is for cells that are surely full or
    empty, at every level.
    """
    said, full = (model.decode(latent)[..., 0] for latent in (estimate, truth))
    return losses.dice(said, full, jnp.ones_like(full))


def repeated(draws: int, keys: jax.Array, *leaves: jax.Array) -> tuple[jax.Array, ...]:
    """(keys, *leaves) (B, ...) -> (B * draws, ...): each example so many times in a row, each time
    with a key of its own; as they are for one draw."""
    if draws == 1:
        return keys, *leaves

    def own(key: jax.Array) -> jax.Array:
        numbers = diffusion.REPEAT_DRAW + jnp.arange(draws)
        return jax.vmap(lambda n: jax.random.key_data(key_of(key, n)))(numbers)

    keys = jax.vmap(own)(keys).reshape(-1, keys.shape[-1])
    return keys, *(jnp.repeat(leaf, draws, axis=0) for leaf in leaves)


def per_example(draws: int, charge: jax.Array) -> jax.Array:
    """(B * draws,) as `repeated` orders them -> (B,) means."""
    return jnp.mean(charge.reshape(-1, draws), axis=1)


def rows_kept(keys: jax.Array, dropout: float, like: jax.Array) -> jax.Array:
    """(B, 1, ...) 1, or with probability `dropout` 0: which examples learn with their condition."""

    def one(key: jax.Array) -> jax.Array:
        return jax.random.bernoulli(key_of(key, diffusion.CONDITION_DRAW), 1 - dropout)

    return diffusion.rows(jax.vmap(one)(keys).astype(jnp.float32), like)


def latent_shape(config: Config, batch: Batch) -> tuple[int, ...]:
    """(d, h, w, C) of the latents of a batch."""
    cells = build.cells_per_latent(config.model)
    grid = batch["radar"].shape[1:4]
    small = (n // m for n, m in zip(grid, cells, strict=True))
    return (*small, build.latent_channels(config.model))


def drawn(
    one: Callable[[jax.Array], jax.Array], samples: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(mean, the first, occupancies (B, S, D, H, W) of all) of one(1) … one(samples): volumes of
    that many independent draws, one at a time."""
    volumes = jax.lax.map(one, jnp.arange(1, samples + 1))
    return jnp.mean(volumes, axis=0), volumes[0], jnp.moveaxis(volumes[..., 0], 0, 1)


def one_answer(model: LatentDenoiser, batch: Batch) -> dict[str, jax.Array]:
    """The answer that a denoiser sees, for its samples to be judged beside; or nothing."""
    return {DIRECT: model.direct.volume(batch["radar"])} if model.direct is not None else {}


def with_samples(first: jax.Array, occupancies: jax.Array) -> dict[str, jax.Array]:
    """What is evaluated beside the mean of several samples; nothing of a single one."""
    several = occupancies.shape[1] > 1
    return {SAMPLE: first, SAMPLES: occupancies} if several else {}


def stored_latents(
    model: ScaledAutoencoder | FoldedCells, data: VoxelData, split: str, dtype: str
) -> Path:
    """Latents of a split's targets, computed in dtype where they are not yet."""
    with progress_bar(f"encoding the {split} split") as progress:
        digest = f"{data.contents(split)} {data.shape} {dtype}"
        given = data.cache / "latents", model, data.pairs(split), digest, progress
        return latents.cached(*given, processes.crew())
