"""One pass over a folder of recordings, kept on disk: lengths, widths and runs of usable rows."""

import dataclasses
import hashlib
import os
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from tds_jax.data.hdf5 import Header, RowFiles
from tds_jax.errors import UserError

SCAN_ROWS = 65_536  # 152-byte rows: 10 MB in memory at a time
SAVE_SECONDS = 60.0  # a killed scan loses at most this much work
FORMAT = 1

Progress = Callable[[int, int, str], None]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Names inside a file, and which label rows count.

    valid_rows: (n, L) float32 -> (n,) bool; rows with NaN or Inf are never asked for.
    attributes: names of text attributes of the group to keep per file ('' where absent). columns:
    of the signal, those that count; () = all.
    """

    group: str
    dataset: str
    signal: str
    label: str
    time: str
    rate: str
    attributes: tuple[str, ...]
    valid_rows: Callable[[np.ndarray], np.ndarray]
    columns: tuple[int, ...]

    @property
    def fingerprint(self) -> str:
        """Short hash of every name, so that indexes of different layouts never mix."""
        names = (self.group, self.dataset, self.signal, self.label, self.time, self.rate)
        words = (*names, *self.attributes, self.valid_rows.__qualname__, *map(str, self.columns))
        text = "\0".join((str(FORMAT), *words))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclasses.dataclass(frozen=True)
class Runs:
    """Half-open runs of rows of many sessions: session i owns runs offsets[i] to offsets[i+1]."""

    offsets: np.ndarray
    start: np.ndarray
    stop: np.ndarray

    @staticmethod
    def pack(per_session: Sequence[np.ndarray]) -> "Runs":
        """From one (n, 2) array of [start, stop) per session, each sorted and disjoint."""
        counts = [len(runs) for runs in per_session]
        flat = np.concatenate([np.zeros((0, 2), np.int64), *per_session])
        return Runs(np.cumsum([0, *counts]), flat[:, 0].copy(), flat[:, 1].copy())

    def of(self, session: int) -> np.ndarray:
        """(n, 2) runs of one session."""
        part = slice(self.offsets[session], self.offsets[session + 1])
        return np.stack([self.start[part], self.stop[part]], axis=1)

    def take(self, sessions: np.ndarray) -> "Runs":
        """Runs of the chosen sessions, in the chosen order."""
        return Runs.pack([self.of(session) for session in sessions])

    def owners(self) -> np.ndarray:
        """Session number of every run."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def rows(self) -> np.ndarray:
        """Number of rows in the runs of every session."""
        lengths = np.concatenate([[0], np.cumsum(self.stop - self.start)])
        return lengths[self.offsets[1:]] - lengths[self.offsets[:-1]]


@dataclasses.dataclass(frozen=True)
class Scan:
    """What one pass over one file found.

    valid, broken: (n, 2) runs of rows whose labels count, and of rows with NaN or Inf in the
    signal. bad_labels: rows with NaN or Inf in the label. backwards: first row whose time is
    earlier than the row before it (or NaN), -1 when there is none.
    """

    samples: int
    rate_hz: float
    channels: int
    labels: int
    bad_labels: int
    backwards: int
    attributes: tuple[str, ...]
    valid: np.ndarray
    broken: np.ndarray


