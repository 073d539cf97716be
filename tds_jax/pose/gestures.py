"""Generated movements between whole poses of a hand, and what muscles do to produce them.

Thirteen poses and their timing tell nearly all: good for showing that training works, no good for
ranking models. `freedoms` is.
"""

import dataclasses

import numpy as np

NUM_JOINTS = 20
# Thumb CMC flexion, CMC abduction, MCP, IP; then per finger MCP abduction, MCP, PIP, DIP.
_FINGERS = {"index": 4, "middle": 8, "ring": 12, "pinky": 16}
_THUMB_FLEXED_DEG = (35.0, 10.0, 45.0, 55.0)
_FINGER_FLEXED_DEG = (0.0, 75.0, 95.0, 60.0)
_SPREAD_DEG = {"index": 15.0, "middle": 3.0, "ring": -10.0, "pinky": -20.0}


def _pose(thumb: float = 0.0, spread: float = 0.0, **curl: float) -> np.ndarray:
    """(20,) radians; thumb and each finger's curl from 0 (straight) to 1 (flexed)."""
    pose = np.zeros(NUM_JOINTS)
    pose[:4] = thumb * np.array(_THUMB_FLEXED_DEG)
    for finger, first in _FINGERS.items():
        pose[first : first + 4] = curl.get(finger, 0.0) * np.array(_FINGER_FLEXED_DEG)
        pose[first] = spread * _SPREAD_DEG[finger]
    return np.deg2rad(pose)


def _hook() -> np.ndarray:
    """Fingers bent at both interphalangeal joints with straight knuckles."""
    pose = _pose(index=1.0, middle=1.0, ring=1.0, pinky=1.0)
    pose[[first + 1 for first in _FINGERS.values()]] = 0.0
    return pose


FREE = "free"
HELD_OUT = "held_out_poses"
STAGES: dict[str, tuple[np.ndarray, ...]] = {
    FREE: (
        _pose(),
        _pose(thumb=1, index=1, middle=1, ring=1, pinky=1),
        _pose(thumb=1),
        _pose(index=1),
        _pose(middle=1),
        _pose(ring=1),
        _pose(pinky=1),
        _pose(thumb=1, middle=1, ring=1, pinky=1),
        _pose(thumb=1, ring=1, pinky=1),
        _pose(index=1, middle=1, ring=1, pinky=1),
        _pose(thumb=0.6, index=0.55),
        _pose(thumb=0.5, index=0.5, middle=0.5, ring=0.5, pinky=0.5),
        _pose(spread=1),
    ),
    HELD_OUT: (
        _pose(ring=1, pinky=1),
        _pose(thumb=1, pinky=1),
        _pose(thumb=1, middle=1, ring=1),
        _pose(index=1, middle=1),
        _pose(thumb=0.6, middle=0.6),
        _hook(),
    ),
}
"""Poses a session moves between. No pose of `held_out_poses` occurs in `free`."""


