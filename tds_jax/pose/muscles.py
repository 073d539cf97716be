"""What the muscles of the forearm do to move the freedoms of a generated hand."""

import dataclasses

import numpy as np

from tds_jax.pose import gestures
from tds_jax.pose.gestures import Motion
from tds_jax.pose.joints import FINGERS

ELECTROMECHANICAL_DELAY = 0.05  # seconds by which muscles lead the movement
_TONE = 0.02
_HOLD, _MOVE = 0.32, 0.2  # drive at an end of a freedom, and at _SPEED
_SLACK = 0.6  # a muscle lets go only so far beyond rest
_SPEED = 6.0  # per second, of a freedom


@dataclasses.dataclass(frozen=True)
class Compartment:
    """A part of a muscle: where it lies at the wrist and what it does.

    angle_deg: round the wrist, 0 = volar. depth_mm: below skin and fat. pulls: freedom -> share of
    its strength, of the sign of the direction in which it moves it.
    """

    angle_deg: float
    depth_mm: float
    pulls: dict[str, float]


def _per_finger(
    angles_deg: tuple[float, ...], depth_mm: float, **pulls: float
) -> list[Compartment]:
    return [
        Compartment(angle, depth_mm, {f"{finger}_{name}": pull for name, pull in pulls.items()})
        for finger, angle in zip(FINGERS[1:], angles_deg, strict=True)
    ]


# Muscles of the hand itself (interossei, lumbricals, of the thumb) are taken to be seen from the
# wrist, deeper than they are: without them nothing there would tell of the fingers' spread.
COMPARTMENTS: tuple[Compartment, ...] = (
    *_per_finger((42, 14, -14, -42), 3, curl=1.0, hook=0.5),  # flexor digitorum superficialis
    *_per_finger((138, 166, -166, -138), 3, curl=-1.0, hook=0.5),  # extensor digitorum
    *_per_finger((28, 0, -28, -56), 4, hook=-1.0),  # lumbricals
    *_per_finger((152, 180, -152, -124), 4, spread=1.0),  # dorsal interossei
    Compartment(58, 3, {"thumb_curl": 1.0}),  # flexor pollicis longus
    Compartment(122, 3, {"thumb_curl": -1.0}),  # extensor pollicis longus
    Compartment(74, 3, {"thumb_flexion": 1.0}),  # flexor pollicis brevis
    Compartment(90, 3, {"thumb_flexion": -1.0, "thumb_abduction": 0.5}),  # extensor … brevis
    Compartment(106, 3, {"thumb_abduction": 1.0}),  # abductor pollicis longus
    Compartment(66, 4, {"wrist_flexion": 0.4, "wrist_deviation": 0.4}),  # flexor carpi radialis
    Compartment(-72, 4, {"wrist_flexion": 0.4, "wrist_deviation": -0.4}),  # … ulnaris
    Compartment(114, 4, {"wrist_flexion": -0.4, "wrist_deviation": 0.4}),  # extensor … radialis
    Compartment(-106, 4, {"wrist_flexion": -0.4, "wrist_deviation": -0.4}),  # … ulnaris
)
_PULLS = np.array([[c.pulls.get(name, 0.0) for name in gestures.NAMES] for c in COMPARTMENTS])


def muscle_drive(motion: Motion, time: np.ndarray) -> np.ndarray:
    """(T, M) drive in [0, 1] of every compartment at (T,) seconds.

    Both holding and moving cost effort, on the acting side only: without the first a hold would
    leave no trace in the EMG. All muscles pull together with the motion's stiffness. Deterministic
    in the movement.
    """
    ahead = time + ELECTROMECHANICAL_DELAY
    positions, speeds = motion.controls(ahead)
    drive = np.full((len(time), len(COMPARTMENTS)), _TONE)
    for side in (1.0, -1.0):
        hold = _HOLD * np.clip((side * positions + _SLACK) / (1 + _SLACK), 0, 1)
        move = _MOVE * np.clip(side * speeds / _SPEED, 0, 1.5)
        drive += (hold + move) @ np.clip(side * _PULLS, 0, None).T
    drive += motion.stiffness.at(ahead)[0][:, None]
    return np.clip(drive, 0.0, 1.0)