def scan_file(
    files: RowFiles,
    path: str,
    layout: Layout,
    block_rows: int = SCAN_ROWS,
    visit: Callable[[np.ndarray], None] | None = None,
) -> Scan:
    """Reads a file once, block_rows rows at a time; UserError says in one line what is wrong.

    visit: is shown each block's rows, as stored.
    """
    header = files.header(path, layout.group, layout.dataset)
    channels = header.width(path, layout.signal)
    require_columns(path, layout.columns, channels)
    columns = list(layout.columns) or slice(None)
    labels = header.width(path, layout.label)
    has_time = layout.time in header.fields
    valid, broken = _RunBuilder(), _RunBuilder()
    bad_labels, backwards, previous = 0, -1, -np.inf
    first_times = np.zeros(0)
    for start in range(0, header.rows, block_rows):
        stop = min(start + block_rows, header.rows)
        rows = files.raw(path, layout.group, layout.dataset, start, stop)
        with np.errstate(over="ignore"):
            signal = rows[layout.signal][:, columns].astype(np.float32)
            label = rows[layout.label].astype(np.float32)
        broken.add(start, np.asarray(~np.isfinite(signal).all(axis=1)))
        finite = np.asarray(np.isfinite(label).all(axis=1))
        bad_labels += int(np.sum(~finite))
        valid.add(start, finite & layout.valid_rows(np.where(finite[:, None], label, 0)))
        if has_time:
            times = np.concatenate([[previous], rows[layout.time].astype(np.float64)])
            late = np.flatnonzero(~(times[1:] >= times[:-1]))
            if backwards < 0 and late.size:
                backwards = start + int(late[0])
            previous = times[-1]
            first_times = first_times if start else times[1:]
        if visit:
            visit(rows)
    return Scan(
        header.rows,
        sample_rate(header, path, layout, first_times),
        channels,
        labels,
        bad_labels,
        backwards,
        tuple(str(header.attributes.get(name, "")) for name in layout.attributes),
        valid.runs(header.rows),
        broken.runs(header.rows),
    )


def require_columns(path: str, columns: tuple[int, ...], channels: int) -> None:
    """Raises UserError unless the file's signal has every column asked for."""
    if columns and max(columns) >= channels:
        raise UserError(
            f"{path} has {channels} channels, numbered from 0, but data.channels asks for "
            f"{max(columns)}; use 0 to {channels - 1}, or () for all"
        )


def sample_rate(header: Header, path: str, layout: Layout, times: np.ndarray) -> float:
    """The rate attribute, or the inverse of the median time step of the first block."""
    rate = header.attributes.get(layout.rate)
    if rate is None and len(times) > 1 and np.median(np.diff(times)) > 0:
        return float(np.round(1 / np.median(np.diff(times)), 3))
    if not isinstance(rate, float) or not np.isfinite(rate) or rate <= 0:
        raise UserError(
            f"{path}: attribute {layout.rate!r} of group {layout.group!r} is {rate}, expected "
            f"samples per second above 0; add it or a field {layout.time!r} in seconds"
        )
    return rate


class _RunBuilder:
    """Collects runs of true rows over consecutive blocks."""

    def __init__(self) -> None:
        self._edges: list[np.ndarray] = []
        self._last = False

    def add(self, start: int, flags: np.ndarray) -> None:
        padded = np.concatenate([[self._last], flags])
        self._edges.append(start + np.flatnonzero(padded[1:] != padded[:-1]))
        self._last = bool(padded[-1])

    def runs(self, rows: int) -> np.ndarray:
        closing = np.array([rows] if self._last else [], np.int64)
        return np.concatenate([*self._edges, closing]).astype(np.int64).reshape(-1, 2)


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
    progress: Progress | None = None,
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
            if progress:
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
    """Writes beside the target, then renames; a cache that cannot be written is a warning."""
    if cache is None:
        return []
    plain = {f.name: getattr(index, f.name) for f in dataclasses.fields(index)}
    for name in ("valid", "broken"):
        runs = plain.pop(name)
        plain |= {f"{name}_{part}": value for part, value in dataclasses.asdict(runs).items()}
    try:
        os.makedirs(os.path.dirname(cache), exist_ok=True)
        beside = f"{cache}.{os.getpid()}.tmp"
        with open(beside, "wb") as file:
            np.savez(file, **plain)
        os.replace(beside, cache)
    except OSError as error:
        return [f"data.cache_dir: {cache} cannot be written ({error}); the next start scans again"]
    return []


def _load(cache: str | None) -> tuple[dict[tuple[bytes, int, int], Scan], list[str]]:
    """Usable entries by (name, size, mtime_ns)."""
    if cache is None or not os.path.exists(cache):
        return {}, []
    try:
        with np.load(cache, allow_pickle=False) as stored:
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
