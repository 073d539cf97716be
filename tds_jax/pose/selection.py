"""What of a folder a run uses: which sessions, electrodes and signs of the labels."""

import dataclasses
import difflib
import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tds_jax.errors import UserError

# A setting of `data` and the group column it filters.
FILTERS = {"users": "user", "stages": "stage", "sides": "side"}
SIDES = ("left", "right")


@dataclasses.dataclass(frozen=True)
class Selection:
    """Settings of `data` of the same names; () stands for everything.

    users, stages, sides: sessions that count. subsample: share of the train sessions that is used.
    channels: columns of the files' EMG, in the order in which the model gets them.
    joint_names: of the angles, in the order of the files. flip_left: names of joints whose angles
    change sign in recordings of left hands.
    """

    users: tuple[str, ...]
    stages: tuple[str, ...]
    sides: tuple[str, ...]
    subsample: float
    channels: tuple[int, ...]
    joint_names: tuple[str, ...]
    flip_left: tuple[str, ...]

    def wanted(self) -> dict[str, tuple[str, ...]]:
        """Values that count, by group column, where not all do."""
        pairs = ((column, getattr(self, setting)) for setting, column in FILTERS.items())
        return {column: values for column, values in pairs if values}

    def admits(self, row: Mapping[str, str]) -> bool:
        """False where a row of group columns rules a session out; a missing value does not."""
        return all((row.get(c) or values[0]) in values for c, values in self.wanted().items())

    def require_known(self, rows: Iterable[Mapping[str, str]]) -> None:
        """Raises UserError naming a filter's value that no row has, and the nearest ones."""
        rows = list(rows)
        for setting, column in FILTERS.items():
            known = {row.get(column, "") for row in rows} - {""}
            for name in getattr(self, setting):
                require_name(f"data.{setting}", name, sorted(known))


def require_name(setting: str, name: str, known: Sequence[str]) -> None:
    """Raises UserError unless the name is known, with those that come near it."""
    if name in known:
        return
    near = difflib.get_close_matches(name, known, 3)
    shown = near or list(known[:8]) or ["none"]
    more = "" if near or len(known) <= len(shown) else f" and {len(known) - len(shown)} more"
    raise UserError(
        f"{setting} has {name!r}, which is not there; "
        f"{'did you mean' if near else 'known here'}: {', '.join(shown)}{more}"
    )


def sampled(names: Sequence[bytes], share: float, seed: int) -> np.ndarray:
    """Positions, ascending, of the share of names that come first in an order fixed by the seed.

    At least one. The order is by a hash of each name: a smaller share is a part of a larger one,
    and a new name does not change the order of the others.
    """

    def place(i: int) -> bytes:
        return hashlib.blake2b(names[i], salt=seed.to_bytes(8, "little")).digest()

    count = max(1, round(share * len(names)))
    return np.sort(np.array(sorted(range(len(names)), key=place)[:count], np.int64))


def select_channels(emg: np.ndarray, channels: tuple[int, ...]) -> np.ndarray:
    """(n, C) -> the given columns in the given order; all of them as they are for ()."""
    return emg[:, list(channels)] if channels else emg


def joint_numbers(names: Sequence[str], known: Sequence[str]) -> tuple[int, ...]:
    """Columns of the named joints among the known ones."""
    for name in names:
        require_name("data.flip_left", name, known)
    return tuple(known.index(name) for name in names)


def require_side(side: str, where: str) -> None:
    """Raises UserError, naming the recording `where`, unless it tells which hand it is of."""
    if side not in SIDES:
        raise UserError(
            f"{where}: side is {side!r}, but data.flip_left needs 'left' or 'right'; write it into "
            "metadata.csv or the attribute 'side', or use data.flip_left=()"
        )


def flip(angles: np.ndarray, joints: tuple[int, ...], side: str, where: str) -> np.ndarray:
    """(n, J) radians with the signs of `joints` changed if the side is left; see `require_side`."""
    if not joints:
        return angles
    require_side(side, where)
    if side == "left":
        angles = angles.copy()
        angles[:, list(joints)] *= -1
    return angles
