"""Which label rows count, and labels that stand on few of a recording's rows."""

from collections.abc import Callable

import numpy as np

from tds_jax.errors import UserError

DEGREE = np.pi / 180
UNITS = ("auto", "rad", "deg")  # data.angle_unit: by the files' attribute, or whatever it says
MOST_RADIANS = 2 * np.pi  # that a joint's angle may reach; beyond, files are in degrees
FAILURE_ATOL = 1e-8  # rad; inverse kinematics marks a failed row with all angles zero
FIRST_ROWS = 65_536  # labels are sparse if those are that begin in the first such block with any
LEAST_RUNS = 10  # of label rows, apart, to speak of a step between them
MOST_SECONDS = 0.1  # from label to label, for the rows between to be interpolated


def valid_rows(joint_angles: np.ndarray) -> np.ndarray:
    """(n, J) radians -> (n,) bool: False where all angles are 0 within 1e-8 (a failed row).

    Rows with NaN or Inf are False too.
    """
    largest = np.abs(joint_angles).max(axis=1)  # NaN where an angle is
    return np.asarray((largest > FAILURE_ATOL) & (largest < np.inf))


def declared(setting: str, attribute: str) -> str:
    """What a file's labels are said to be in: by the setting, or else by the file; '' = by none."""
    return (setting if setting != "auto" else attribute).strip().lower()


def radians_per_unit(setting: str, attribute: str, where: str) -> float:
    """What a file's labels are multiplied by; UserError, naming it, for a unit that is not known.

    setting: of UNITS. attribute: the file's own word, '' = rad.
    """
    unit = declared(setting, attribute)
    if unit[:3] not in ("", "rad", "deg"):
        raise UserError(
            f"{where}: attribute 'angle_unit' is {attribute!r}, expected 'rad' or 'deg'; correct it"
            " or set data.angle_unit"
        )
    return DEGREE if unit.startswith("deg") else 1.0


def in_radians(angles: np.ndarray, scale: float) -> np.ndarray:
    """The angles times `scale`, in their type; as they are where it is 1."""
    return angles if scale == 1 else (angles * angles.dtype.type(scale))


def seem_degrees(unit: str, reached: float) -> str:
    """What is said of labels that reach so many radians, '' if they may be.

    unit: see `declared`; what is said of labels is believed.
    """
    if unit or not reached > MOST_RADIANS:
        return ""
    return (
        f"joint angles reach {reached:.4g}, which looks like degrees; declare them with "
        "data.angle_unit='deg' or the attribute angle_unit='deg', or, if they are not, 'rad'"
    )


def runs_of(flags: np.ndarray) -> np.ndarray:
    """(n,) bool -> (m, 2) half-open runs of true rows."""
    edges = np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8))
    return np.stack([np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)], axis=1)


def label_step(runs: np.ndarray, rate_hz: float) -> int:
    """Rows from one label to the next of sparse labels; 1 where labels follow row by row.

    runs: (m, 2) of a recording's valid rows, or those of its first FIRST_ROWS with any. Labels are
    sparse where the runs are mostly no longer than the gaps between them and come at least every
    MOST_SECONDS: slower labels tell nothing of the rows between, failures among dense labels have
    longer runs around them.
    """
    if not len(runs):
        return 1
    end = (runs[0, 0] // FIRST_ROWS + 1) * FIRST_ROWS
    start, stop = runs[runs[:, 0] < end].T
    if len(start) < LEAST_RUNS:
        return 1
    steps, gaps = np.diff(start), start[1:] - stop[:-1]
    # The last run may go on in the next block: its length does not count.
    if np.median((stop - start)[:-1]) > np.median(gaps):
        return 1
    step = round(float(np.median(steps)))
    return step if step <= MOST_SECONDS * rate_hz else 1


def first_label_step(labels: Callable[[int, int], np.ndarray], rows: int, rate_hz: float) -> int:
    """`label_step` of a recording from as few of its labels(start, stop) as tell it."""
    for start in range(0, rows, FIRST_ROWS):
        runs = runs_of(valid_rows(labels(start, min(start + FIRST_ROWS, rows))))
        if len(runs):
            return label_step(runs, rate_hz)
    return 1


def reach(step: int) -> int:
    """Rows between which labels are interpolated: less than two steps, so none is missing there."""
    return 2 * step - 1 if step > 1 else 0


def bridged(runs: np.ndarray, most: int) -> np.ndarray:
    """(m, 2) runs of the rows that `filled` gives a label."""
    if not most or not len(runs):
        return runs
    apart = runs[1:, 0] - (runs[:-1, 1] - 1) > most
    start = runs[np.concatenate([[True], apart]), 0]
    return np.stack([start, runs[np.concatenate([apart, [True]]), 1]], axis=1)


def filled(angles: np.ndarray, most: int) -> np.ndarray:
    """(n, J) with rows between two labels at most `most` (`reach`) apart interpolated linearly.

    The same for any block that holds so many rows more on both sides of the rows wanted.
    """
    at = np.flatnonzero(valid_rows(angles)) if most else np.zeros(0, np.int64)
    if len(at) < 2:
        return angles
    rows = np.arange(at[0], at[-1])
    right = np.searchsorted(at, rows, side="right")
    left, right = at[right - 1], at[right]
    between = (rows > left) & (right - left <= most)
    rows, left, right = rows[between], left[between], right[between]
    share = ((rows - left) / (right - left))[:, None]
    result = angles.copy()
    result[rows] = angles[left] + share * (angles[right] - angles[left])
    return result


def require_rows(count: int) -> None:
    """UserError if nothing is there to fit a baseline to."""
    if not count:
        raise UserError(
            "the training split has 0 valid label rows; the baselines need at least one: "
            "check joint_angles (an all-zero row is a failed label)"
        )
