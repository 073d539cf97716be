"""What one pass over a folder of recordings found, as columns, kept on disk."""

import dataclasses
import hashlib
import itertools
import os
import time
import zipfile
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tds_jax.data.crew import ALONE, Crew, require_same
from tds_jax.data.hdf5 import RowFiles
from tds_jax.data.identity import content, is_as_known, of_file
from tds_jax.data.numpy_files import archive
from tds_jax.data.scan import Layout, Runs, Scan, scan_file
from tds_jax.data.whole_file import whole_file
from tds_jax.errors import UserError
from tds_jax.progress import Progress, silent

SAVE_SECONDS = 60.0  # a killed scan loses at most this much work


@dataclasses.dataclass(frozen=True)
class FolderIndex:
    """Columns over the files of a folder, in the order of `names`.

    names: bytes (file-system encoding). identity: bytes, of `data.identity`, b'' for a file that
    cannot be read. problem: bytes (as names), why a file cannot be used, b'' otherwise.
    attributes: (S, A) bytes. Runs as in Scan. 25,000 files take a few MB.
    """

    names: np.ndarray
    identity: np.ndarray
    samples: np.ndarray
    rate_hz: np.ndarray
    channels: np.ndarray
    labels: np.ndarray
    bad_labels: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    backwards: np.ndarray
    stamped_hz: np.ndarray
    attributes: np.ndarray
    problem: np.ndarray
    valid: Runs
    broken: Runs


@dataclasses.dataclass(frozen=True)
class Entry:
    """What is known of one file: a scan, or the problem that it has."""

    scan: Scan | None = None
    problem: str = ""
    identity: str = ""


Entries = Mapping[int, Entry]
"""By the file's place among the names."""


def index_folder(
    root: str,
    names: Sequence[str],
    layout: Layout,
    files: RowFiles,
    cache_dir: str | None,
    progress: Progress = silent,
    crew: Crew = ALONE,
) -> tuple[FolderIndex, list[str]]:
    """Index of the named files of root, and warnings; only new or changed files are read.

    A crew reads a part of them each; its first member knows what was read before, and keeps it.

    cache_dir: keeps one file per folder and layout, written atomically, keyed by each file's name
    and content; None or '' keeps nothing. What it knows of unchanged files that are
    not named now stays. Files with a problem are looked at again each time, since what they miss (a
    filter, a permission) may have been installed.
    progress(done, total, name) is called before each file that has to be read.
    """
    cache = _cache_path(root, layout, cache_dir)
    asked, before = len(names), crew.by_first(lambda: _begun(root, names, cache))
    require_same(crew, root, names, before.names[:asked])
    names, entries, todo = before.names, before.entries, [*before.todo]
    warnings, saved = [*before.warnings], time.monotonic()
    done, total = itertools.count(), len(crew.share(todo))

    def scanned(i: int) -> Entry:
        progress(next(done), total, names[i])
        return _entry(files, os.path.join(root, names[i]), layout, before.todo[i])

    try:
        for made in crew.rounds(todo, scanned):
            entries |= made
            if crew.first and time.monotonic() - saved > SAVE_SECONDS:
                _save(cache, _columns(names, entries, layout))
                saved = time.monotonic()
    finally:
        if crew.first and before.stale:
            warnings += _save(cache, _columns(names, entries, layout))
    found = {i: entry for i, entry in entries.items() if i < asked}
    return _columns(names, found, layout), warnings


class _Begun(NamedTuple):
    """What is known of files by their places among `names`, and what an older look at those that
    are to be read has found. stale: the cache knows more or less."""

    names: list[str]
    entries: dict[int, Entry]
    todo: dict[int, Entry]
    warnings: list[str]
    stale: bool


def _begun(root: str, names: Sequence[str], cache: str | None) -> _Begun:
    known, warnings = _load(cache)
    names = [*names, *_others(root, known, names)]
    entries = {
        i: known[name]
        for i, name in enumerate(names)
        if name in known and is_as_known(os.path.join(root, name), known[name].identity)
    }
    todo = {i: known.get(name, Entry()) for i, name in enumerate(names) if i not in entries}
    return _Begun(names, entries, todo, warnings, bool(todo) or len(known) != len(names))


def index_given(
    root: str,
    names: Sequence[str],
    layout: Layout,
    files: RowFiles,
    progress: Progress = silent,
) -> FolderIndex:
    """`index_folder` of recordings that are no files: each is read once at every start."""
    entries = {}
    for i, name in enumerate(names):
        progress(i, len(names), name)
        try:
            entries[i] = Entry(scan_file(files, os.path.join(root, name), layout))
        except UserError as error:
            entries[i] = Entry(problem=str(error))
    return _columns(names, entries, layout)


