"""Recordings whose signal, labels and times are arrays of their own, read as rows of one table."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tds_jax.errors import UserError

MOST_STEPS = 2.0  # of the labels' clock, between two that are interpolated


@dataclasses.dataclass(frozen=True)
class Roles:
    """Names, in any case, that arrays have in files: of each role one must be there at most."""

    signal: Sequence[str] = ("emg", "semg")
    label: Sequence[str] = ("joint_angles", "angles")
    time: Sequence[str] = ("time", "t", "timestamps", "emg_time")
    label_time: Sequence[str] = ("joint_angles_time", "angles_time", "label_time")
    rate: Sequence[str] = ("sample_rate", "sampling_rate", "fs")


ROLES = Roles()
FIELDS = ("time", "joint_angles", "emg")  # of the rows, where the arrays are there


@dataclasses.dataclass(frozen=True)
class Columns:
    """Arrays side by side, sliced when rows are asked for.

    arrays: by field, (T,) or (T, n), or (n, T) where it is in `turned` (MATLAB's order). clock: the
    times (T',) of labels that have their own; they are then interpolated to the signal's times.
    """

    arrays: Mapping[str, Any]
    turned: frozenset[str]
    rows: int
    dtype: np.dtype
    attributes: Mapping[str, float | str]
    clock: np.ndarray | None

    def read(self, start: int, block: np.ndarray) -> None:
        """Rows from `start` on into all of `block`, (n,) of `dtype`."""
        stop = start + len(block)
        for name in self.dtype.names or ():
            if name == FIELDS[1] and self.clock is not None:
                block[name] = self._labels_at(block[FIELDS[0]])
                continue
            array = self.arrays[name]
            rows = array[:, start:stop].T if name in self.turned else array[start:stop]
            block[name] = rows.reshape(block[name].shape)

    @functools.cached_property
    def _longest(self) -> float:
        """Seconds; of a whole recording's clock, which every window would go through."""
        assert self.clock is not None
        return float(MOST_STEPS * np.median(np.diff(self.clock)))

    def _labels_at(self, times: np.ndarray) -> np.ndarray:
        """(n, J) between labels at most MOST_STEPS of their clock apart; NaN elsewhere."""
        assert self.clock is not None
        right = np.clip(np.searchsorted(self.clock, times, side="left"), 1, len(self.clock) - 1)
        left = right - 1
        step = self.clock[right] - self.clock[left]
        share = ((times - self.clock[left]) / np.where(step > 0, step, 1))[:, None]
        known = (share[:, 0] >= 0) & (share[:, 0] <= 1)
        known &= step <= self._longest
        if not len(times):
            return np.empty((0, 1))
        first, last = int(left.min()), int(right.max()) + 1  # only those are read
        array, turned = self.arrays[FIELDS[1]], FIELDS[1] in self.turned
        labels = np.asarray(array[:, first:last].T if turned else array[first:last], np.float64)
        left, right = left - first, right - first
        valid = np.abs(labels).max(axis=1) > 0
        known &= valid[left] & valid[right]
        mixed = labels[left] + share * (labels[right] - labels[left])
        return np.where(known[:, None], mixed, np.nan)


def columns_of(path: str, found: Mapping[str, Any], attributes: Mapping[str, Any]) -> Columns:
    """The arrays of a file by their roles; UserError, in a line that names what there is.

    found: arrays by name. attributes: of the file, numbers and strings.
    """
    arrays = {role: _only(path, found, role) for role in ("signal", "label", "time", "label_time")}
    signal, label, time, label_time = arrays.values()
    if signal is None:
        raise UserError(
            f"{path}: no array is named {' or '.join(ROLES.signal)}; {_has(found)}; "
            "data.group='emg=PLACE, joint_angles=PLACE' says which it is"
        )
    count, turned = (None, False) if time is None else _times(path, time)
    own = None if label_time is None else np.ravel(np.asarray(label_time, np.float64))
    turned_fields = {"time"} if turned else set()
    rows, turned = _rows(path, "emg", signal, count, label)
    turned_fields |= {"emg"} if turned else set()
    fields: dict[str, Any] = {} if time is None else {"time": time}
    if label is not None:
        _, turned = _rows(path, "joint_angles", label, rows if own is None else len(own), None)
        turned_fields |= {"joint_angles"} if turned else set()
        fields["joint_angles"] = label
    if own is not None and time is None:
        raise UserError(f"{path}: labels have times, the EMG has none; add an array `time` (s)")
    if own is not None:
        _require_clock(path, own)
    fields["emg"] = signal
    kinds = [_kind(path, name, array, name in turned_fields) for name, array in fields.items()]
    if own is not None:
        kinds = [(n, "<f8", *s) if n == "joint_angles" else (n, k, *s) for n, k, *s in kinds]
    rate = _only(path, found, "rate")
    known = dict(attributes) | ({} if rate is None else {"sample_rate": _number(path, rate)})
    return Columns(fields, frozenset(turned_fields), rows, np.dtype(kinds), known, own)


def _times(path: str, time: Any) -> tuple[int, bool]:
    """(how many there are, whether along the second axis); of long recordings none is kept."""
    shape, kind = tuple(np.shape(time)), np.dtype(time.dtype)
    if len(shape) not in (1, 2) or sum(length != 1 for length in shape) > 1:
        raise UserError(f"{path}: time has shape {shape}, expected (rows,)")
    if kind.kind not in "fiu":
        raise UserError(f"{path}: time is of type {kind}, expected numbers")
    return math.prod(shape), len(shape) == 2 and shape[1] > 1


def _require_clock(path: str, times: np.ndarray) -> None:
    """UserError for labels' times that do not rise: what lies between two of them is no label."""
    if len(times) < 2:
        raise UserError(f"{path}: labels have {len(times)} times, expected two or more; add them")
    late = np.flatnonzero(~(np.diff(times) >= 0))
    if late.size:
        at = int(late[0]) + 1
        raise UserError(
            f"{path}: times of labels run backwards at {at} ({times[at - 1]:g}, {times[at]:g}); "
            "sort the labels or cut the file there"
        )


def _only(path: str, found: Mapping[str, Any], role: str) -> Any:
    wanted = getattr(ROLES, role)
    names = [name for name in found if name.lower() in wanted]
    if len(names) > 1:
        raise UserError(
            f"{path}: {' and '.join(sorted(names))} could each be the {role.replace('_', ' ')}; "
            f"leave one of them ({_has(found)})"
        )
    return found[names[0]] if names else None


def _has(found: Mapping[str, Any]) -> str:
    shapes = [f"{name} {tuple(np.shape(array))}" for name, array in sorted(found.items())]
    return f"the file has {', '.join(shapes) or 'no arrays'}"


def _rows(path: str, name: str, array: Any, length: int | None, label: Any) -> tuple[int, bool]:
    """(rows, whether they are the second axis); by the length of a clock or of labels beside."""
    shape = tuple(np.shape(array))
    if len(shape) == 1 and name != "emg":
        shape = (*shape, 1)
    if len(shape) != 2 or 0 in shape:
        raise UserError(f"{path}: {name} has shape {shape}, expected (rows, {name})")
    likely = [length] if length is not None else [*np.shape(label if label is not None else ())]
    axes = [axis for axis in (0, 1) if shape[axis] in likely]
    if length is None and len(axes) != 1:
        axes = [int(np.argmax(shape))] if shape[0] != shape[1] else []
    if len(axes) != 1:
        raise UserError(
            f"{path}: {name} has shape {shape}, of which neither, or either, axis is of "
            f"{length if length is not None else 'time'}{' times' * (length is not None)}; give "
            "labels with a clock of their own an array joint_angles_time (s)"
        )
    return shape[axes[0]], axes[0] == 1


def _kind(path: str, name: str, array: Any, turned: bool) -> tuple[Any, ...]:
    dtype, shape = np.dtype(array.dtype), tuple(np.shape(array))
    if dtype.kind not in "fiu":
        raise UserError(f"{path}: {name} is of type {dtype}, expected numbers")
    width = (shape[::-1] if turned else shape)[1:]
    return (name, "<f8") if name == "time" else (name, dtype, width or (1,))


def _number(path: str, value: Any) -> float:
    values = np.ravel(np.asarray(value[()] if hasattr(value, "shape") else value))
    if values.size != 1 or values.dtype.kind not in "fiu":
        raise UserError(f"{path}: the sample rate is {values!r}, expected one number")
    return float(values[0])
