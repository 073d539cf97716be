"""Recordings in the formats people have: rows of compound HDF5, separate arrays, .mat, CSV."""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tds_jax.data import matlab
from tds_jax.data.columns import ROLES, Columns, columns_of
from tds_jax.data.hdf5 import Field, Header, RowFiles, attributes_of, member
from tds_jax.data.heaps import require_ends
from tds_jax.data.stored_rows import Rows
from tds_jax.data.unreadable import naming
from tds_jax.errors import UserError

HDF5 = (".hdf5", ".h5")
FOREIGN = (".mat", ".csv")
SIGNAL = "emg"  # begins the names of a CSV's columns of EMG
LABELS = ("joint", "angle")  # begin those of its angles
PARTS = tuple(names[0] for names in vars(ROLES).values())  # by which `columns_of` finds them


@dataclasses.dataclass(frozen=True)
class ColumnRows:
    """Columns, as `Rows`, and the file they are read from."""

    columns: Columns
    file: h5py.File | None
    chunk: int = 0

    @property
    def dtype(self) -> np.dtype:
        """Of a row."""
        return self.columns.dtype

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.columns.rows

    def read(self, start: int, block: np.ndarray) -> None:
        """As `Rows.read`."""
        self.columns.read(start, block)

    def close(self) -> None:
        """Closes the file, if it is still read from."""
        if self.file is not None:
            self.file.close()


class SessionFiles(RowFiles):
    """`RowFiles` that also reads files without a table of rows, as if they had one.

    HDF5 with separate arrays and MATLAB 7.3 are read as rows are asked for; older .mat and CSV
    whole, when opened: `prepare` makes stores of them that are read by rows. A group is the name of
    one, or says where arrays lie that are called otherwise, see `placed`.
    """

    def __init__(
        self, max_open_files: int, chunk_cache_bytes: int, chunk_cache_preemption: float
    ) -> None:
        super().__init__(max_open_files, chunk_cache_bytes, chunk_cache_preemption)
        self._separate: set[str] = set()

    def header(self, path: str, group: str, dataset: str) -> Header:
        """As `RowFiles.header`."""
        if not self._is_separate(path, group):
            try:
                return super().header(path, group, dataset)
            except UserError:
                if not self._found_separate(path, group, dataset):
                    raise
        with self._rows(path, group, dataset) as found:
            if not isinstance(found, ColumnRows):
                raise UserError(f"{path}: changed while it was open; start again")
            return _header(found.columns, path)

    def _found(self, path: str, group: str, dataset: str) -> Rows:
        if not self._is_separate(path, group):
            try:
                return super()._found(path, group, dataset)
            except UserError:
                if not self._found_separate(path, group, dataset):
                    raise
        return _open(path, group)

    def _is_separate(self, path: str, group: str) -> bool:
        return path in self._separate or path.lower().endswith(FOREIGN) or bool(placed(group))

    def _found_separate(self, path: str, group: str, dataset: str) -> bool:
        """Whether a file without that table of rows has separate arrays."""
        try:
            with naming(path), h5py.File(path, "r", locking="best-effort") as file:
                inside = member(file, group)
                table = isinstance(inside, h5py.Group) and member(inside, dataset) is not None
                found = not table and _node(file, group) is not None
        except UserError:
            return False
        self._separate |= {path} if found else set()
        return found


def placed(group: str) -> dict[str, str]:
    """{part: place} of 'emg=PLACE, joint_angles=PLACE, …'; nothing of a group's plain name.

    Parts are PARTS, places names of arrays in a file, with the groups they lie in ('kin/angles').
    """
    if "=" not in group:
        return {}
    pairs = [[word.strip() for word in one.split("=", 1)] for one in group.split(",")]
    wrong = [pair[0] for pair in pairs if len(pair) != 2 or pair[0] not in PARTS or not pair[1]]
    names = [pair[0] for pair in pairs]
    if wrong or "emg" not in names or len(set(names)) < len(names):
        what = f"{wrong[0]!r} says no place of a part" if wrong else "each part once, and emg"
        raise UserError(
            f"data.group={group!r}: {what}; write 'emg=PLACE, joint_angles=PLACE, …' with the "
            f"parts {', '.join(PARTS)}, or a group's name"
        )
    return dict(pairs)