@dataclasses.dataclass(frozen=True)
class Motion:
    """Minimum-jerk moves between poses with holds: move k runs over [start, start + duration].

    poses: (K + 1, 20) radians; starts, durations: (K,) seconds.
    """

    poses: np.ndarray
    starts: np.ndarray
    durations: np.ndarray

    def angles_and_velocities(self, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(T, 20) rad and (T, 20) rad/s at (T,) seconds; still before the first move."""
        move = np.clip(np.searchsorted(self.starts, time, side="right") - 1, 0, None)
        s = np.clip((time - self.starts[move]) / self.durations[move], 0.0, 1.0)[:, None]
        step = np.diff(self.poses, axis=0)[move]
        position = s**3 * (10 - 15 * s + 6 * s**2)
        speed = 30 * s**2 * (1 - s) ** 2 / self.durations[move][:, None]
        return self.poses[move] + step * position, step * speed


def random_motion(stage: str, seconds: float, rng: np.random.Generator) -> Motion:
    """A walk over the poses of a stage that lasts at least `seconds`."""
    library = np.stack(STAGES[stage])
    moves = int(np.ceil(seconds / 0.35)) + 1  # shortest move + shortest hold = 0.35 s
    durations = rng.uniform(0.25, 0.8, moves)
    holds = rng.uniform(0.1, 0.8, moves)
    starts = np.cumsum(np.append(rng.uniform(0.1, 0.5), (durations + holds)[:-1]))
    # A step of 1..P-1 round the library never stays at the same pose.
    steps = rng.integers(1, len(library), moves + 1)
    order = np.cumsum(steps) % len(library)
    scale = rng.uniform(0.6, 1.0, (moves + 1, 1))
    poses = library[order] * scale + rng.normal(0.0, 0.03, (moves + 1, NUM_JOINTS))
    return Motion(poses, starts, durations)


@dataclasses.dataclass(frozen=True)
class Compartment:
    """A part of a muscle: where it lies at the wrist and which joints it moves.

    angle_deg: round the wrist, 0 = volar. depth_mm: below skin and fat. joints: moved by it.
    sign: +1 flexes (or abducts the thumb), -1 extends. reference: rad; posture beyond which
    holding costs effort. position, velocity: drive per 1.4 rad and per 6 rad/s of each joint.
    """

    angle_deg: float
    depth_mm: float
    joints: tuple[int, ...]
    sign: int
    reference: float
    position: float
    velocity: float


def _per_finger(
    angles_deg: tuple[float, ...], depth_mm: float, offsets: tuple[int, ...], sign: int
) -> list[Compartment]:
    reference, position, velocity = (0.15, 0.3, 0.3) if sign > 0 else (0.7, 0.3, 0.3)
    return [
        Compartment(
            angle, depth_mm, tuple(first + o for o in offsets), sign, reference, position, velocity
        )
        for angle, first in zip(angles_deg, _FINGERS.values(), strict=True)
    ]


COMPARTMENTS: tuple[Compartment, ...] = (
    *_per_finger((10, 0, -12, -25), 6, (1, 2), +1),  # flexor digitorum superficialis
    *_per_finger((18, 6, -8, -22), 12, (2, 3), +1),  # flexor digitorum profundus
    *_per_finger((165, 178, -172, -160), 5, (1, 2), -1),  # extensor digitorum communis
    Compartment(160, 5, (5, 6), -1, 0.5, 0.25, 0.3),  # extensor indicis proprius
    Compartment(-150, 5, (17, 18), -1, 0.5, 0.25, 0.3),  # extensor digiti minimi
    Compartment(40, 12, (2, 3), +1, 0.1, 0.4, 0.4),  # flexor pollicis longus
    Compartment(140, 5, (2, 3), -1, 0.4, 0.3, 0.3),  # extensor pollicis longus
    Compartment(100, 5, (0, 1), -1, 0.3, 0.4, 0.4),  # abductor pollicis longus
    Compartment(25, 5, (5, 9), -1, 0.4, 0.12, 0.1),  # flexor carpi radialis, with extension
    Compartment(-60, 5, (13, 17), -1, 0.4, 0.12, 0.1),  # flexor carpi ulnaris, with extension
)
_TONE = 0.02
ELECTROMECHANICAL_DELAY = 0.05  # seconds by which muscles lead the movement


def muscle_drive(motion: Motion, time: np.ndarray) -> np.ndarray:
    """(T, 19) drive in [0, 1] of every compartment at (T,) seconds.

    Both holding (position) and moving (velocity) cost effort, on the acting side only: without
    the first a hold would leave no trace in the EMG. Deterministic in the movement.
    """
    angles, velocities = motion.angles_and_velocities(time + ELECTROMECHANICAL_DELAY)
    drive = np.full((len(time), len(COMPARTMENTS)), _TONE)
    for m, muscle in enumerate(COMPARTMENTS):
        joints = list(muscle.joints)
        beyond = muscle.sign * (angles[:, joints] - muscle.reference) / 1.4
        moving = muscle.sign * velocities[:, joints] / 6.0
        effort = muscle.position * np.clip(beyond, 0, 1.2) + muscle.velocity * np.clip(
            moving, 0, 1.2
        )
        drive[:, m] += effort.sum(axis=1)
    return np.clip(drive, 0.0, 1.0)
