"""What a setting may be: said in the metadata of its field, checked when a group is made.

Also the checks that everybody uses who refuses a value: one line, which names it and the fix.
"""

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

from tds_jax.errors import UserError
from tds_jax.own import is_own

# What else a field says of its setting, in its metadata. A run may go on with another value of a
# FREE one: none changes the trajectory beyond rounding, except that optim.steps moves the end of a
# schedule that has one. A plan depends on PLANNED ones and may change them. "shown": what plans
# call a value. "rises": of eval.metric, how names of metrics begin of which more is better.
FREE = {"free": True}
PLANNED = {"planned": True}


# Endings of files: no folder of several is named so.
FILES = (
    *(".csv", ".gif", ".h5", ".hdf5", ".json", ".jsonl", ".mat", ".nc", ".nc4", ".npy", ".npz"),
    *(".onnx", ".pcd", ".ply", ".png", ".txt", ".zarr"),
)


def option(default: Any, text: str, least: float | None = None) -> Any:
    """A field of a job, see `jobs`: a flag of its door with its help and the least it may be.

    default: dataclasses.MISSING for one that must be given.
    """
    return dataclasses.field(default=default, metadata={"help": text, "low": least})


def require(condition: bool, message: str) -> None:
    """Raises UserError(message) unless the condition holds."""
    if not condition:
        raise UserError(message)


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises UserError unless value is one of the choices."""
    require(value in choices, f"{name}={value!r} is not known; use one of {', '.join(choices)}")


def require_ending(flag: str, path: str | Path, endings: tuple[str, ...]) -> None:
    """Raises UserError for a file that would hold another format than its ending says.

    One without an ending promises nothing; a folder that is there is none.
    """
    place = Path(path)
    require(
        not place.suffix or place.suffix.lower() in endings or place.is_dir(),
        f"{flag}={path} ends in {place.suffix}, but what is written is {' or '.join(endings)}; "
        "name it so",
    )


def require_folder(flag: str, path: str | Path) -> None:
    """Raises UserError for a new folder that is named as a file; one that is there has its name."""
    place = Path(path)
    require(
        place.suffix.lower() not in FILES or place.is_dir(),
        f"{flag}={path} ends in {place.suffix}, but what is written is a folder; name it so",
    )


def require_at_least(name: str, value: float, least: float) -> None:
    """Raises UserError unless value >= least."""
    require(value >= least, f"{name}={value} is too small; use {least} or more")


def require_between(name: str, value: float, low: float, high: float) -> None:
    """Raises UserError unless low <= value <= high."""
    require(low <= value <= high, f"{name}={value} is out of range; use {low} to {high}")


def require_shares(name: str, shares: tuple[float, ...]) -> None:
    """Raises UserError unless shares of train (above 0), val and test add up to 1."""
    require(
        len(shares) == 3 and abs(sum(shares) - 1) < 1e-6 and min(shares) >= 0 < shares[0],
        f"{name}={shares} must be three shares (train, val, test) that add up to 1, none negative "
        "and train above 0",
    )


# What a field's metadata say its setting may be, or each entry of one that is a tuple.
def at_least(low: float) -> dict[str, Any]:
    """No less than that."""
    return {"low": low}


def between(low: float, high: float) -> dict[str, Any]:
    """From low to high, both included."""
    return {"low": low, "high": high}


def one_of(*choices: str) -> dict[str, Any]:
    """One of the words."""
    return {"choices": choices}


def one_of_or_own(*choices: str) -> dict[str, Any]:
    """One of the words, or 'package.module:Name', see `own`."""
    return {"choices": choices, "own": True}


@dataclasses.dataclass(frozen=True)
class Settings:
    """A group of settings, each what its field says it may be; else a UserError names it."""

    _group: ClassVar[str]

    def __init_subclass__(cls, group: str = "") -> None:
        super().__init_subclass__()
        cls._group = group or cls._group

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            for one in value if isinstance(value, tuple) else (value,):
                check_bounds(f"{self._group}.{each.name}", one, **each.metadata)


def check_bounds(
    name: str,
    value: Any,
    choices: Any = (),
    low: Any = None,
    high: Any = None,
    own: bool = False,
    **_: Any,
) -> None:
    """Raises UserError unless a value is what the metadata of its field say it may be."""
    if own and is_own(value):
        return
    if choices:
        require_choice(name, value, choices)
    elif high is not None:
        require_between(name, value, low, high)
    elif low is not None:
        require_at_least(name, value, low)
