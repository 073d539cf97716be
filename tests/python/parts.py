"""Parts of one's own, as a user writes them."""

import jax
import jax.numpy as jnp
from flax import nnx


class Joints(nnx.Module):
    """(B, T, C) -> (B, T - 8, J): a linear map of the last 9 samples of every electrode."""

    left_context = 8

    def __init__(self, num_channels, num_joints, hidden, dtype, rngs):
        del dtype
        self.up = nnx.Conv(num_channels, hidden, (9,), padding="VALID", rngs=rngs)
        self.down = nnx.Linear(hidden, num_joints, rngs=rngs)

    def __call__(self, emg, keys):
        del keys
        return self.down(jnp.tanh(self.up(emg)))


class Days(nnx.Module):
    """(B, T, H, W, C) -> (B, L, H, W): each lead a linear map of all a cell's days."""

    def __init__(self, num_channels, leads, rngs, days=4):
        self.linear = nnx.Linear(days * num_channels, leads, rngs=rngs)

    def __call__(self, x, train, keys):
        del train, keys
        cells = jnp.moveaxis(x, 1, 3).reshape(x.shape[0], *x.shape[2:4], -1)
        return jnp.moveaxis(self.linear(cells), -1, 1)


class TooMany(Joints):
    def __call__(self, emg, keys):
        return super().__call__(emg, keys)[:, :-1]


class Other:
    """No module of flax."""


def needs_more(num_channels, colour):
    return num_channels, colour


NUMBER = 3


def smooth(poses, target):
    """(B, N) squared error, and squared change of it from row to row."""
    error = poses - target
    change = jnp.pad(jnp.diff(error, axis=1), ((0, 0), (1, 0), (0, 0)))
    return jnp.mean(error**2 + change**2, axis=-1)


def worst(poses, target):
    """(B, N) largest error of a joint."""
    return jnp.max(jnp.abs(poses - target), axis=-1)


def flat(poses, target):
    """One number for a whole batch, which cannot be accumulated."""
    return jnp.mean((poses - target) ** 2)


def biased(prediction, target):
    """(B, L, H, W) squared error, too much counting twice."""
    error = prediction - target
    return jnp.where(error > 0, 2.0, 1.0) * jax.lax.square(error)
