"""Learning what the target is from what the radar sees, in one answer."""

from typing import Any

import jax
from flax import nnx

from tds_jax.config import Config
from tds_jax.engine.report import MODEL
from tds_jax.engine.step import Batch, Objective
from tds_jax.voxel.data.dataset import VoxelData
from tds_jax.voxel.methods import build
from tds_jax.voxel.methods.autoencoding import charged, reconstruction
from tds_jax.voxel.methods.model import Answer


class Answering:
    """The method of 'direct' and of a network of one's own; see `task.Method`."""

    leaves: tuple[str, ...] = ("radar", "target", "weight")

    def __init__(self, config: Config) -> None:
        self._config = config

    def init(self, rngs: nnx.Rngs) -> Answer:
        """A fresh network."""
        return build.answer(self._config, rngs)

    def statistics(self, data: VoxelData) -> dict[str, Any]:
        """Mean and scale of the radar's channels, and of the target's where they are normalised."""
        leaves = data.statistics.leaves()
        logits = self._config.loss.reconstruction == "occupancy"
        around = {"around": {"target": leaves["target"]}} if logits else {}
        return {"radar": leaves["radar"]} | around

    def digest(self) -> str:
        """Nothing is frozen."""
        return ""

    def latents(self, data: VoxelData, split: str) -> None:
        """Nothing is stored for training."""

    def loss(self, model: Answer, batch: Batch, train: bool) -> tuple[Objective, dict[str, Any]]:
        """What an autoencoder's output is charged for; an example weighs 1 if it counts."""
        target, cells = batch["target"], batch["weight"]
        output = model(batch["radar"], batch["key"] if train else None)
        charges = reconstruction(model.around, output, target, cells, self._config.loss)
        return charged(charges, model.around.outside(output)[..., 0], target, cells)

    def volumes(self, model: Answer, batch: Batch) -> dict[str, jax.Array]:
        """{'model': the answer to the radar}, raw values."""
        return {MODEL: model.volume(batch["radar"])}
