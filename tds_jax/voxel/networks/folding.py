"""Blocks of cells folded into channels and back: coarser volumes that have lost nothing."""

import jax

from tds_jax.nn.module import Module
from tds_jax.voxel.data.resize import Shape
from tds_jax.voxel.networks.coder import shape_of_latents


def folded(x: jax.Array, by: Shape) -> jax.Array:
    """(B, D, H, W, C) -> (B, D / d, H / h, W / w, d h w C), by = (d, h, w), which divide."""
    batch, *space, channels = x.shape
    pairs = [n for size, part in zip(space, by, strict=True) for n in (size // part, part)]
    inner = x.reshape(batch, *pairs, channels).transpose(0, 1, 3, 5, 2, 4, 6, 7)
    return inner.reshape(*inner.shape[:4], -1)


def unfolded(x: jax.Array, by: Shape) -> jax.Array:
    """The inverse of `folded`."""
    batch, *small, _ = x.shape
    inner = x.reshape(batch, *small, *by, -1).transpose(0, 1, 4, 2, 5, 3, 6, 7)
    space = (n * part for n, part in zip(small, by, strict=True))
    return inner.reshape(batch, *space, -1)


class Folding(Module):
    """What stands where an autoencoder's network does, and has nothing to learn."""

    def __init__(self, channels: int, by: Shape) -> None:
        self.in_channels, self.factors = channels, by
        self.latent_channels = channels * by[0] * by[1] * by[2]

    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """See `coder.shape_of_latents`."""
        return shape_of_latents(shape, self.factors, self.in_channels, self.latent_channels)

    def latent(self, x: jax.Array) -> jax.Array:
        """(B, D, H, W, C) -> (B, d, h, w, latent)."""
        self.latent_shape(x.shape)
        return folded(x, self.factors)

    def decode(self, z: jax.Array) -> jax.Array:
        """The inverse of `latent`."""
        return unfolded(z, self.factors)
