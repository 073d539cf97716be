"""What stands around the networks: units, the occupancy logit, latents of unit size, conditions."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax import own
from tds_jax.fields import require
from tds_jax.nn.module import Module
from tds_jax.nn.normalizer import Normalizer
from tds_jax.voxel.data.resize import Shape
from tds_jax.voxel.data.volumes import CHANNELS
from tds_jax.voxel.methods import diffusion, losses
from tds_jax.voxel.networks.coder import Encoder
from tds_jax.voxel.networks.folding import Folding, folded
from tds_jax.voxel.networks.frozen import freeze
from tds_jax.voxel.networks.perceptual import FeatureNet
from tds_jax.voxel.networks.unet import UNet

SETTING = "model.name"
FULL = 0.5  # probability above which a cell of the one answer counts as occupied


def normalized(volume: jax.Array, by: Normalizer) -> jax.Array:
    """A raw volume (B, D, H, W, 4) in train units; empty cells stay 0 in every channel."""
    return by(volume) * losses.occupied(volume)[..., None]


class ScaledAutoencoder(Module):
    """An autoencoder network between raw volumes (B, D, H, W, 4), channel 0 the occupancy.

    logits: the network sees values normalised over occupied cells of the train split, and answers
    with an occupancy logit in channel 0; otherwise it sees and answers raw values. network:
    `VAE3D` or `VQVAE3D`. perceptual: what a loss needs beside it, or None.
    """

    def __init__(self, network: Any, *, logits: bool, perceptual: FeatureNet | None) -> None:
        self.network = network
        self.logits = logits
        self.target = Normalizer(CHANNELS)
        self.perceptual = nnx.data(perceptual)

    def inside(self, volume: jax.Array) -> jax.Array:
        """What the network sees of a raw volume."""
        return normalized(volume, self.target) if self.logits else volume

    def outside(self, output: jax.Array) -> jax.Array:
        """Raw values of what the network answers; with logits, channel 0 is a probability."""
        if not self.logits:
            return output
        probability = jax.nn.sigmoid(output[..., :1])
        return jnp.concatenate([probability, self.target.inverse(output)[..., 1:]], axis=-1)

    def latent(self, volume: jax.Array) -> jax.Array:
        """(B, d, h, w, latent) f32, without noise."""
        return self.network.latent(self.inside(volume))

    def decode(self, latent: jax.Array) -> jax.Array:
        """Latents -> raw volumes; those of a codebook are looked up in it first."""
        return self.outside(self.network.decode(self.network.learned(latent)))

    def expected(self, answer: jax.Array) -> jax.Array:
        """The latent of a raw volume whose channel 0 is a probability.

        Its cells are made full or empty, as the network has seen them.
        """
        full = (answer[..., :1] > FULL).astype(answer.dtype)
        return self.latent(jnp.concatenate([full, answer[..., 1:] * full], axis=-1))


class FoldedCells(Module):
    """Raw volumes (B, D, H, W, 4), channel 0 the occupancy, as latents without an autoencoder.

    Blocks of cells become channels, see `folding`: what is near in latents is near in cells, and
    nothing is lost. In them occupied cells are 1 in channel 0 and empty ones -1; other channels are
    normalised over occupied cells of the train split, and 0 in empty ones.
    """

    def __init__(self, by: Shape) -> None:
        self.network = Folding(CHANNELS, by)
        self.target = Normalizer(CHANNELS)

    def latent(self, volume: jax.Array) -> jax.Array:
        """(B, d, h, w, latent) f32."""
        full = losses.occupied(volume)[..., None]
        return self.expected(jnp.concatenate([full, volume[..., 1:]], axis=-1))

    def expected(self, answer: jax.Array) -> jax.Array:
        """The mean over latents of what a raw volume says, its channel 0 a probability."""
        likely = answer[..., :1]
        values = (self.target(answer) * likely)[..., 1:]
        return self.network.latent(jnp.concatenate([2 * likely - 1, values], axis=-1))

    def decode(self, latent: jax.Array) -> jax.Array:
        """Latents -> raw volumes, channel 0 a probability: of -1 or 1 the mean tells it."""
        cells = self.network.decode(latent)
        probability = jnp.clip((cells[..., :1] + 1) / 2, 0, 1)
        return jnp.concatenate([probability, self.target.inverse(cells)[..., 1:]], axis=-1)


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

    def volume(self, radar: jax.Array) -> jax.Array:
        """The answer in raw values, channel 0 a probability where the network answers logits."""
        return self.around.outside(self(radar))


class LatentDenoiser(Module):
    """Estimates the latent of the target from a noisy one and the radar's volume.

    The radar has an encoder of its own, trained with the U-Net: the autoencoder's has only ever
    seen targets. Latents are brought to mean 0 and standard deviation `data` by `latent`, fitted on
    the train split. autoencoder: frozen. direct: one answer to the radar, frozen, that the encoder
    sees beside it; or None. anchored: samples lie around that answer's own latent, see `anchor`.
    guidance: how far samples go from what is likely at all to what the radar says, 1 = as likely as
    it is. fold: cells that become channels before the encoder sees them.
    """

    def __init__(
        self,
        autoencoder: ScaledAutoencoder | FoldedCells,
        encoder: Encoder,
        unet: UNet,
        direct: Answer | None,
        *,
        data: float,
        guidance: float,
        anchored: bool,
        fold: Shape,
    ) -> None:
        self.data, self.guidance, self.anchored, self.fold = data, guidance, anchored, fold
        self.direct = nnx.data(freeze(direct) if direct else None)
        self.radar = Normalizer(CHANNELS)
        self.encoder = encoder
        self.unet = unet
        self.latent = Normalizer(autoencoder.network.latent_channels)
        self.autoencoder = freeze(autoencoder)

    def scaled(self, latent: jax.Array) -> jax.Array:
        """The autoencoder's latent with standard deviation `data`."""
        return self.latent(latent) * self.data

    def decode(self, scaled: jax.Array) -> jax.Array:
        """Raw volumes of scaled latents."""
        return self.autoencoder.decode(self.latent.inverse(scaled / self.data))

    def condition(self, radar: jax.Array) -> jax.Array:
        """Raw radar (B, D, H, W, 4) -> its latents (B, d, h, w, C) f32."""
        seen = normalized(radar, self.radar)
        if self.direct is not None:
            said = self.direct.volume(radar)
            # Values of cells that are hardly occupied are hardly known.
            likely = self.direct.around.target(said) * said[..., :1]
            seen = jnp.concatenate([seen, likely.astype(seen.dtype)], axis=-1)
        return self.encoder(folded(seen, self.fold)).astype(jnp.float32)

    def anchor(self, radar: jax.Array) -> jax.Array:
        """Raw radar -> scaled latent of the one answer to it, (B, d, h, w, C); 0 if not anchored.

        What is denoised is the difference from it, so that a network that has learned nothing yet
        repeats the answer; of folded cells all but values of cells that are not sure, which come
        back as far from the mean as the cell is likely.
        """
        if self.direct is None or not self.anchored:
            return jnp.zeros(())
        said = self.direct.volume(radar)
        return jax.lax.stop_gradient(self.scaled(self.autoencoder.expected(said)))

    def network(self, condition: jax.Array) -> diffusion.Denoise:
        """The U-Net with its condition; to be put between `diffusion.mix` factors."""

        def run(x: jax.Array, time: jax.Array) -> jax.Array:
            return self.unet(jnp.concatenate([x, condition], axis=-1), time)

        return run

    def denoise(self, condition: jax.Array) -> diffusion.Denoise:
        """(noisy scaled latent, sigma) -> estimate of the scaled latent."""
        network = self.network(condition)

        def estimate(x: jax.Array, sigma: jax.Array) -> jax.Array:
            return diffusion.apply(network, diffusion.mix(sigma, self.data), x)

        return estimate

    def guided(self, condition: jax.Array) -> diffusion.Denoise:
        """`denoise` as samples are drawn with: away from the estimate without a condition.

        Ho & Salimans, "Classifier-free diffusion guidance" (2022); their w is guidance - 1.
        """
        known = self.denoise(condition)
        if self.guidance == 1:
            return known
        free = self.denoise(jnp.zeros_like(condition))

        def estimate(x: jax.Array, sigma: jax.Array) -> jax.Array:
            base = free(x, sigma)
            return base + self.guidance * (known(x, sigma) - base)

        return estimate


