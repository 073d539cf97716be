"""Forward kinematics of a hand: 20 joint angles -> 21 landmarks in mm.

A hand at rest is a set of points; joint j turns everything beyond it about an axis through a
point p_j, both given at rest: T_j(x) = R_j x + (p_j - R_j p_j). A finger has four joints, its
frames are T_0 T_1, T_0 T_1 T_2 and T_0 T_1 T_2 T_3. Frames 0 (root) and 1 (wrist) stand still,
2-4 are the thumb's, 5-7 the index finger's … 14-16 the pinky's. Angles are in the order of
`joints.TWENTY`. Differentiable everywhere; memory grows with the number of poses only.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tds_jax.errors import UserError
from tds_jax.fields import require
from tds_jax.pose.joints import FINGERS

ANGLES = 20
FRAMES = 17
WRIST_FRAME = 1

# Landmarks: five tips, wrist, two joints of the thumb, three of each finger, palm centre.
TIPS = (0, 1, 2, 3, 4)
WRIST, PALM = 5, 20
MCPS = (8, 11, 14, 17)
SCORED = tuple(i for i in range(21) if i not in MCPS)
MOVING = tuple(i for i in SCORED if i not in (WRIST, PALM))

# Of Rodrigues' formula: below an angle of 0.01 rad its two factors are those of 0.01 rad.
LEAST_SQUARED_ANGLE = 1e-4
# (v x) = Σ_k v_k CROSS[k]
CROSS = np.array(
    [
        [[0, 0, 0], [0, 0, -1], [0, 1, 0]],
        [[0, 0, 1], [0, 0, 0], [-1, 0, 0]],
        [[0, -1, 0], [1, 0, 0], [0, 0, 0]],
    ]
)

# Wrist to fingertips of an adult hand of middle size, mm.
HAND_LENGTH = 190.0
# Per finger: wrist to first joint and the three bones over hand length (Buchholz et al. 1992), then
# the directions of both parts at rest, degrees from straight ahead towards the pinky (ours).
GEOMETRY = {
    "thumb": ((0.118, 0.251, 0.196, 0.158), -50, -40),
    "index": ((0.463, 0.245, 0.143, 0.097), -14, -6),
    "middle": ((0.446, 0.266, 0.170, 0.108), -2, 0),
    "ring": ((0.421, 0.244, 0.165, 0.107), 10, 5),
    "pinky": ((0.414, 0.204, 0.117, 0.093), 22, 12),
}

# What is read of a UmeTrack hand model.
FIELDS = {
    "joint_rotation_axes": (22, 3),
    "joint_rest_positions": (22, 3),
    "landmark_rest_positions": (21, 3),
    "landmark_rest_bone_weights": (21, 3),
    "landmark_rest_bone_indices": (21, 3),
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HandModel:
    """A hand at rest, in mm.

    axes: (20, 3) rotation axis of every joint, of length 1. joints: (20, 3) a point on each axis.
    landmarks: (21, 3). blend: (21, 17) share of each frame in each landmark, rows adding up to 1.
    """

    axes: Any
    joints: Any
    landmarks: Any
    blend: Any


def landmarks(hand: HandModel, angles: jax.Array) -> jax.Array:
    """angles (..., 20) radians -> landmarks (..., 21, 3) mm, in the angles' dtype.

    All angles zero: the landmarks at rest. Gradients are finite everywhere.
    """
    hand = jax.tree.map(lambda leaf: jnp.asarray(leaf, angles.dtype), hand)
    turn, shift = _frames(hand, angles)
    turned = _einsum("lf,lb,...fab->...la", hand.blend, hand.landmarks, turn)
    return turned + _einsum("lf,...fa->...la", hand.blend, shift)


def distances(hand: HandModel, prediction: jax.Array, target: jax.Array) -> jax.Array:
    """(..., 21) mm between the landmarks of two poses (..., 20); gradient 0 where they meet."""
    gap = landmarks(hand, prediction) - landmarks(hand, target)
    square = jnp.sum(gap**2, axis=-1)
    apart = square > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1)), 0)


def fingertip_distance(hand: HandModel, prediction: jax.Array, target: jax.Array) -> jax.Array:
    """(...) mm, mean over the five fingertips of two poses (..., 20)."""
    return jnp.mean(distances(hand, prediction, target)[..., : len(TIPS)], axis=-1)


def _einsum(pattern: str, *arrays: jax.Array) -> jax.Array:
    # TF32 would cost 0.1 mm.
    return jnp.einsum(pattern, *arrays, precision="highest")


def _rotations(axes: jax.Array, angles: jax.Array) -> jax.Array:
    """axes (J, 3), angles (..., J) -> (..., J, 3, 3)."""
    vector = _einsum("...j,ja->...ja", angles, axes)
    square = jnp.maximum(jnp.sum(vector**2, axis=-1), LEAST_SQUARED_ANGLE)
    angle = jnp.sqrt(square)
    cross = _einsum("...k,kab->...ab", vector, jnp.asarray(CROSS, angles.dtype))
    one = jnp.broadcast_to(jnp.eye(3, dtype=angles.dtype), cross.shape)
    sine, versine = (jnp.sin(angle) / angle)[..., None, None], (1 - jnp.cos(angle)) / square
    return (
        one + sine * cross + versine[..., None, None] * _einsum("...ab,...bc->...ac", cross, cross)
    )


def _frames(hand: HandModel, angles: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Every frame x -> turn x + shift: (..., 17, 3, 3) and (..., 17, 3)."""
    batch = angles.shape[:-1]
    turns = _rotations(hand.axes, angles)
    still = jnp.broadcast_to(hand.joints, (*batch, ANGLES, 3))
    shifts = still - _einsum("...jab,jb->...ja", turns, hand.joints)
    turns = turns.reshape(*batch, len(FINGERS), 4, 3, 3)
    shifts = shifts.reshape(*batch, len(FINGERS), 4, 3)
    turn, shift = turns[..., 0, :, :], shifts[..., 0, :]
    found = []
    for joint in (1, 2, 3):
        shift = shift + _einsum("...ab,...b->...a", turn, shifts[..., joint, :])
        turn = _einsum("...ab,...bc->...ac", turn, turns[..., joint, :, :])
        found.append((turn, shift))
    turn, shift = (jnp.stack(parts, axis=len(batch) + 1) for parts in zip(*found, strict=True))
    root = jnp.broadcast_to(jnp.eye(3, dtype=angles.dtype), (*batch, 2, 3, 3))
    return (
        jnp.concatenate([root, turn.reshape(*batch, FRAMES - 2, 3, 3)], axis=-3),
        jnp.concatenate([jnp.zeros_like(root[..., 0]), shift.reshape(*batch, -1, 3)], axis=-2),
    )


