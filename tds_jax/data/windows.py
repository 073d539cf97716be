"""Windows of many sessions by arithmetic: an index becomes (session, start row), nothing stored."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tds_jax.data.scan import Runs


@dataclasses.dataclass(frozen=True)
class WindowSpec:
    """Lengths of a window in samples, and which of its rows are supervised.

    Rows label_offset + n * label_stride, n = 0..positions-1, are supervised. stride: rows between
    window starts; None tiles a session: the supervised rows of its windows follow each other
    without gap or overlap, and a last window is shifted left (see `Windows.locate`).
    """

    window: int
    stride: int | None
    label_offset: int
    label_stride: int

    def __post_init__(self) -> None:
        if not 0 <= self.label_offset < self.window:
            raise ValueError(
                f"label_offset={self.label_offset} must lie inside the window={self.window}"
            )
        if self.label_stride < 1 or (self.stride is not None and self.stride < 1):
            raise ValueError(
                f"stride={self.stride} and label_stride={self.label_stride} must be at least 1"
            )

    @property
    def positions(self) -> int:
        """Supervised rows per window."""
        return (self.window - self.label_offset - 1) // self.label_stride + 1

    @property
    def step(self) -> int:
        """Rows between window starts; when tiling, the rows that one window supervises."""
        return self.stride or self.positions * self.label_stride


class Windows:
    """Random access to windows that hold a row that counts and no broken row.

    samples: (S,) rows per session. valid: runs of rows whose labels count; a window without one
    among its supervised rows is left out. broken: runs of rows no window may contain. Memory
    grows with sessions and runs, never with windows. Windows never straddle sessions.
    """

    def __init__(self, samples: np.ndarray, valid: Runs, broken: Runs, spec: WindowSpec) -> None:
        self.spec = spec
        self._samples = samples.astype(np.int64)
        self._breaks = _Line(self._samples, broken)
        step, spare = spec.step, self._samples - spec.window
        full = np.where(spare >= 0, spare // step + 1, 0)
        if spec.stride is None:
            self._last = np.maximum(spare, 0) // spec.label_stride * spec.label_stride
            tail = (full > 0) & (self._last > (full - 1) * step)
        else:
            self._last = np.maximum(full - 1, 0) * step
            tail = np.zeros(len(full), bool)
        self._count = full + tail
        # One unused number after each session keeps the runs of neighbours apart.
        self._base = np.cumsum(np.concatenate([[0], self._count + 1]))[:-1]
        wanted = _shift(*self._wanted(valid), self._base)
        refused = _shift(*self._refused(broken, full, tail), self._base)
        self._first, lengths = _subtract(wanted, refused)
        self._ends = np.cumsum(lengths)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def places(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(session, start row, supervised positions at the front that an earlier window counts).

        (B,) int64 each. The third is 0 except for the last window of a tiled session: where the
        session does not end with a whole window, that window starts earlier, on the same label
        grid, and its first positions repeat rows of the window before it. Less than label_stride
        rows at the end of a session may stay uncounted.
        """
        index = np.asarray(indices, np.int64)
        outside = index[(index < 0) | (index >= len(self))]
        if outside.size:
            raise IndexError(f"window {outside[0]} of {len(self)}")
        run = np.searchsorted(self._ends, index, side="right")
        before = np.where(run > 0, self._ends[run - 1], 0)
        number = self._first[run] + index - before
        session = np.searchsorted(self._base, number, side="right") - 1
        wanted = (number - self._base[session]) * self.spec.step
        start = np.minimum(wanted, self._last[session])
        return session, start, (wanted - start) // self.spec.label_stride

    def sessions(self) -> np.ndarray:
        """Sessions that hold a window, ascending."""
        return np.unique(np.searchsorted(self._base, self._first, side="right") - 1)

    def locate(self, index: int) -> tuple[int, int, int]:
        """`places` of one window."""
        return _only(self.places([index]))

    def room(self, session: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Rows by which windows may move right inside their session and before a broken row."""
        limit = np.minimum(self._samples[session], self._breaks.next_start(session, start))
        return np.asarray(limit - start - self.spec.window)

    def _wanted(self, valid: Runs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(session, first, last window number) of the windows that touch each valid run."""
        spec, step = self.spec, self.spec.step
        span = (spec.positions - 1) * spec.label_stride
        owner = valid.owners()
        # A tail's own rows end where the last window's do: later rows belong to no window.
        end = self._last + spec.label_offset + span + 1
        start, stop = valid.start, np.minimum(valid.stop, end[owner])
        first = np.maximum(-(-(start - spec.label_offset - span) // step), 0)
        last = np.minimum((stop - 1 - spec.label_offset) // step, self._count[owner] - 1)
        keep = (start < stop) & (first <= last)
        owner, start, stop, first, last = (x[keep] for x in (owner, start, stop, first, last))
        short = stop - start < spec.label_stride
        if not short.any():
            return owner, first, last
        # A run shorter than the label stride may fall between two label rows: look at each window.
        n = (last - first + 1)[short]
        rep = np.repeat(np.flatnonzero(short), n)
        number = first[rep] + np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
        grid = number * step + spec.label_offset
        row = grid + np.maximum(-(-(start[rep] - grid) // spec.label_stride), 0) * spec.label_stride
        hit = (row < stop[rep]) & (row <= grid + span)
        return (
            np.concatenate([owner[~short], owner[rep][hit]]),
            np.concatenate([first[~short], number[hit]]),
            np.concatenate([last[~short], number[hit]]),
        )

    def _refused(
        self, broken: Runs, full: np.ndarray, tail: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(session, first, last window number) of the windows that contain a broken row."""
        step, window = self.spec.step, self.spec.window
        owner = broken.owners()
        first = np.maximum((broken.start - window) // step + 1, 0)
        last = np.minimum(-(-broken.stop // step) - 1, full[owner] - 1)
        start = self._last[owner]
        in_tail = tail[owner] & (start < broken.stop) & (start + window > broken.start)
        number = full[owner][in_tail]
        keep = first <= last
        return (
            np.concatenate([owner[keep], owner[in_tail]]),
            np.concatenate([first[keep], number]),
            np.concatenate([last[keep], number]),
        )


class RunWindows:
    """Random access to windows that lie inside runs of rows, each run like a session of its own.

    The interface of `Windows`, whose tiling then ends with every run. Memory grows with the runs.
    """

    def __init__(self, runs: Runs, spec: WindowSpec) -> None:
        self.spec = spec
        self._runs = runs
        self._owners = runs.owners()
        lengths = runs.stop - runs.start
        numbers, zero = np.arange(len(lengths) + 1), np.zeros(0, np.int64)
        self._line = _Line(lengths, runs)
        whole = Runs(numbers, np.zeros_like(lengths), lengths)
        self._windows = Windows(lengths, whole, Runs(numbers * 0, zero, zero), spec)

    def __len__(self) -> int:
        return len(self._windows)

    def places(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `Windows.places`; the third number counts from the start of the run."""
        run, start, repeated = self._windows.places(indices)
        return self._owners[run], self._runs.start[run] + start, repeated

    def sessions(self) -> np.ndarray:
        """As `Windows.sessions`."""
        return np.unique(self._owners[self._windows.sessions()])

    def locate(self, index: int) -> tuple[int, int, int]:
        """`places` of one window."""
        return _only(self.places([index]))

    def room(self, session: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Rows by which windows may move right inside their runs."""
        return np.asarray(self._line.stop_of(session, start) - start - self.spec.window)


class _Line:
    """Runs of all sessions on one number line, so that many rows are looked up at once."""

    def __init__(self, samples: np.ndarray, runs: Runs) -> None:
        self._span = int(max(samples.max(initial=0), runs.stop.max(initial=0))) + 1
        starts = runs.owners() * self._span + runs.start
        self._starts = np.append(starts, np.iinfo(np.int64).max)  # after every row
        self._stops = runs.stop

    def next_start(self, session: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Where the first run at or after a row starts; past the session's end without one."""
        begin = np.multiply(session, self._span, dtype=np.int64)
        return np.asarray(self._starts[np.searchsorted(self._starts, begin + row)] - begin)

    def stop_of(self, session: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Where the run that holds a row stops."""
        begin = np.multiply(session, self._span, dtype=np.int64)
        return np.asarray(self._stops[np.searchsorted(self._starts, begin + row, "right") - 1])


def _only(places: tuple[np.ndarray, np.ndarray, np.ndarray]) -> tuple[int, int, int]:
    session, start, repeated = (int(one[0]) for one in places)
    return session, start, repeated


def difference(samples: np.ndarray, runs: Runs, removed: Runs) -> Runs:
    """Runs of the rows that are in `runs` and not in `removed`; samples: (S,) rows per session."""
    # One unused row after each session keeps the runs of neighbours apart.
    base = np.cumsum(np.concatenate([[0], samples.astype(np.int64) + 1]))
    sides = [(base[part.owners()], part) for part in (runs, removed)]
    wanted, refused = ((first + part.start, first + part.stop) for first, part in sides)
    start, length = _subtract(wanted, refused)
    offsets = np.searchsorted(start, base)
    owner = np.repeat(np.arange(len(samples)), np.diff(offsets))
    return Runs(offsets, start - base[owner], start + length - base[owner])


def _shift(
    owner: np.ndarray, first: np.ndarray, last: np.ndarray, base: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Half-open [first, last + 1) on the number line of all sessions."""
    return base[owner] + first, base[owner] + last + 1


def _subtract(
    wanted: tuple[np.ndarray, np.ndarray], refused: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """(start, length) of the maximal runs covered by `wanted` and by no `refused` interval."""
    edges = np.unique(np.concatenate([*wanted, *refused]))

    def depth(intervals: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        up, down = (
            np.bincount(np.searchsorted(edges, side), minlength=len(edges)) for side in intervals
        )
        return np.cumsum(up - down)

    inside = (depth(wanted) > 0) & (depth(refused) == 0)
    before = np.concatenate([[False], inside[:-1]])
    starts, stops = edges[inside & ~before], edges[~inside & before]
    return starts, stops - starts
