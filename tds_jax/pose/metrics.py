"""Metrics of joint angles as states (see `engine.metrics`): angle errors, landmarks, smoothness.

`of` makes one state per example of a batch: poses and targets (B, N, J) radians under weights
(B, N), 1 where a row counts and 0 where it does not.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from tds_jax.engine.metrics import Additive, Regression, divide
from tds_jax.pose import kinematics
from tds_jax.pose.joints import TWENTY, fingers, joint_names, segments
from tds_jax.pose.kinematics import HandModel
from tds_jax.pose.own import own_metrics

DEGREES = 180 / np.pi
# Landmarks are compared this often: every 40th sample at 2 kHz.
LANDMARK_SECONDS = 0.02
LANDMARK_SETS = {
    "landmark_mm": kinematics.SCORED,
    "landmark_moving_mm": kinematics.MOVING,
    "fingertip_mm": kinematics.TIPS,
}
MOTIONS = ("velocity_rad_s", "acceleration_rad_s2", "jerk_rad_s3")

States = dict[str, Any]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AngleError(Regression):
    """A Regression that also speaks of degrees, fingers and segments.

    names: of the angles; () where they are of no hand, or a part of one.
    """

    names: tuple[str, ...] = dataclasses.field(default=(), metadata={"static": True})

    def compute(self, name: str) -> dict[str, float]:
        """As a Regression in rad, and mae_deg; of emg2pose's 20 angles also mae_<finger>_deg and
        mae_{proximal,mid,distal}_deg."""
        mae = self.per_output()["mae"] * DEGREES
        parts = fingers(TWENTY) | segments(TWENTY) if self.names == TWENTY else {}
        return {
            "mae_deg": float(mae.mean()),
            **super().compute("rad"),
            **{f"mae_{part}_deg": float(mae[joints].mean()) for part, joints in parts.items()},
        }


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LandmarkError(Additive):
    """Σ distance per landmark in mm (..., 21), and the rows counted (...)."""

    distance: Any
    weight: Any

    @classmethod
    def of(
        cls,
        hand: HandModel,
        stride: int,
        prediction: jax.Array,
        target: jax.Array,
        weight: jax.Array,
    ) -> Self:
        """(B,) states of every stride-th row, the first row included."""
        prediction, target, weight = (x[:, ::stride] for x in (prediction, target, weight))
        apart = kinematics.distances(hand, prediction.astype(jnp.float32), target)
        return cls(
            distance=jnp.einsum("bn,bnl->bl", weight, apart, precision="highest"),
            weight=jnp.sum(weight, axis=1, dtype=jnp.float32),
        )

    def compute(self, name: str) -> dict[str, float]:
        """landmark_mm (17 landmarks: all but the finger MCPs), landmark_moving_mm (15: without
        wrist and palm either) and fingertip_mm; NaN when nothing was counted.
        """
        return {
            metric: divide(self.distance[list(chosen)].mean(), self.weight)
            for metric, chosen in LANDMARK_SETS.items()
        }


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Motion(Additive):
    """Σ |k-th difference| over rows and joints and how many, for k = 1, 2, 3: both (..., 3).

    rate_hz: rows per second. every_sample: the rows are those of the recording.
    """

    change: Any
    count: Any
    rate_hz: float = dataclasses.field(metadata={"static": True})
    every_sample: bool = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(cls, poses: jax.Array, weight: jax.Array, rate_hz: float, every_sample: bool) -> Self:
        """(B,) states; a difference counts if all the rows it is made of do."""
        change, count = [], []
        difference, counts = poses.astype(jnp.float32), (weight > 0).astype(jnp.float32)
        for _ in MOTIONS:
            difference = jnp.diff(difference, axis=1)
            counts = counts[:, 1:] * counts[:, :-1]
            size = jnp.sum(jnp.abs(difference), axis=-1, dtype=jnp.float32)
            change.append(jnp.sum(counts * size, axis=1, dtype=jnp.float32))
            count.append(jnp.sum(counts, axis=1, dtype=jnp.float32) * poses.shape[-1])
        return cls(jnp.stack(change, axis=-1), jnp.stack(count, axis=-1), rate_hz, every_sample)

    def compute(self, name: str) -> dict[str, float]:
        """velocity_rad_s, acceleration_rad_s2, jerk_rad_s3: mean absolute differences · rate^k.

        With every sample also acceleration_reference and jerk_reference, whose differences are
        multiplied by the rate once, as emg2pose does. Float32 alone gives a jerk of about
        eps·rate³ ≈ 500 rad/s³ at 2 kHz. name 'label_motion' puts label_ before each of these,
        'motion' nothing. NaN where nothing was counted.
        """
        prefix = name.removesuffix("motion")
        mean = [divide(a, b) for a, b in zip(self.change, self.count, strict=True)]
        values = {
            f"{prefix}{metric}": value * self.rate_hz**order
            for order, (metric, value) in enumerate(zip(MOTIONS, mean, strict=True), start=1)
        }
        if self.every_sample:
            values[f"{prefix}acceleration_reference"] = mean[1] * self.rate_hz
            values[f"{prefix}jerk_reference"] = mean[2] * self.rate_hz
        return values


def landmark_stride(rate_hz: float) -> int:
    """Rows from one comparison of landmarks to the next, when rows come rate_hz times a second."""
    return max(1, round(LANDMARK_SECONDS * rate_hz))


def make_compare(
    hand: HandModel | None,
    rate_hz: float,
    every_sample: bool,
    own: Sequence[str] = (),
    names: tuple[str, ...] = (),
) -> Callable[[jax.Array, jax.Array, jax.Array], States]:
    """(poses, target, weight) -> every state, one per example; without a hand no landmarks.

    own: metrics of one's own, see `own.own_metrics`. names: of the joints, () = by their number.
    """

    def compare(poses: jax.Array, target: jax.Array, weight: jax.Array) -> States:
        angle = AngleError.of(poses, target, weight)
        states: States = {
            "angle": dataclasses.replace(angle, names=names or joint_names(poses.shape[-1])),
            "motion": Motion.of(poses, weight, rate_hz, every_sample),
            "label_motion": Motion.of(target, weight, rate_hz, every_sample),
        }
        if hand is not None:
            stride = landmark_stride(rate_hz)
            states["landmark"] = LandmarkError.of(hand, stride, poses, target, weight)
        return states | own_metrics(own, poses, target, weight)

    return compare
