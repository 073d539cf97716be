"""3D variational autoencoder of volumes (B, D, H, W, C).

The architecture of the 4D-Radar reference (its counts, its weights), channels last.
"""

from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax.nn.conv_nd import ConvNd
from tds_jax.nn.noise import key_of
from tds_jax.nn.precision import at_least_f32
from tds_jax.voxel.networks.coder import Autoencoder, Coding, wide

LOGVAR_RANGE = (-30.0, 20.0)
NOISE = 0x5A  # stream of an example's key that the sampling noise is drawn from


class VAE3D(Autoencoder):
    """Volumes (B, D, H, W, in) -> normal latents -> volumes (B, D, H, W, out), no activation.

    base, multipliers: channels of each level; `RESAMPLING` lies between levels, so three levels
    make latents of (D / 2, H / 4, W / 4). blocks: residual blocks per level, 0 to 2 (the decoder
    has one more). attention: at the lowest resolution. span, remat, tile: see `coder.Execution`.
    Parameters are f32, everything between input and output `dtype`, moments and results f32.
    A 1x1x1 convolution stands between sampling and what everyone calls the latent, as in the
    reference: the prior acts before it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        latent_channels: int,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
        **coder: Unpack[Coding],
    ) -> None:
        sizes = in_channels, out_channels, latent_channels, 2 * latent_channels
        super().__init__(*sizes, dtype=dtype, rngs=rngs, **coder)
        point: dict[str, Any] = {"kernel": (1, 1, 1), "dtype": dtype, "rngs": rngs}
        self.quant_conv = ConvNd(latent_channels, latent_channels, **point)
        self.post_quant_conv = ConvNd(latent_channels, latent_channels, **point)

    def encode(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """x (B, D, H, W, in) -> (mean, logvar), each (B, d, h, w, latent) f32.

        logvar is held within LOGVAR_RANGE.
        """
        self.latent_shape(x.shape)
        mean, logvar = jnp.split(wide(self.encoder(x)), 2, axis=-1)
        return mean, jnp.clip(logvar, *LOGVAR_RANGE)

    def quantize(
        self, mean: jax.Array, logvar: jax.Array, keys: jax.Array | None = None
    ) -> jax.Array:
        """The latent of a draw from N(mean, exp(logvar)), f32; without keys that of the mean.

        keys: (B, 2) uint32; an example's noise is a function of its own key alone.
        """
        if keys is not None:
            mean = mean + jnp.exp(0.5 * logvar) * noise(keys, mean.shape[1:]).astype(mean.dtype)
        return wide(self.quant_conv(mean))

    def latent(self, x: jax.Array) -> jax.Array:
        """x (B, D, H, W, in) -> the latent of its mean (B, d, h, w, latent), f32."""
        return self.quantize(*self.encode(x))

    def decode(self, z: jax.Array) -> jax.Array:
        """Latents (B, d, h, w, latent) -> (B, D, H, W, out), f32."""
        return wide(self.decoder(self.post_quant_conv(z)))

    def __call__(
        self, x: jax.Array, keys: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(reconstruction, mean, logvar); keys (B, 2) uint32 sample the latent, None does not."""
        mean, logvar = self.encode(x)
        return self.decode(self.quantize(mean, logvar, keys)), mean, logvar


def noise(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """(B, *shape) standard normal, row b a function of keys[b] alone."""

    def one(key: jax.Array) -> jax.Array:
        return jax.random.normal(key_of(key, NOISE), shape)

    return jax.vmap(one)(keys)


def kl_divergence(mean: jax.Array, logvar: jax.Array) -> jax.Array:
    """(B, ...) each -> (B,): mean over an example of the divergence from N(0, 1), f32.

    A mean, not a sum, over elements: the reference's convention.
    """
    each = -0.5 * (1 + logvar - mean**2 - jnp.exp(logvar))
    return jnp.mean(each, axis=tuple(range(1, mean.ndim)), dtype=at_least_f32(mean.dtype))
