"""Learning what the target is from what the radar sees, in one answer."""

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
from tds_jax.voxel.methods import build
from tds_jax.voxel.methods.autoencoding import charged, reconstruction
from tds_jax.voxel.methods.model import ScaledAutoencoder, normalized

SETTING = "model.name"


class Answer(Module):
    """Radar (B, D, H, W, 4), raw -> target (B, D, H, W, 4), raw, channel 0 a probability.

    around: the network and the units of what it answers. The network is called with the radar,
    normalised over its occupied cells and 0 elsewhere, and keys (B, 2) uint32 in training, else
    None.
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
    """The method of 'direct' and of a network of one's own; see `task.Method`."""

    leaves: tuple[str, ...] = ("radar", "target", "weight")

    def __init__(self, config: Config) -> None:
        self._config = config

    def init(self, rngs: nnx.Rngs) -> Answer:
        """A fresh network; one of one's own gets those settings that it asks for."""
        config, dtype = self._config, compute_dtype(self._config.memory.dtype)
        make = _own if own.is_own(config.model.name) else build.direct
        logits = config.loss.reconstruction == "occupancy"
        features = build.perceptual_net(config, dtype, rngs)
        around = ScaledAutoencoder(make(config, rngs), logits=logits, perceptual=features)
        return Answer(config.model.name, around)

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
        return {MODEL: model.around.outside(model(batch["radar"]))}


def _own(config: Config, rngs: nnx.Rngs) -> Any:
    settings = dataclasses.asdict(config.memory) | dataclasses.asdict(config.model)
    dtype = compute_dtype(config.memory.dtype)
    beside = {"num_channels": CHANNELS, "dtype": dtype, "rngs": rngs}
    return own.made(SETTING, config.model.name, settings | beside)