def default_hand(length: float = HAND_LENGTH) -> HandModel:
    """A flat right hand of published proportions, fingers a little spread; float64.

    length: mm. Wrist at the origin, x to the pinky, y ahead, z out of the back of the hand. Flexion
    is positive towards the palm, for the thumb across it; abduction is positive towards the thumb,
    for the thumb away from the palm.
    """
    axes, joints, found = [], [], {WRIST: (np.zeros(3), WRIST_FRAME)}
    for finger, (name, (ratios, outward, ahead)) in enumerate(GEOMETRY.items()):
        sizes, bone = length * np.array(ratios), _direction(ahead)
        points = sizes[0] * _direction(outward) + np.cumsum([0, *sizes[1:]])[:, None] * bone
        # Where the finger bends to: straight into the palm, or half across it.
        across = np.array([bone[1], -bone[0], -1]) / np.sqrt(2)
        inward = across if name == "thumb" else np.array([0.0, 0.0, -1.0])
        flex, spread = np.cross(bone, inward), -inward
        axes += [flex, spread, flex, flex] if name == "thumb" else [spread, flex, flex, flex]
        joints += [points[0], points[0], points[1], points[2]]
        frame = WRIST_FRAME + 3 * finger
        found[finger] = points[3], frame + 3
        inner = {6: 1, 7: 2} if name == "thumb" else {5 + 3 * finger + i: i for i in range(3)}
        for landmark, i in inner.items():
            found[landmark] = points[i], frame + i if i else WRIST_FRAME
    found[PALM] = found[MCPS[1]][0] / 2, WRIST_FRAME
    order = [found[i] for i in range(len(found))]
    return HandModel(
        axes=np.stack(axes),
        joints=np.stack(joints),
        landmarks=np.stack([point for point, _ in order]),
        blend=np.eye(FRAMES)[[frame for _, frame in order]],
    )


def _direction(degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    return np.array([np.sin(angle), np.cos(angle), 0.0])


def read_hand_model(path: str | Path) -> HandModel:
    """A UmeTrack hand model (JSON, mm); float64. Its two wrist joints are not used.

    Raises UserError, one line, for a file that is not one.
    """
    try:
        values = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"eval.hand_model={path} cannot be read ({reason}); give a hand model JSON"
        ) from error
    require(isinstance(values, dict), f"eval.hand_model={path} must hold a JSON object")
    axes, joints, points, weights, bones = (
        _field(path, values, name, shape) for name, shape in FIELDS.items()
    )
    used = weights != 0
    scale = values.get("hand_scale", 1.0)
    checks = {
        f"hand_scale={scale}, expected 1: scale the positions instead": scale == 1,
        "landmark_rest_bone_weights that do not add up to 1": np.allclose(
            weights.sum(axis=1), 1, atol=1e-3
        ),
        f"landmark_rest_bone_indices outside 0..{FRAMES - 1}": np.isin(
            bones[used], np.arange(FRAMES)
        ).all(),
        "joint_rotation_axes that are not of length 1": np.allclose(
            np.linalg.norm(axes[:ANGLES], axis=1), 1, atol=1e-3
        ),
    }
    for problem, fine in checks.items():
        require(bool(fine), f"eval.hand_model={path} has {problem}; check the file")
    blend = np.zeros((len(points), FRAMES))
    np.add.at(blend, (np.nonzero(used)[0], bones[used].astype(int)), weights[used])
    return HandModel(axes[:ANGLES], joints[:ANGLES], points, blend)


def _field(
    path: str | Path, values: dict[str, Any], name: str, shape: tuple[int, ...]
) -> np.ndarray:
    try:
        array = np.asarray(values.get(name), np.float64)
    except (TypeError, ValueError):
        array = np.array(np.nan)
    require(
        array.shape == shape and bool(np.isfinite(array).all()),
        f"eval.hand_model={path}: {name} must be {shape[0]} x {shape[1]} numbers; check the file",
    )
    return array
