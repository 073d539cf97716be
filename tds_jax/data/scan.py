"""One pass over a recording: its length, widths, rate and runs of usable rows."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from tds_jax.data.hdf5 import Header, RowFiles
from tds_jax.errors import UserError

SCAN_ROWS = 65_536  # 152-byte rows: 10 MB in memory at a time
PAUSE, PAUSE_STEPS = 1.0, 10.0  # seconds and mean steps that no two samples of a stretch are apart
RATE_TOLERANCE = 0.01  # of the rate by time stamps against the stated one
FORMAT = 2  # of the stored index; another number and every file is read again


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
    signal. bad_labels: rows with NaN or Inf in the label. lowest, highest: of labels that count,
    NaN without any. backwards: first row whose time is earlier than the row before it (or NaN), -1
    when there is none. stamped_hz: rows per second by the time stamps, 0 without them.
    """

    samples: int
    rate_hz: float
    channels: int
    labels: int
    bad_labels: int
    lowest: float
    highest: float
    backwards: int
    stamped_hz: float
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
    lowest, highest = np.inf, -np.inf
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
        counts = finite & layout.valid_rows(np.where(finite[:, None], label, 0))
        valid.add(start, counts)
        lowest = float(label.min(initial=lowest, where=counts[:, None]))
        highest = float(label.max(initial=highest, where=counts[:, None]))
        if has_time:
            times = np.concatenate([[previous], times_of(rows, layout.time, path)])
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
        lowest if lowest <= highest else float("nan"),
        highest if lowest <= highest else float("nan"),
        backwards,
        stamped_rate(first_times),
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


def times_of(rows: np.ndarray, field: str, path: str) -> np.ndarray:
    """(n,) f64 seconds of structured rows; UserError where they are not a number each."""
    kind = rows.dtype[field]
    if kind.base.kind not in "fiu" or int(np.prod(kind.shape)) != 1:
        raise UserError(
            f"{path}: field {field!r} has row shape {kind.shape} and type {kind.base}, expected "
            "seconds, a number per row; write it as float64"
        )
    return rows[field].reshape(len(rows)).astype(np.float64)


def stamped_rate(times: np.ndarray) -> float:
    """Rows per second by their time stamps (n,), of the first SCAN_ROWS; 0 where these tell none.

    The slope of a line through them, to 3 digits after the point: the median step of samples that
    come in packets is that inside a packet. Steps of more than PAUSE seconds and PAUSE_STEPS mean
    ones are pauses, and cut out.
    """
    times = times[:SCAN_ROWS]
    steps = np.diff(times)
    if not len(steps) or not np.isfinite(steps).all() or times[-1] <= times[0]:
        return 0.0
    pauses = steps > np.maximum(PAUSE, PAUSE_STEPS * steps.mean())
    usual = steps[~pauses].mean() if not pauses.all() else 0.0
    at = np.concatenate([[0.0], np.cumsum(np.where(pauses, usual, steps))])
    at -= at.mean()
    row = np.arange(len(at)) - (len(at) - 1) / 2
    return float(np.round(row @ row / (row @ at), 3)) if row @ at > 0 else 0.0


def contradiction(rate_hz: float, stamped_hz: float) -> str:
    """What is said of a rate that the time stamps do not have; '' where they agree or are none."""
    if not stamped_hz or abs(stamped_hz / rate_hz - 1) <= RATE_TOLERANCE:
        return ""
    return f"sample_rate is {rate_hz:g} Hz, the time stamps say {stamped_hz:.4g} on average"


def sample_rate(header: Header, path: str, layout: Layout, times: np.ndarray) -> float:
    """The rate attribute, or else that of the first block's time stamps, see `stamped_rate`."""
    rate = header.attributes.get(layout.rate)
    if rate is None and stamped_rate(times):
        return stamped_rate(times)
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
