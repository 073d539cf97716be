"""Generated hand movements: every freedom of fingers and wrist moves by itself, all the time."""

import dataclasses

import numpy as np

from tds_jax.pose.joints import FINGERS, TWENTY

NUM_JOINTS = len(TWENTY)


# Degrees at rest, half curled.
_REST_DEG = {"mcp_aa": 0.0, "mcp_fe": 35.0, "pip_fe": 55.0, "dip_fe": 35.0}
_THUMB_REST_DEG = (10.0, 10.0, 25.0, 25.0)


def _freedoms() -> dict[str, dict[str, float]]:
    """{freedom: {joint: degrees from rest to its end at 1}}."""
    found = {
        "thumb_flexion": {"thumb_cmc_fe": 22.0},
        "thumb_abduction": {"thumb_cmc_aa": 18.0},
        "thumb_curl": {"thumb_mcp_fe": 28.0, "thumb_ip_fe": 38.0},
    }
    for finger in FINGERS[1:]:
        curl = {"mcp_fe": 30.0, "pip_fe": 42.0, "dip_fe": 28.0}
        hook = {"mcp_fe": -20.0, "pip_fe": 15.0, "dip_fe": 10.0}
        for name, reach in (("curl", curl), ("hook", hook), ("spread", {"mcp_aa": 12.0})):
            found[f"{finger}_{name}"] = {f"{finger}_{j}": deg for j, deg in reach.items()}
    return found | {"wrist_flexion": {}, "wrist_deviation": {}}  # no label shows the wrist


FREEDOMS = _freedoms()
NAMES = tuple(FREEDOMS)
CURLS = tuple(name for name in NAMES if name.endswith("_curl"))
_REST = np.deg2rad([*_THUMB_REST_DEG, *(4 * tuple(_REST_DEG.values()))])
_REACH = np.deg2rad([[FREEDOMS[name].get(joint, 0.0) for joint in TWENTY] for name in NAMES])


@dataclasses.dataclass(frozen=True)
class Stage:
    """How people move in a session. Times are in seconds.

    move, hold: shortest and longest. together: share of a finger's moves in which it goes where the
    hand as a whole goes, opening or closing. stiffness: mean share of their strength with which
    all muscles pull against each other.
    """

    move: tuple[float, float]
    hold: tuple[float, float]
    together: float
    stiffness: float


FREE = "free"
HELD_OUT = "fast_fingers"
STAGES = {
    FREE: Stage(move=(0.3, 0.9), hold=(0.0, 0.5), together=0.6, stiffness=0.03),
    HELD_OUT: Stage(move=(0.2, 0.5), hold=(0.0, 0.3), together=0.0, stiffness=0.08),
}
"""Held out are fingers that go each its own way (combinations rare in `free`), fast and stiff."""


@dataclasses.dataclass(frozen=True)
class Moves:
    """Minimum-jerk moves with holds between: move k runs over [start, start + duration].

    targets: (K + 1,), before the first move and after each. starts, durations: (K,) seconds.
    """

    targets: np.ndarray
    starts: np.ndarray
    durations: np.ndarray

    def at(self, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(T,) position and (T,) speed per second at (T,) seconds; still before the first move."""
        move = np.clip(np.searchsorted(self.starts, time, side="right") - 1, 0, None)
        s = np.clip((time - self.starts[move]) / self.durations[move], 0.0, 1.0)
        step = np.diff(self.targets)[move]
        position = s**3 * (10 - 15 * s + 6 * s**2)
        speed = 30 * s**2 * (1 - s) ** 2 / self.durations[move]
        return self.targets[move] + step * position, step * speed


@dataclasses.dataclass(frozen=True)
class Motion:
    """A session's movement: of every freedom, in the order of NAMES, and of the stiffness.

    A freedom is at 0 at rest, at -1 and 1 at its ends.
    """

    freedoms: tuple[Moves, ...]
    stiffness: Moves

    def controls(self, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(T, F) positions of the freedoms and (T, F) speeds at (T,) seconds."""
        each = [moves.at(time) for moves in self.freedoms]
        return np.stack([p for p, _ in each], axis=1), np.stack([v for _, v in each], axis=1)

    def angles_and_velocities(self, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(T, 20) rad and (T, 20) rad/s at (T,) seconds."""
        positions, speeds = self.controls(time)
        return _REST + positions @ _REACH, speeds @ _REACH


def random_motion(stage: str, seconds: float, rng: np.random.Generator) -> Motion:
    """Moves of a stage that go on for at least `seconds`."""
    how = STAGES[stage]
    grips = _random_moves(how, seconds, rng)
    freedoms = []
    for name in NAMES:
        own = _random_moves(how, seconds, rng)
        freedoms.append(_joining(own, grips, how.together, rng) if name in CURLS else own)
    calm = _random_moves(STAGES[FREE], seconds, rng)
    strength = how.stiffness * rng.exponential(size=len(calm.targets))
    return Motion(tuple(freedoms), dataclasses.replace(calm, targets=strength))


def _random_moves(stage: Stage, seconds: float, rng: np.random.Generator) -> Moves:
    """Moves to places anywhere in [-1, 1], more often near its ends."""
    moves = int(np.ceil(seconds / (stage.move[0] + stage.hold[0]))) + 1
    durations = rng.uniform(*stage.move, moves)
    holds = rng.uniform(*stage.hold, moves)
    starts = np.cumsum(np.append(rng.uniform(0, stage.hold[1]), (durations + holds)[:-1]))
    targets = np.sin(np.pi / 2 * rng.uniform(-1, 1, moves + 1))
    return Moves(targets, starts, durations)


def _joining(own: Moves, grips: Moves, share: float, rng: np.random.Generator) -> Moves:
    """The grips, a share of their targets mostly, the others one's own; one's own moves at 0."""
    if not share:
        return own
    with_grip = rng.uniform(size=len(grips.targets)) < share
    targets = np.where(with_grip, 0.8 * grips.targets + 0.2 * own.targets, own.targets)
    return dataclasses.replace(grips, targets=targets)
