"""A distance between volumes in the features of a random, frozen network."""

import itertools

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax.nn.conv_nd import ConvNd
from tds_jax.nn.module import Module
from tds_jax.voxel.networks.frozen import freeze

CHANNELS = (32, 64, 128, 128)
SLOPE = 0.2
EPS = 1e-5
MASK_FLOOR = 0.1  # what an empty cell counts


class FeatureNet(Module):
    """(B, D, H, W, C) -> features of four stages, each half as large along every axis.

    A stage is twice convolution, instance norm, leaky ReLU; the first convolution has stride 2.
    1,745,984 weights at 4 channels, `Statistic`s: drawn once, kept in every checkpoint.
    """

    def __init__(self, channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        for n, (inputs, outputs) in enumerate(itertools.pairwise((channels, *CHANNELS))):
            for half, (c, stride) in enumerate(((inputs, 2), (outputs, 1))):
                conv = ConvNd(c, outputs, (3, 3, 3), stride=stride, dtype=dtype, rngs=rngs)
                setattr(self, f"stage_{n}_{half}", conv)
        freeze(self)

    def __call__(self, x: jax.Array) -> list[jax.Array]:
        """The features of every stage, finest first."""
        found = []
        for n in range(len(CHANNELS)):
            for half in range(2):
                x = getattr(self, f"stage_{n}_{half}")(x)
                x = jax.nn.leaky_relu(_instance_norm(x), SLOPE)
            found.append(x)
        return found


def _instance_norm(x: jax.Array) -> jax.Array:
    wide = x.astype(jnp.float32)
    centred = wide - jnp.mean(wide, axis=(1, 2, 3), keepdims=True)
    variance = jnp.mean(centred**2, axis=(1, 2, 3), keepdims=True)
    return (centred * jax.lax.rsqrt(variance + EPS)).astype(x.dtype)


def perceptual(
    net: FeatureNet, output: jax.Array, target: jax.Array, mask: jax.Array | None
) -> jax.Array:
    """(B,): mean |features(output) - features(target)|, averaged over the stages.

    mask (B, D, H, W): differences count its trilinearly resized value + 0.1; None: all count 1.
    """
    pairs = zip(net(output), net(target), strict=True)
    stages = [_stage(a, b, mask) for a, b in pairs]
    return sum(stages[1:], stages[0]) / len(stages)


def _stage(a: jax.Array, b: jax.Array, mask: jax.Array | None) -> jax.Array:
    apart = jnp.abs(a.astype(jnp.float32) - b.astype(jnp.float32))
    if mask is not None:
        # antialias would blur: PyTorch's interpolation reads points, whatever the ratio.
        small = jax.image.resize(mask, a.shape[:4], "linear", antialias=False)
        apart = apart * (small + MASK_FLOOR)[..., None]
    return jnp.mean(apart, axis=(1, 2, 3, 4))
