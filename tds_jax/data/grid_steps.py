"""The steps of a variable over many files, in order of time; files that do not fit are refused."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tds_jax.data.gridded import GridFile
from tds_jax.data.units import is_same
from tds_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Steps:
    """The steps of one variable in order of time: times (n,) datetime64[s], and where each is."""

    times: np.ndarray
    file: np.ndarray
    offset: np.ndarray

    def at(self, chosen: np.ndarray) -> "Steps":
        """Some of the steps, by indices or a mask."""
        return Steps(self.times[chosen], self.file[chosen], self.offset[chosen])


def join_steps(files: Sequence[GridFile], variable: str) -> tuple[Steps, Steps]:
    """The steps of a variable over all files that have it, and those of times already there.

    UserError when times run backwards inside a file.
    """
    chosen = [i for i, one in enumerate(files) if variable in one.attributes and len(one.times)]
    if not chosen:
        raise UserError(f"{variable}: no file has a single time; check the files")
    for i in chosen:
        require_sorted(files[i])
    chosen.sort(key=lambda i: files[i].times[0])
    steps = Steps(
        np.concatenate([files[i].times for i in chosen]),
        np.repeat(chosen, [len(files[i].times) for i in chosen]),
        np.concatenate([np.arange(len(files[i].times)) for i in chosen]),
    )
    steps = steps.at(np.argsort(steps.times, kind="stable"))  # files may interleave
    again = np.diff(steps.times, prepend=steps.times[:1] - 1) == np.timedelta64(0, "s")
    return steps.at(~again), steps.at(again)


def require_same_units(files: Sequence[GridFile], variable: str) -> None:
    """UserError unless the files that name a unit of a variable name the same."""
    having = [one for one in files if one.attributes.get(variable, {}).get("units")]
    said = {one.attributes[variable]["units"]: one.path for one in having}
    (unit, one), *others = said.items() or [("", "")]
    for other_unit, other in others:
        if not is_same(unit, other_unit):
            raise UserError(
                f"{variable} is in {unit!r} in {one}, but in {other_unit!r} in {other}; "
                "convert one of them"
            )


def require_sorted(file: GridFile) -> None:
    """UserError unless times rise strictly within a file."""
    wrong = np.flatnonzero(np.diff(file.times) <= np.timedelta64(0, "s"))
    if len(wrong):
        at = int(wrong[0]) + 1
        repeats = file.times[at] == file.times[at - 1]
        raise UserError(
            f"{file.path}: time {'repeats' if repeats else 'runs backwards'} at step {at} "
            f"({file.times[at - 1]}, {file.times[at]}); sort the steps and drop duplicates"
        )
