"""One answer to what the radar saw: a U-Net over the cells themselves."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tds_jax.nn.module import Module
from tds_jax.voxel.networks.unet import UNet

AXES = 3


class Direct(Module):
    """(B, D, H, W, channels) -> the same shape, f32; 0 if fresh.

    A `UNet` that is told where each cell is: a ray from the sensors is no ray to a network that
    sees all places alike. unet: its settings. keys are taken, as of any network that may draw, and
    not used.
    """

    def __init__(self, channels: int, **unet: Any) -> None:
        self.unet = UNet(channels + AXES, channels, **unet)

    def __call__(self, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        where = jnp.broadcast_to(places(x.shape[1:4]), (*x.shape[:4], AXES))
        seen = jnp.concatenate([x, where.astype(x.dtype)], axis=-1)
        return self.unet(seen, jnp.zeros(x.shape[0], x.dtype))


def places(shape: tuple[int, ...]) -> np.ndarray:
    """(D, H, W, 3) f32: where each cell is along each axis, from -1 to 1."""
    lines = [(2 * np.arange(n, dtype=np.float32) + 1) / n - 1 for n in shape]
    return np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1)
