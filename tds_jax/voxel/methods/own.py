"""Learning what the target is from what the radar sees, by a network of one's own."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax import own
from tds_jax.config import Config
from tds_jax.engine.report import MODEL
from tds_jax.engine.step import Batch, Objective
from tds_jax.fields import require
from tds_jax.nn.module import Module
from tds_jax.nn.normalizer import Normalizer
from tds_jax.nn.precision import compute_dtype
from tds_jax.voxel.data.dataset import VoxelData
from tds_jax.voxel.data.volumes import CHANNELS
from tds_jax.voxel.methods.autoencoding import charged, reconstruction
from tds_jax.voxel.methods.build import perceptual_net
from tds_jax.voxel.methods.model import ScaledAutoencoder, normalized

SETTING = "model.name"


class OwnNetwork(Module):
    """Radar (B, D, H, W, 4), raw -> target (B, D, H, W, 4), raw, channel 0 a probability.

    network: called with the radar, normalised over its occupied cells and 0 elsewhere, and keys
    (B, 2) uint32 in training, else None. around: the units of what it answers.
    """

    def __init__(self, name: str, around: ScaledAutoencoder) -> None:
        network = around.network
        require(
            isinstance(network, nnx.Module) and callable(network),
            f"{SETTING}={name!r} makes a {type(network).__name__}; make a flax.nnx.Module",
        )
        self.name = name
        self.radar = Normalizer(CHANNELS)
        self.around = around

    def __call__(self, radar: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        """The network's own answer, f32: with loss.reconstruction 'occupancy' a logit in channel 0
        and values in units of the target's spread in the others, else raw values."""
        output = self.around.network(normalized(radar, self.radar), keys)
        own.require_shape(SETTING, self.name, output, radar.shape)
        return output.astype(jnp.float32)


class Answering:
    """The method of a network of one's own; see `task.Method`."""

    leaves: tuple[str, ...] = ("radar", "target", "weight")

    def __init__(self, config: Config) -> None:
        self._config = config

    def init(self, rngs: nnx.Rngs) -> OwnNetwork:
        """A fresh network, which gets those settings that it asks for."""
        model, memory = self._config.model, self._config.memory
        dtype = compute_dtype(memory.dtype)
        settings = dataclasses.asdict(memory) | dataclasses.asdict(model)
        beside = {"num_channels": CHANNELS, "dtype": dtype, "rngs": rngs}
        network = own.made(SETTING, model.name, settings | beside)
        logits = self._config.loss.reconstruction == "occupancy"
        features = perceptual_net(self._config, dtype, rngs)
        return OwnNetwork(
            model.name, ScaledAutoencoder(network, logits=logits, perceptual=features)
        )

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

    def loss(
        self, model: OwnNetwork, batch: Batch, train: bool
    ) -> tuple[Objective, dict[str, Any]]:
        """What an autoencoder's output is charged for; an example weighs 1 if it counts."""
        target, cells = batch["target"], batch["weight"]
        output = model(batch["radar"], batch["key"] if train else None)
        charges = reconstruction(model.around, output, target, cells, self._config.loss)
        return charged(charges, model.around.outside(output)[..., 0], target, cells)

    def volumes(self, model: OwnNetwork, batch: Batch) -> dict[str, jax.Array]:
        """{'model': the answer to the radar}, raw values."""
        return {MODEL: model.around.outside(model(batch["radar"]))}
