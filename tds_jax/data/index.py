"""What one pass over a folder of recordings found, as columns, kept on disk."""

import dataclasses
import hashlib
import os
import time
import zipfile
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tds_jax.data.hdf5 import RowFiles
from tds_jax.data.scan import Layout, Runs, Scan, scan_file
from tds_jax.data.whole_file import whole_file
from tds_jax.errors import UserError
from tds_jax.progress import Progress, silent

SAVE_SECONDS = 60.0  # a killed scan loses at most this much work


@dataclasses.dataclass(frozen=True)
class FolderIndex:
    """Columns over the files of a folder, in the order of `names`.

    names: bytes (file-system encoding). problem: bytes, why a file cannot be used, b'' otherwise.
    attributes: (S, A) bytes. Runs as in Scan. 25,000 files take a few MB.
    """

    names: np.ndarray
    size: np.ndarray
    mtime_ns: np.ndarray
    samples: np.ndarray
    rate_hz: np.ndarray
    channels: np.ndarray
    labels: np.ndarray
    bad_labels: np.ndarray
    backwards: np.ndarray
    attributes: np.ndarray
    problem: np.ndarray
    valid: Runs
    broken: Runs


def index_folder(
    root: str,
    names: Sequence[str],
    layout: Layout,
    files: RowFiles,
    cache_dir: str | None,
    progress: Progress = silent,
) -> tuple[FolderIndex, list[str]]:
    """Index of the named files of root, and warnings; only new or changed files are read.

    cache_dir: keeps one file per folder and layout, written atomically, keyed by each file's name,
    size and modification time; None or '' keeps nothing. What it knows of unchanged files that are
    not named now stays. Files with a problem are looked at again each time, since what they miss (a
    filter, a permission) may have been installed.
    progress(done, total, name) is called before each file that has to be read.
    """
    cache = _cache_path(root, layout, cache_dir)
    known, warnings = _load(cache)
    asked = len(names)
    names = [*names, *_others(root, known, names)]
    stats = [_stat(os.path.join(root, name)) for name in names]
    keys = [(os.fsencode(name), *stat) for name, stat in zip(names, stats, strict=True)]
    entries: dict[int, tuple[Scan | None, str]] = {
        i: (known[key], "") for i, key in enumerate(keys) if key in known
    }
    todo = [i for i in range(len(names)) if i not in entries]
    stale = bool(todo) or len(known) != len(names)
    saved = time.monotonic()
    try:
        for done, i in enumerate(todo):
            progress(done, len(todo), names[i])
            entries[i] = _try_scan(files, os.path.join(root, names[i]), layout)
            if time.monotonic() - saved > SAVE_SECONDS:
                _save(cache, _columns(names, stats, entries, layout))
                saved = time.monotonic()
    finally:
        if stale:
            warnings += _save(cache, _columns(names, stats, entries, layout))
    found = {i: entry for i, entry in entries.items() if i < asked}
    return _columns(names, stats, found, layout), warnings


def _others(root: str, known: Iterable[tuple[bytes, int, int]], names: Sequence[str]) -> list[str]:
    """Known files that are not among the names and have not changed."""
    asked = set(names)
    others = [(os.fsdecode(name), stat) for name, *stat in known if os.fsdecode(name) not in asked]
    paths = [(name, os.path.join(root, name), stat) for name, stat in others]
    return [n for n, path, stat in paths if os.path.exists(path) and [*_stat(path)] == stat]


def _try_scan(files: RowFiles, path: str, layout: Layout) -> tuple[Scan | None, str]:
    try:
        return scan_file(files, path, layout), ""
    except UserError as error:
        return None, str(error)


def _stat(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns


_NUMBERS = ("samples", "rate_hz", "channels", "labels", "bad_labels", "backwards")
_EMPTY = np.zeros((0, 2), np.int64)


def _columns(
    names: Sequence[str],
    stats: Sequence[tuple[int, int]],
    entries: Mapping[int, tuple[Scan | None, str]],
    layout: Layout,
) -> FolderIndex:
    """Columns of the entries present; a scan that was cut short has fewer than names."""
    present = sorted(entries)
    blank = Scan(0, 0.0, 0, 0, 0, -1, ("",) * len(layout.attributes), _EMPTY, _EMPTY)
    scans = [entries[i][0] or blank for i in present]

    def column(name: str, dtype: type) -> np.ndarray:
        return np.array([getattr(scan, name) for scan in scans], dtype)

    attributes = [[text.encode() for text in scan.attributes] for scan in scans]
    return FolderIndex(
        names=np.array([os.fsencode(names[i]) for i in present], np.bytes_),
        size=np.array([stats[i][0] for i in present], np.int64),
        mtime_ns=np.array([stats[i][1] for i in present], np.int64),
        samples=column("samples", np.int64),
        rate_hz=column("rate_hz", np.float64),
        channels=column("channels", np.int64),
        labels=column("labels", np.int64),
        bad_labels=column("bad_labels", np.int64),
        backwards=column("backwards", np.int64),
        attributes=np.array(attributes, np.bytes_).reshape(len(scans), len(layout.attributes)),
        problem=np.array([entries[i][1].encode() for i in present], np.bytes_),
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


def _load(cache: str | None) -> tuple[dict[tuple[bytes, int, int], Scan], list[str]]:
    """Usable entries by (name, size, mtime_ns)."""
    if cache is None or not os.path.exists(cache):
        return {}, []
    try:
        # np.load leaves a file that is no archive open.
        with open(cache, "rb") as file, np.load(file, allow_pickle=False) as stored:
            c = {name: stored[name] for name in stored.files}
        valid, broken = (
            Runs(c[f"{name}_offsets"], c[f"{name}_start"], c[f"{name}_stop"])
            for name in ("valid", "broken")
        )
        keys = zip(c["names"].tolist(), c["size"].tolist(), c["mtime_ns"].tolist(), strict=True)
        texts = [tuple(text.decode() for text in row) for row in c["attributes"].tolist()]
        numbers = {name: c[name].tolist() for name in _NUMBERS}
        return {
            key: Scan(
                **{name: column[i] for name, column in numbers.items()},
                attributes=texts[i],
                valid=valid.of(i),
                broken=broken.of(i),
            )
            for i, key in enumerate(keys)
            if not c["problem"][i]
        }, []
    except (OSError, EOFError, ValueError, KeyError, IndexError, zipfile.BadZipFile) as error:
        return {}, [f"{cache}: unreadable index ({error}); scanning the folder again"]
