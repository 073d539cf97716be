"""Recordings that a source of one's own gives, read as if they were files."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tds_jax import own
from tds_jax.config import SPLITS
from tds_jax.data.columns import ROLES, columns_of
from tds_jax.data.session_files import ColumnRows, SessionFiles
from tds_jax.data.stored_rows import Rows
from tds_jax.errors import UserError
from tds_jax.pose.metadata import Metadata

SETTING = "data.source"
SPLIT = "split"


class OwnRecordings(SessionFiles):
    """`SessionFiles` of which those in the folder `root` are what a source gives, by number.

    name: 'package.module:Name' of what makes the source, of those of `offered` that it names. It
    has a length and gives recordings by number: mappings of arrays by the names of files (emg,
    joint_angles, perhaps time, joint_angles_time), of which slices are read; of sample_rate (Hz);
    and of texts (split, user, stage, side …). As many as max_open_files are kept.
    """

    def __init__(self, name: str, offered: Mapping[str, Any], *cache: Any) -> None:
        super().__init__(*cache)
        self.root, self._given = name, own.Given(SETTING, name, offered)

    @property
    def names(self) -> list[str]:
        """Of the recordings: their numbers."""
        return [str(number) for number in range(len(self._given.source))]

    def metadata(self) -> Metadata | None:
        """The recordings' texts, where they say their split; None where none of them does."""
        rows = {name: _texts(self._recording(name)) for name in self.names}
        without = [name for name, row in rows.items() if not row.get(SPLIT)]
        if len(without) == len(rows):
            return None
        wrong = [name for name, row in rows.items() if row.get(SPLIT) not in SPLITS]
        problems = [
            f"{self._place(name)}: split is {rows[name].get(SPLIT, '')!r}, expected one of "
            f"{', '.join(SPLITS)}; say it for all recordings or for none"
            for name in wrong
        ]
        return Metadata(rows, problems, [])

    def _is_separate(self, path: str, group: str) -> bool:
        return self._is_own(path) or super()._is_separate(path, group)

    def _found(self, path: str, group: str, dataset: str) -> Rows:
        if not self._is_own(path):
            return super()._found(path, group, dataset)
        found = self._recording(path.rpartition("/")[2])
        arrays = {n: v for n, v in found.items() if np.ndim(v) or n.lower() in ROLES.rate}
        for name, array in arrays.items():
            if np.ndim(array) and not hasattr(array, "dtype"):
                raise UserError(f"{path}: {name} is a {type(array).__name__}; give an array")
        return ColumnRows(columns_of(path, arrays, _texts(found)), None)

    def _is_own(self, path: str) -> bool:
        return path.startswith(f"{self.root}/")

    def _place(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _recording(self, name: str) -> Mapping[str, Any]:
        return self._given.item(int(name))


def _texts(recording: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in recording.items() if isinstance(value, str)}