def _header(columns: Columns, path: str) -> Header:
    kinds = [(name, columns.dtype[name]) for name in columns.dtype.names or ()]
    fields = {name: Field(name, kind.shape, kind.base) for name, kind in kinds}
    storage = f"separate arrays ({Path(path).suffix})"
    attributes = dict(columns.attributes)
    return Header(columns.rows, fields, attributes, columns.dtype.itemsize, storage)


def _open(path: str, group: str) -> ColumnRows:
    if path.lower().endswith(".csv"):
        return ColumnRows(_csv(path), None)
    with naming(path):
        if not h5py.is_hdf5(path):
            found = matlab.read(path)
            known = _texts(found)
            found = _at_places(path, placed(group), found.get, found.keys) or found
            return ColumnRows(columns_of(path, found, known), None)
        require_ends(path)
        file = h5py.File(path, "r", locking="best-effort")
    try:
        with naming(path):
            found, attributes = _arrays(path, file, group)
            return ColumnRows(columns_of(path, found, attributes), file)
    except UserError:
        file.close()
        raise


def _arrays(
    path: str, file: h5py.File, group: str
) -> tuple[dict[str, h5py.Dataset], dict[str, float | str]]:
    """The arrays of a recording, by name, and attributes of where they lie."""
    if places := placed(group):
        found = _at_places(path, places, lambda place: member(file, place), lambda: _names(file))
        return found, attributes_of(file) | attributes_of(found["emg"].parent)
    node = _node(file, group) or file
    members = {name: member(node, name) for name in node}
    found = {name: one for name, one in members.items() if isinstance(one, h5py.Dataset)}
    return found, attributes_of(node)


def _names(file: h5py.File) -> list[str]:
    """Of all arrays, with the groups they lie in."""
    found: list[str] = []
    file.visititems(lambda name, one: found.append(name) if hasattr(one, "shape") else None)
    return found


def _at_places(
    path: str,
    places: dict[str, str],
    get: Callable[[str], Any],
    inside: Callable[[], Iterable[str]],
) -> dict[str, Any]:
    """{part: array}; UserError, with the names of all arrays inside, where one is not there."""
    found = {part: get(place) for part, place in places.items()}
    if gone := [part for part, one in found.items() if not hasattr(one, "shape")]:
        raise UserError(
            f"{path}: no array {places[gone[0]]} for {gone[0]} (data.group); it has "
            f"{', '.join(sorted(inside())) or 'no arrays'}"
        )
    return found


def _node(file: h5py.File, group: str) -> h5py.Group | None:
    """Where separate arrays lie: the group of that name, the file itself, or a group in it."""
    places = [member(file, group), file, *(member(file, name) for name in file)]
    nodes = [one for one in places if isinstance(one, h5py.Group)]
    return next((node for node in nodes if any(n.lower() in ROLES.signal for n in node)), None)


def _texts(found: dict[str, np.ndarray]) -> dict[str, str]:
    """MATLAB's texts, as attributes."""
    return {n: str(v.ravel()[0]) for n, v in found.items() if v.dtype.kind == "U" and v.size == 1}


def _csv(path: str) -> Columns:
    """Columns by the first line: time, emg…, joint… or angle…; empty cells are NaN."""
    import pandas  # slow to import

    try:
        with naming(path):
            table = pandas.read_csv(path, sep=None, engine="python", skipinitialspace=True)
    except UserError as error:
        raise UserError(f"{error}; expected a CSV with a line of names") from error
    names = [str(name).strip() for name in table.columns]
    table.columns = pandas.Index(names)
    signal = [name for name in names if name.lower().startswith(SIGNAL)]
    label = [name for name in names if name.lower().startswith(LABELS)]
    single = [name for name in names if name not in (*signal, *label)]
    text = [name for name in (*signal, *label) if table[name].dtype.kind not in "fiu"]
    if not signal or text:
        what = f"{text[0]} holds text" if text else f"no column begins with {SIGNAL}"
        raise UserError(f"{path}: {what}; the columns are {', '.join(names)}")
    numbers = [name for name in single if table[name].dtype.kind in "fiu"]
    found = {name: table[name].to_numpy() for name in numbers}
    found |= {SIGNAL: table[signal].to_numpy(np.float64)}
    found |= {"joint_angles": table[label].to_numpy(np.float64)} if label else {}
    return columns_of(path, found, {})
