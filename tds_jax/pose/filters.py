"""Causal smoothing of predicted poses."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

Carry = dict[str, jax.Array]
"""raw, pose (B, J): the last pose as it came and as it left, NaN before the first; speed (B, J):
low-passed, rad/s."""


@dataclasses.dataclass(frozen=True)
class SpeedAdaptiveFilter:
    """A first-order low-pass per joint whose cut-off rises with that joint's speed.

    cutoff at rest [Hz] + gain [Hz per rad/s] * |speed|, where the speed is low-passed at
    speed_cutoff [Hz]: the 1 euro filter of Casiez et al. (CHI 2012), with the speed of the poses as
    they come. It looks at no later pose, passes the first one unchanged, and lags by
    1 / (2 pi (cutoff + gain * |speed|)) seconds. rate: poses per second.
    """

    cutoff: float
    gain: float
    speed_cutoff: float
    rate: float

    def initial(self, like: jax.Array) -> Carry:
        """The carry before the first pose, for poses of this shape (B, J) and dtype."""
        unknown = jnp.full_like(like, jnp.nan)
        return {"raw": unknown, "pose": unknown, "speed": jnp.zeros_like(unknown)}

    def step(self, carry: Carry, pose: jax.Array) -> tuple[Carry, jax.Array]:
        """pose (B, J) in radians -> (carry, filtered pose)."""
        first = jnp.isnan(carry["raw"])
        last, before = (jnp.where(first, pose, carry[name]) for name in ("pose", "raw"))
        speed = carry["speed"]
        speed = speed + _share(self.speed_cutoff, self.rate) * ((pose - before) * self.rate - speed)
        share = _share(self.cutoff + self.gain * jnp.abs(speed), self.rate)
        filtered = last + share * (pose - last)
        return {"raw": pose, "pose": filtered, "speed": speed}, filtered

    def __call__(self, poses: jax.Array, carry: Carry) -> tuple[jax.Array, Carry]:
        """poses (B, N, J) -> (filtered (B, N, J), carry): `step` for each in turn."""
        carry, filtered = jax.lax.scan(self.step, carry, jnp.swapaxes(poses, 0, 1))
        return jnp.swapaxes(filtered, 0, 1), carry


def _share(cutoff: Any, rate: float) -> Any:
    """The part of a change that a low-pass at `cutoff` Hz lets through in one step."""
    turns = 2 * math.pi / rate * cutoff
    return turns / (1 + turns)


def make_filter(
    name: str, *, cutoff: float, gain: float, speed_cutoff: float, rate: float
) -> SpeedAdaptiveFilter | None:
    """'speed_adaptive': the filter; 'none': None."""
    return None if name == "none" else SpeedAdaptiveFilter(cutoff, gain, speed_cutoff, rate)