class Changes(Module):
    """Zeros in the shapes of a nested dict of weights, to be learned and added to them."""

    def __init__(self, weights: dict[str, Any]) -> None:
        for name, value in weights.items():
            zeros = Changes(value) if isinstance(value, dict) else nnx.Param(jnp.zeros_like(value))
            setattr(self, name, zeros)


class Distilled(Module):
    """A frozen teacher and what its student has learned beyond it.

    The student is the teacher with `change`, zeros at first, added to its trained weights. So it
    starts as the teacher, weight decay pulls it back there, and an average of changes is one of
    students.
    """

    def __init__(self, teacher: LatentDenoiser) -> None:
        self.change = Changes({name: _weights(getattr(teacher, name)) for name in LEARNED})
        self.teacher = freeze(teacher)

    def student(self) -> LatentDenoiser:
        """The teacher with the changes in it; gradients flow to them."""
        graphdef, _ = nnx.split(self.teacher)
        weights, changes = _weights(self.teacher), _weights(self.change)
        for name in LEARNED:
            weights[name] = jax.tree.map(jnp.add, weights[name], changes[name])
        return nnx.merge(graphdef, weights)


LEARNED = ("encoder", "unet")  # the parts of a LatentDenoiser that are trained


def _weights(module: nnx.Module) -> dict[str, Any]:
    return nnx.to_pure_dict(nnx.state(module))
