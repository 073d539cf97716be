"""Learning volumes: targets through an autoencoder and back."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax.config import Config
from tds_jax.engine import metrics
from tds_jax.engine.report import MODEL
from tds_jax.engine.step import Batch, Objective
from tds_jax.voxel.config import VoxelLossConfig
from tds_jax.voxel.data.dataset import VoxelData
from tds_jax.voxel.methods import build, losses
from tds_jax.voxel.methods.model import ScaledAutoencoder
from tds_jax.voxel.networks.perceptual import perceptual
from tds_jax.voxel.networks.vae import VAE3D, kl_divergence
from tds_jax.voxel.networks.vqvae import perplexity, usage

MIDDLE = 0.5  # the threshold of the IoU in logs; evaluation calibrates its own

Charges = dict[str, tuple[float, jax.Array]]
"""name -> (its weight in the objective, (B,) what each example is charged)."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Usage(metrics.Additive):
    """How often each code was used, (K,)."""

    counts: Any

    def compute(self, name: str) -> dict[str, float]:
        """{name: how many codes are in use, see `perplexity`}."""
        return {name: perplexity(self.counts)}


class Autoencoding:
    """The method of 'vae' and 'vqvae'; see `task.Method`."""

    leaves: tuple[str, ...] = ("target", "weight")

    def __init__(self, config: Config) -> None:
        self._config = config

    def init(self, rngs: nnx.Rngs) -> ScaledAutoencoder:
        """A fresh autoencoder."""
        return build.autoencoder(self._config, rngs)

    def statistics(self, data: VoxelData) -> dict[str, Any]:
        """Mean and scale of the target's channels; none for networks of raw values."""
        if self._config.loss.reconstruction != "occupancy":
            return {}
        return {"target": data.statistics.leaves()["target"]}

    def digest(self) -> str:
        """Nothing is frozen."""
        return ""

    def latents(self, data: VoxelData, split: str) -> None:
        """Nothing is stored for training."""

    def loss(
        self, model: ScaledAutoencoder, batch: Batch, train: bool
    ) -> tuple[Objective, dict[str, Any]]:
        """Reconstruction and what the latent is charged for; an example weighs 1 if it counts."""
        target, cells = batch["target"], batch["weight"]
        inside = model.inside(target)
        codes = None
        if isinstance(model.network, VAE3D):
            output, mean, logvar = model.network(inside, batch["key"] if train else None)
            charges = {"kl": (self._config.loss.kl_weight, kl_divergence(mean, logvar))}
        else:
            output, codes = model.network(inside, batch["key"] if train else None)
            charges = {"codes": (1.0, model.network.quantization_loss(codes))}
        charges |= reconstruction(model, output, target, cells, self._config.loss)
        objective, states = charged(charges, model.outside(output)[..., 0], target, cells)
        if codes is not None:
            used = jax.vmap(lambda one: usage(one, model.network.codebook.size))(codes.indices)
            weight = jnp.max(cells, axis=(1, 2, 3))
            states["perplexity"] = Usage(jnp.sum(weight[:, None] * used, axis=0))
        return objective, states

    def volumes(self, model: ScaledAutoencoder, batch: Batch) -> dict[str, jax.Array]:
        """{'model': the target after encoding and decoding}, raw values."""
        return {MODEL: model.decode(model.latent(batch["target"]))}


def charged(
    charges: Charges, occupancy: jax.Array, target: jax.Array, cells: jax.Array
) -> tuple[Objective, dict[str, Any]]:
    """Objective of all charges, each example's weight 1 if any of its cells counts; and states.

    occupancy: (B, D, H, W) probabilities, for the IoU.
    """
    weight = jnp.max(cells, axis=(1, 2, 3))
    total = sum((part * value for part, value in charges.values()), jnp.zeros_like(weight))
    states: dict[str, Any] = {
        name: metrics.Mean(jnp.sum(weight * value), jnp.sum(weight))
        for name, (_, value) in charges.items()
    }
    states["iou"] = _iou(occupancy, target, cells)
    return Objective(jnp.sum(weight * total), jnp.sum(weight)), states


def reconstruction(
    model: ScaledAutoencoder,
    output: jax.Array,
    target: jax.Array,
    cells: jax.Array,
    loss: VoxelLossConfig,
) -> Charges:
    """What the network's output is charged for; see `VoxelLossConfig`."""
    if loss.reconstruction == "occupancy":
        return _occupancy(model, output, target, cells, loss)
    if model.perceptual is not None:
        apart = perceptual(model.perceptual, output, target, losses.occupied(target))
        return {
            "occupancy_aware": (1.0, losses.occupancy_aware(output, target)),
            "perceptual": (loss.perceptual_weight, apart),
            "structure": (loss.structure_weight, losses.structure(output, target)),
        }
    if loss.reconstruction == "mse":
        return {"mse": (1.0, losses.mse(output, target))}
    value = losses.weighted(
        output,
        target,
        occupied_weight=loss.occupied_weight,
        channel_weights=loss.channel_weights,
        false_positive_weight=loss.false_positive_weight,
        mass_weight=loss.mass_weight,
    )
    return {"weighted": (1.0, value)}


def _occupancy(
    model: ScaledAutoencoder,
    output: jax.Array,
    target: jax.Array,
    cells: jax.Array,
    loss: VoxelLossConfig,
) -> Charges:
    logit, full = output[..., 0], losses.occupied(target)
    entropy = losses.cross_entropy(
        logit, full, cells, occupied_weight=loss.occupied_weight, gamma=loss.focal_gamma
    )
    # Values exist in occupied cells; the Doppler (channel 2) where the last channel says so.
    known = jnp.broadcast_to((cells * full)[..., None], (*full.shape, 3))
    known = known.at[..., 1].multiply((target[..., 3] > 0).astype(known.dtype))
    values = losses.features(
        output[..., 1:], model.target(target)[..., 1:], known, squared=loss.feature_squared
    )
    return {
        "occupancy": (loss.bce_weight, entropy),
        "dice": (loss.dice_weight, losses.dice(jax.nn.sigmoid(logit), full, cells)),
        "features": (loss.feature_weight, values),
    }


def _iou(occupancy: jax.Array, target: jax.Array, cells: jax.Array) -> metrics.Mean:
    """Cells in both over cells in either, pooled over examples."""
    predicted = cells * (occupancy > MIDDLE).astype(cells.dtype)
    true = cells * losses.occupied(target)
    both = jnp.sum(predicted * true)
    return metrics.Mean(both, jnp.sum(predicted) + jnp.sum(true) - both)
