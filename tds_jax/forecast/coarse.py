"""Means over blocks of cells."""

import copy
import functools
from collections.abc import Sequence
from typing import Self

import numpy as np

from tds_jax.data.grid_record import WHOLE, Region
from tds_jax.forecast.gridded_days import Fields


class CoarseFields:
    """`Fields` averaged over blocks of factor x factor cells.

    The mean of a block is over its cells that are there; it is missing if none is. Blocks at the
    lower and right edge may be smaller. Land: a block with any. Coordinates are the blocks' means.
    """

    def __init__(self, fields: Fields, factor: int) -> None:
        self._fields, self._factor = fields, factor
        self.variables, self.target = fields.variables, fields.target
        self.targets = fields.targets
        self.attributes, self.days, self.axes = fields.attributes, fields.days, fields.axes
        self.lat, self.lon = (block_means(axis, factor) for axis in (fields.lat, fields.lon))

    @property
    def notes(self) -> tuple[str, ...]:
        """Those of the fine fields."""
        return self._fields.notes

    @property
    def unusable(self) -> list[str]:
        """Those of the fine fields."""
        return self._fields.unusable

    @functools.cached_property
    def land(self) -> np.ndarray:
        """(H, W) bool: blocks with any land."""
        return self._coarse(self._fields.land.astype(np.float32)) > 0

    def seen(self, days: range) -> np.ndarray:
        """(H, W) bool: blocks with any cell that is seen."""
        return self._coarse(self._fields.seen(days).astype(np.float32)) > 0

    def aimed(self, target: str) -> Self:
        """The same with another target looked at."""
        other = copy.copy(self)
        other.__dict__.pop("land", None)
        other._fields, other.target = self._fields.aimed(target), target
        return other

    def read(
        self, start: int, stop: int, variables: Sequence[str] = (), region: Region = WHOLE
    ) -> np.ndarray:
        """(n, h, w, C) f32 of days[start:stop], NaN where missing; () = all variables."""
        rows, columns = (
            slice(*(edge * self._factor for edge in part.indices(len(axis))[:2]))
            for part, axis in zip(region, (self.lat, self.lon), strict=True)
        )
        return coarsen(self._fields.read(start, stop, variables, (rows, columns)), self._factor)

    def static(self, name: str) -> np.ndarray:
        """(H, W) f32 means of 'FILE:VARIABLE' without time on the files' grid."""
        return self._coarse(self._fields.static(name))

    def _coarse(self, field: np.ndarray) -> np.ndarray:
        return coarsen(field[None, ..., None], self._factor)[0, ..., 0]

    @property
    def paths(self) -> tuple[str, ...]:
        """Those of the fine fields."""
        return self._fields.paths

    def digest(self) -> str:
        """Changes with the fine fields' and the factor."""
        return f"{self._fields.digest()}-{self._factor}"

    def origin(self, start: int, stop: int) -> str:
        """Changes with the fine fields' and the factor."""
        return f"{self._fields.origin(start, stop)}-{self._factor}"


def coarsen(fields: np.ndarray, factor: int) -> np.ndarray:
    """(n, ceil(H/f), ceil(W/f), C) means of the finite values of f x f blocks; NaN where none."""
    finite = np.isfinite(fields)
    total, count = (_block_sums(x, factor) for x in (np.where(finite, fields, 0), finite))
    with np.errstate(invalid="ignore"):
        return (total / count).astype(np.float32)


def _block_sums(values: np.ndarray, factor: int) -> np.ndarray:
    rows, columns = (np.arange(0, n, factor) for n in values.shape[1:3])
    by_row = np.add.reduceat(values, rows, axis=1, dtype=np.float64)
    return np.add.reduceat(by_row, columns, axis=2)


def block_means(axis: np.ndarray, factor: int) -> np.ndarray:
    """Means of blocks of an axis, the last of which may be smaller."""
    starts = range(0, len(axis), factor)
    return np.array([axis[start : start + factor].mean() for start in starts])