def _others(root: str, known: Mapping[str, Entry], names: Sequence[str]) -> list[str]:
    """Known files that are not among the names and have not changed."""
    others = known.keys() - set(names)
    return sorted(n for n in others if is_as_known(os.path.join(root, n), known[n].identity))


def _entry(files: RowFiles, path: str, layout: Layout, before: Entry) -> Entry:
    """What is known of a file with the same content, or found by reading it."""
    identity = ""
    try:
        identity = of_file(path)
        if before.scan and content(before.identity) == content(identity):
            return dataclasses.replace(before, identity=identity)
        return Entry(scan_file(files, path, layout), "", identity)
    except UserError as error:
        return Entry(None, str(error), identity)


_WHOLE = ("samples", "channels", "labels", "bad_labels", "backwards")
_REAL = ("rate_hz", "stamped_hz", "lowest", "highest")
_NUMBERS = (*_WHOLE, *_REAL)
_EMPTY = np.zeros((0, 2), np.int64)


def _columns(names: Sequence[str], entries: Entries, layout: Layout) -> FolderIndex:
    """Columns of the entries present; a scan that was cut short has fewer than names."""
    present = sorted(entries)
    texts = ("",) * len(layout.attributes)
    blank = Scan(0, 0.0, 0, 0, 0, np.nan, np.nan, -1, 0.0, texts, _EMPTY, _EMPTY)
    scans = [entries[i].scan or blank for i in present]

    def column(name: str, dtype: type) -> np.ndarray:
        return np.array([getattr(scan, name) for scan in scans], dtype)

    attributes = [[text.encode() for text in scan.attributes] for scan in scans]
    return FolderIndex(
        names=np.array([os.fsencode(names[i]) for i in present], np.bytes_),
        identity=np.array([entries[i].identity.encode() for i in present], np.bytes_),
        **{name: column(name, np.int64) for name in _WHOLE},
        **{name: column(name, np.float64) for name in _REAL},
        attributes=np.array(attributes, np.bytes_).reshape(len(scans), len(layout.attributes)),
        problem=np.array([os.fsencode(entries[i].problem) for i in present], np.bytes_),
        valid=Runs.pack([scan.valid for scan in scans]),
        broken=Runs.pack([scan.broken for scan in scans]),
    )


def _cache_path(root: str, layout: Layout, cache_dir: str | None) -> str | None:
    if not cache_dir:
        return None
    folder = hashlib.blake2b(os.fsencode(os.path.realpath(root)), digest_size=8).hexdigest()
    return os.path.join(cache_dir, f"index-{folder}-{layout.fingerprint}.npz")


def _save(cache: str | None, index: FolderIndex) -> list[str]:
    """A cache that cannot be written is a warning."""
    if cache is None:
        return []
    plain = {f.name: getattr(index, f.name) for f in dataclasses.fields(index)}
    for name in ("valid", "broken"):
        runs = plain.pop(name)
        plain |= {f"{name}_{part}": value for part, value in dataclasses.asdict(runs).items()}
    try:
        os.makedirs(os.path.dirname(cache), exist_ok=True)
        with whole_file(cache) as temporary, temporary.open("wb") as file:
            np.savez(file, **plain)
    except OSError as error:
        return [f"data.cache_dir: {cache} cannot be written ({error}); the next start scans again"]
    return []


def _load(cache: str | None) -> tuple[dict[str, Entry], list[str]]:
    """Usable entries by name."""
    if cache is None or not os.path.exists(cache):
        return {}, []
    try:
        with archive(cache) as stored:
            c = {name: stored[name] for name in stored.files}
        valid, broken = (
            Runs(c[f"{name}_offsets"], c[f"{name}_start"], c[f"{name}_stop"])
            for name in ("valid", "broken")
        )
        keys = zip(c["names"].tolist(), c["identity"].tolist(), strict=True)
        texts = [tuple(text.decode() for text in row) for row in c["attributes"].tolist()]
        numbers = {name: c[name].tolist() for name in _NUMBERS}
        return {
            os.fsdecode(name): Entry(
                Scan(
                    **{column: values[i] for column, values in numbers.items()},
                    attributes=texts[i],
                    valid=valid.of(i),
                    broken=broken.of(i),
                ),
                identity=identity.decode(),
            )
            for i, (name, identity) in enumerate(keys)
            if not c["problem"][i]
        }, []
    except (OSError, EOFError, ValueError, KeyError, IndexError, zipfile.BadZipFile) as error:
        return {}, [f"{cache}: unreadable index ({error}); scanning the folder again"]
