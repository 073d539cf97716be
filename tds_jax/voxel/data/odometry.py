"""Where the sensors were at each frame of a scene, from a recorded track of other times."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from tds_jax.data.unreadable import opening
from tds_jax.errors import UserError
from tds_jax.voxel.data.calibration import rigid
from tds_jax.voxel.data.pairing import Pair, seconds_of
from tds_jax.voxel.data.poses import POSES, write_poses

TRACK = "gt_odom.txt"  # NTU4DRadLM's
COLUMNS = "time x y z qx qy qz qw"


def carry_poses(scene: Path, track: str, pairs: Sequence[Pair], place: Path) -> list[str]:
    """Writes a scene's poses.txt into `place`, if the scene has a track; what there is to say.

    A frame's moment is its radar cloud's, as sweeps of the radar are merged (without a radar the
    LiDAR's); its pose lies on the line and the turn between the two poses around it. Up to one step
    of the track beyond its ends the last pose holds; frames further out have no line.
    """
    path = scene / track
    if not track or not path.exists():
        named = bool(track) and track != TRACK
        return [f"{scene}: no {track} in it, so its frames have no poses"] * named
    times = np.array([seconds_of((radar or lidar).stem) for radar, lidar in pairs])
    if not times.all():
        return [f"{path}: not used, as the clouds' names tell no times; write {POSES} by hand"]
    when, where, turn = read_track(path)
    held = np.clip(times, when[0], when[-1])
    known = np.abs(times - held) <= np.median(np.diff(when))
    if not known.any():
        return [
            f"{path}: its times, {when[0]:.3f} to {when[-1]:.3f} s, are not those of the clouds, "
            f"{times.min():.3f} to {times.max():.3f} s; no {POSES} is written"
        ]
    turns = Slerp(when, turn)(held).as_matrix()
    places = np.stack([np.interp(held, when, axis) for axis in where.T], axis=1)
    write_poses(
        place,
        {
            f"{number:06d}": rigid(turns[number].ravel().tolist(), places[number].tolist())
            for number in np.flatnonzero(known)
        },
    )
    return _outside(path, int(np.count_nonzero(~known)), len(pairs))


def read_track(path: Path) -> tuple[np.ndarray, np.ndarray, Rotation]:
    """Rising times (N,) in seconds, places (N, 3) in metres and turns of lines of `COLUMNS`.

    '#' begins a remark. UserError for anything else, and for fewer than two lines.
    """
    try:
        with opening(str(path)):
            text = path.read_text()
        lines = [line.partition("#")[0].split() for line in text.splitlines()]
        rows = np.array([line for line in lines if line], np.float64)
        rows = rows[np.argsort(rows[:, 0])]
        if len(rows) < 2 or rows.shape[1] != 8 or not (np.diff(rows[:, 0]) > 0).all():
            raise ValueError(f"{rows.shape[0]} lines of {rows.shape[1]} numbers, some of one time")
        return rows[:, 0], rows[:, 1:4], Rotation.from_quat(rows[:, 4:])
    except (ValueError, IndexError) as error:
        raise UserError(
            f"{path} is no track ({error}); write lines '{COLUMNS}', in seconds and metres, two or "
            "more of different times, or give --poses=''"
        ) from error


def _outside(path: Path, count: int, frames: int) -> list[str]:
    line = (
        f"{path}: {count} of {frames} frames lie outside its times and have no pose; data.sweeps "
        f"above 1 needs their lines in {POSES}"
    )
    return [line] * bool(count)
