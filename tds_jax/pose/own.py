"""A pose network of one's own, in the place of `models.PoseModel`."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax import own
from tds_jax.engine.metrics import Mean
from tds_jax.fields import require
from tds_jax.nn.module import Module
from tds_jax.nn.normalizer import Normalizer

SETTING = "model.name"
LOSS = "loss.own"
METRICS = "eval.own"


class OwnModel(Module):
    """emg (B, T, C) -> poses (B, T - left_context, J) in radians, f32: a pose for every sample.

    network: called with normalised EMG (B, T, C) and keys (B, 2) uint32 in training, else None. Its
    attribute left_context says how many of the first samples get no pose; 0 without it. Whole files
    are predicted in windows of the training length.
    """

    step = 1
    delay = 0
    initial_pose = "zeros"
    windowed = True

    def __init__(
        self, name: str, network: nnx.Module, *, num_channels: int, num_joints: int
    ) -> None:
        require(
            isinstance(network, nnx.Module) and callable(network),
            f"{SETTING}={name!r} makes a {type(network).__name__}; make a flax.nnx.Module",
        )
        self.name, self.num_joints = name, num_joints
        self.normalizer = Normalizer(num_channels)
        self.network = network
        self.left_context = int(getattr(network, "left_context", 0))

    @property
    def receptive_field(self) -> int:
        """The least number of samples that gives a pose."""
        return 1 + self.left_context

    def num_steps(self, length: int) -> int:
        """Poses returned for a window of `length` samples; 0 when it is too short for one."""
        return max(0, length - self.left_context)

    def __call__(
        self, emg: jax.Array, initial_pose: jax.Array | None = None, keys: jax.Array | None = None
    ) -> jax.Array:
        """Poses of emg; initial_pose must be None, it is there for the task's sake."""
        assert initial_pose is None, "model.initial_pose is 'zeros'"
        poses = self.network(self.normalizer(emg), keys)
        expected = (emg.shape[0], self.num_steps(emg.shape[1]), self.num_joints)
        own.require_shape(SETTING, self.name, poses, expected)
        return poses.astype(jnp.float32)


def row_loss(name: str, poses: jax.Array, target: jax.Array) -> jax.Array:
    """(B, N) f32 what a function of one's own charges for each row; 0 for ''."""
    if not name:
        return jnp.zeros(poses.shape[:2], jnp.float32)
    return own.compared(LOSS, name, poses, target, poses.shape[:2]).astype(jnp.float32)


def own_metrics(
    names: Sequence[str], poses: jax.Array, target: jax.Array, weight: jax.Array
) -> dict[str, Mean]:
    """States of functions of one's own, one per example: means over the rows that count."""
    rows = {
        short: own.compared(METRICS, name, poses, target, poses.shape[:2])
        for short, name in own.names_of(METRICS, names).items()
    }
    return {
        short: Mean(
            jnp.sum(weight * values, axis=1, dtype=jnp.float32),
            jnp.sum(weight, axis=1, dtype=jnp.float32),
        )
        for short, values in rows.items()
    }
