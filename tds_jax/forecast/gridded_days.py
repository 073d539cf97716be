"""What daily fields, or those of finer steps, are to those who read them."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np

from tds_jax.data.grid_record import WHOLE, Region


class Fields(Protocol):
    """Daily fields on a grid, read on demand; picklable.

    variables: (C) names, the targets among them. targets: (K) what is forecast, the headline first;
    target: that of them that is looked at. attributes: by variable, as stored (units …).
    lat (H,), lon (W,): degrees in the file's order; axes: their names in the file. days: (N,)
    datetime64 of the unit of their step, see `forecast.steps`, rising, gaps allowed.
    """

    variables: tuple[str, ...]
    targets: tuple[str, ...]
    target: str
    attributes: Mapping[str, Mapping[str, Any]]
    lat: np.ndarray
    lon: np.ndarray
    axes: tuple[str, str]
    days: np.ndarray

    @property
    def notes(self) -> tuple[str, ...]:
        """A line for all that is read otherwise than as it stands, or left out."""

    @property
    def unusable(self) -> list[str]:
        """A line for each file that could not be opened or, as far as was tried, read."""

    @property
    def land(self) -> np.ndarray:
        """(H, W) bool: cells where the target can be known."""

    def seen(self, days: range) -> np.ndarray:
        """(H, W) bool: the land on which the target is known on any of days (indices)."""

    def aimed(self, target: str) -> Self:
        """The same with another target looked at; same days."""

    def read(
        self, start: int, stop: int, variables: Sequence[str] = (), region: Region = WHOLE
    ) -> np.ndarray:
        """(n, h, w, C) f32 of days[start:stop], NaN where missing; () = all variables."""

    def static(self, name: str) -> np.ndarray:
        """(H, W) f32 of 'FILE:VARIABLE' without time on the files' grid, such as soil texture."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The files that are read."""

    def digest(self) -> str:
        """Fingerprint of variables, days and grid."""

    def origin(self, start: int, stop: int) -> str:
        """Fingerprint of days[start:stop], of what they are made of and of the files they are in.

        Other than `digest` it changes when a file was written anew.
        """


def lands(fields: Fields) -> np.ndarray:
    """(K, H, W) bool: the land of each target."""
    return np.stack([fields.aimed(name).land for name in fields.targets])
