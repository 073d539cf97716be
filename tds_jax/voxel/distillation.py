"""Learning to sample in few steps from a trained diffusion."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax.config import Config
from tds_jax.engine.report import MODEL
from tds_jax.engine.step import Batch, Objective
from tds_jax.voxel import build, consistency, diffusion, trained
from tds_jax.voxel.config import settings
from tds_jax.voxel.dataset import VoxelData
from tds_jax.voxel.generation import LEAVES, Diffusion, average, stored_latents
from tds_jax.voxel.model import Distilled, LatentDenoiser

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

    def _teacher(self) -> LatentDenoiser:
        return trained.denoiser(self._config, Path(self._config.model.teacher))

    def latents(self, data: VoxelData, split: str) -> Path:
        """The stored latents of a split's targets, by the teacher's autoencoder."""
        return stored_latents(self._teacher().autoencoder, data, split)

    def statistics(self, data: VoxelData) -> dict[str, Any]:
        """The frozen teacher with everything it holds."""
        return {"teacher": trained.leaves(self._teacher())}

    def loss(self, model: Distilled, batch: Batch, train: bool) -> tuple[Objective, dict[str, Any]]:
        """How far the student's answers at two points of the teacher's path are apart."""
        teacher, student = model.teacher, model.student()
        clean, keys = teacher.scaled(batch["latent"]), batch["key"]
        grid = self._levels.grid(self._config.model.distillation_levels)
        sigma, lower = consistency.draw_pairs(keys, grid)
        noise = diffusion.noise(keys, diffusion.NOISE_DRAW, clean.shape[1:])
        charge = consistency.distillation(
            self._jump(student, student.condition(batch["radar"])),
            teacher.denoise(teacher.condition(batch["radar"])),
            clean,
            noise,
            sigma,
            lower,
        )
        weight = batch["weight"]
        return Objective(jnp.sum(weight * charge), jnp.sum(weight)), {}

    def _jump(self, student: LatentDenoiser, condition: jax.Array) -> diffusion.Denoise:
        network, levels = student.network(condition), self._levels

        def jump(x: jax.Array, sigma: jax.Array) -> jax.Array:
            by = diffusion.boundary_mix(sigma, levels.data, levels.lowest)
            return diffusion.apply(network, by, x)

        return jump

    def volumes(self, model: Distilled, batch: Batch) -> dict[str, jax.Array]:
        """Samples in each number of jumps ('model' the largest), and the teacher's; raw values."""
        student = model.student()
        jump = self._jump(student, student.condition(batch["radar"]))
        shape = student.autoencoder.network.latent_shape(batch["radar"].shape)[1:]
        counts = sorted(self._config.model.jumps)

        def sample(count: int, draw: int) -> jax.Array:
            def noise(n: int) -> jax.Array:
                return diffusion.noise(batch["key"], draw + n * STRIDE, shape)

            grid = self._levels.grid(count + 1)[:-1].tolist()
            return student.decode(consistency.sample(jump, grid, self._levels.lowest, noise))

        found = {
            MODEL if count == counts[-1] else f"{count}_step": average(
                lambda draw, count=count: sample(count, draw), settings(self._config).samples
            )
            for count in reversed(counts)
        }
        teacher = Diffusion(self._config).volumes(model.teacher, batch)
        return found | {TEACHER: teacher[MODEL]}


STRIDE = 2**16  # between the draws of one sample: more than samples are ever averaged
