"""Learning to sample in few steps from a trained diffusion."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax.config import Config
from tds_jax.engine.report import MODEL
from tds_jax.engine.step import Batch, Objective
from tds_jax.voxel.config import settings
from tds_jax.voxel.data.dataset import VoxelData
from tds_jax.voxel.methods import build, consistency, diffusion, generation, latents, trained
from tds_jax.voxel.methods.generation import LEAVES, stored_latents
from tds_jax.voxel.methods.model import Distilled, LatentDenoiser

TEACHER = "teacher"


class Distillation:
    """The method of 'consistency'; see `task.Method`."""

    leaves: tuple[str, ...] = LEAVES

    def __init__(self, config: Config) -> None:
        self._config = config
        self._levels = build.levels(config.model)

    def init(self, rngs: nnx.Rngs) -> Distilled:
        """A student that is its teacher, which is random until `statistics` are put in."""
        return build.distilled(self._config, rngs)

    @functools.cached_property
    def _teacher(self) -> LatentDenoiser:
        return trained.denoiser(self._config, Path(self._config.model.teacher))

    def digest(self) -> str:
        """Of the teacher's weights."""
        return latents.fingerprint(self._teacher)

    def latents(self, data: VoxelData, split: str) -> Path:
        """The stored latents of a split's targets, by the teacher's autoencoder."""
        autoencoder = self._teacher.autoencoder
        return stored_latents(autoencoder, data, split, self._config.memory.dtype)

    def statistics(self, data: VoxelData) -> dict[str, Any]:
        """The frozen teacher with everything it holds."""
        return {"teacher": trained.leaves(self._teacher)}

    def loss(self, model: Distilled, batch: Batch, train: bool) -> tuple[Objective, dict[str, Any]]:
        """How far the student's answers at two points of the teacher's path are apart."""
        teacher, student = model.teacher, model.student()
        draws = self._config.model.draws
        keys, clean, seen, known = generation.repeated(
            draws,
            batch["key"],
            teacher.scaled(batch["latent"]) - teacher.anchor(batch["radar"]),
            student.condition(batch["radar"]),
            teacher.condition(batch["radar"]),
        )
        grid = self._levels.grid(self._config.model.distillation_levels)
        sigma, lower = consistency.draw_pairs(keys, grid)
        noise = diffusion.noise(keys, diffusion.NOISE_DRAW, clean.shape[1:])
        charge = consistency.distillation(
            self.jump(student, seen),
            teacher.guided(known),
            clean,
            noise,
            sigma,
            lower,
        )
        weight, charge = batch["weight"], generation.per_example(draws, charge)
        return Objective(jnp.sum(weight * charge), jnp.sum(weight)), {}

    def jump(self, student: LatentDenoiser, condition: jax.Array) -> diffusion.Denoise:
        """(x, sigma) -> the end of the path through x; x itself at the lowest level."""
        network, levels = student.network(condition), self._levels

        def end(x: jax.Array, sigma: jax.Array) -> jax.Array:
            by = diffusion.boundary_mix(sigma, levels.data, levels.lowest)
            return diffusion.apply(network, by, x)

        return end

    def volumes(self, model: Distilled, batch: Batch) -> dict[str, jax.Array]:
        """Samples in each number of jumps ('model' the largest), and the teacher's; raw values."""
        student, jumps = model.student(), sorted(self._config.model.jumps)
        jump = self.jump(student, student.condition(batch["radar"]))
        names = [f"{count}_step{'s' * (count > 1)}" for count in jumps[:-1]] + [MODEL, TEACHER]
        teacher = generation.sampler(self._config, model.teacher, batch)
        anchor = student.anchor(batch["radar"])

        def one(draw: jax.Array) -> jax.Array:
            latents = [anchor + self._sample(jump, batch, count, draw) for count in jumps]
            latents.append(teacher(draw))
            # Decoded together: a decoder is compiled once, not once for each.
            return student.decode(jnp.concatenate(latents))

        mean, first, each = (
            dict(zip(names, jnp.split(part, len(names)), strict=True))
            for part in generation.drawn(one, settings(self._config).samples)
        )
        samples = generation.with_samples(first[MODEL], each[MODEL])
        return mean | samples | generation.one_answer(model.teacher, batch)

    def _sample(
        self, jump: diffusion.Denoise, batch: Batch, count: int, draw: jax.Array
    ) -> jax.Array:
        """Scaled latents after `count` jumps."""
        shape = generation.latent_shape(self._config, batch)

        def noise(n: jax.Array) -> jax.Array:
            given = diffusion.noise(batch["key"], draw + n * STRIDE, shape)
            return self._config.model.temperature * given

        levels = self._levels.grid(count + 1)[:-1]
        return consistency.sample(jump, levels, self._levels.lowest, noise)


STRIDE = 2**16  # between the draws of one sample: more than samples are ever averaged
