"""metadata.csv: the split of every session, and whose it is."""

import csv
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tds_jax.config import SPLITS
from tds_jax.data.drive import blame_the_drive
from tds_jax.data.order import by_number
from tds_jax.data.session_files import FOREIGN, HDF5
from tds_jax.errors import UserError, some

SUFFIXES = (*HDF5, *FOREIGN)
FILE = "metadata.csv"
HIDDEN = "."


class Metadata(NamedTuple):
    """rows: by file name with suffix, those of absent files too. problems, notes: one line each."""

    rows: dict[str, dict[str, str]]
    problems: list[str]
    notes: list[str]


def session_files(path: str, flag: str) -> list[str]:
    """Names of the session files in a folder, in the order of their numbers.

    Hidden files are none: a Mac leaves a '._' twin beside every file it copies. Nor are links to
    what is a session already. `junk` tells of both. UserError, naming `flag`, without any.
    """
    if os.path.isfile(path):
        raise UserError(f"{flag}={path} is a file; give the folder that holds the sessions")
    if not os.path.isdir(path):
        raise UserError(f"{flag}={path}: no such folder; check the path")
    found = [name for name in os.listdir(path) if name.lower().endswith(SUFFIXES)]
    names = sorted((name for name in found if not is_none(name)), key=by_number)
    again = _again(path, names)
    names = [name for name in names if name not in again]
    if not names:
        raise UserError(
            f"{flag}={path}: no session files ({', '.join(SUFFIXES)}) in the folder; "
            f"give the folder that holds them directly"
        )
    return names


def _again(path: str, names: Sequence[str]) -> set[str]:
    """Links to a file that has another of the names, too."""
    places = {name: os.path.join(path, name) for name in names}
    links = [name for name, place in places.items() if os.path.islink(place)]
    if not links:
        return set()
    taken = {os.path.realpath(place) for name, place in places.items() if name not in links}
    again = set()
    for name in links:
        target = os.path.realpath(places[name])
        if target in taken and os.path.exists(target):
            again.add(name)
        taken.add(target)
    return again


def is_none(name: str) -> bool:
    """Whether a file is no session, whatever it ends with."""
    return name.startswith(HIDDEN) or name == FILE


def stored_name(name: str) -> str:
    """What the HDF5 made of a session file is called."""
    return name if name.lower().endswith(HDF5) else os.path.splitext(name)[0] + HDF5[0]


def junk(path: str) -> list[str]:
    """Lines if files with the endings of sessions are hidden ones, or links to others of them."""
    found = sorted(name for name in os.listdir(path) if name.lower().endswith(SUFFIXES))
    hidden = [name for name in found if name.startswith(HIDDEN)]
    again = sorted(_again(path, sorted((n for n in found if not is_none(n)), key=by_number)))
    return [
        *[f"{path}: {len(hidden)} hidden files are no sessions: {some(hidden)}"] * bool(hidden),
        *[f"{path}: {len(again)} links to other sessions do not count: {some(again)}"]
        * bool(again),
    ]


def read_metadata(path: str, names: Sequence[str]) -> Metadata | None:
    """The folder's metadata.csv against the session files it holds; None without one.

    Columns filename (with or without suffix) and split are needed; any others are kept. A row with
    an unknown split, without a name, or of a file named before, is a problem and left out; rows of
    absent files are a note.
    """
    file = os.path.join(path, FILE)
    if not os.path.exists(file):
        return None
    try:
        with open(file, newline="", encoding="utf-8-sig") as text:
            reader = csv.DictReader(text)
            columns = reader.fieldnames or []
            rows = [_texts(row) for row in reader]
    except OSError as error:
        blame_the_drive(error, file)
        return Metadata({}, [f"{file} cannot be read ({error.strerror}); restore it"], [])
    except (UnicodeDecodeError, csv.Error) as error:
        return Metadata({}, [f"{file} is no CSV in UTF-8 ({error}); save it anew as that"], [])
    missing = [name for name in ("filename", "split") if name not in columns]
    if missing:
        line = (
            f"{file}: missing column {', '.join(missing)}, found {list(columns)}; "
            f"add it or remove the file to split by data.split_ratio"
        )
        return Metadata({}, [line], [])
    return _match(file, rows, set(names))


def _texts(row: Mapping[str | None, str | list[str] | None]) -> dict[str, str]:
    """Columns that a short row lacks are empty; what a long one has more has no name."""
    return {name: str(text or "") for name, text in row.items() if name is not None}


def _match(file: str, rows: list[dict[str, str]], present: set[str]) -> Metadata:
    found: dict[str, dict[str, str]] = {}
    problems = []
    for line, row in enumerate(rows, start=2):
        if row["split"] not in SPLITS:
            problems.append(
                f"{file}: line {line} has split {row['split']!r}, expected one of "
                f"{', '.join(SPLITS)}; correct it or remove the row"
            )
            continue
        stem = row["filename"]
        if not stem:
            problems.append(f"{file}: line {line} names no file; complete or remove it")
            continue
        likely = (stem, *(stem + suffix for suffix in SUFFIXES), stored_name(stem))
        name = next((name for name in likely if name in present), stem)
        if name in found:
            problems.append(
                f"{file}: line {line} names {stem} again; keep one row per file"
                + _other_split(found[name], row)
            )
            continue
        found[name] = row
    absent = [name for name in found if name not in present]
    note = f"{file}: {len(absent)} of {len(rows)} named files are not in the folder: {some(absent)}"
    return Metadata(found, problems, [note] * bool(absent))


def _other_split(first: Mapping[str, str], again: Mapping[str, str]) -> str:
    same = first["split"] == again["split"]
    return "" if same else f" (it is in {first['split']} and in {again['split']})"
