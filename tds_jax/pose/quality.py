"""What one pass over a recording's rows tells of its signal and its time stamps."""

import hashlib

import numpy as np

DEAD_SHARE = 1e-3  # a dead channel's spread, at most, against the median channel's
SATURATED_SHARE = 0.01  # of a saturated channel's samples, at its own highest or lowest value …
SATURATED_LEAST = 10  # … and at least so many
GAP_STEPS = 2.0  # a gap is a time step longer than so many usual ones …
USUAL = 0.95  # … which this share of them do not exceed: samples may come in packets of up to 20


class Quality:
    """Sums over blocks of rows, shown one after another; memory does not grow with the rows.

    bad_emg, bad_labels: values that are NaN or Inf. repeated: rows whose EMG is that of the row
    before. gaps: time steps longer than GAP_STEPS usual ones of the first block; longest: the
    longest step, s. first, last: times, s, NaN without.
    """

    def __init__(self) -> None:
        self.bad_emg = self.bad_labels = self.gaps = self.repeated = 0
        self.longest = 0.0
        self.first = self.last = float("nan")
        self._step = 0.0
        self._row = np.zeros((0, 1))
        self._digest = hashlib.blake2b(digest_size=16)
        self._count = self._sum = self._squares = np.zeros(1)
        # Highest value of each channel and of its negative, and how often it came.
        self._top = [np.array([-np.inf])] * 2
        self._times = [np.zeros(1)] * 2

    def add(self, rows: np.ndarray) -> None:
        """Adds structured rows with the fields emg, joint_angles and perhaps time."""
        self._digest.update(rows["emg"].tobytes())
        self.bad_labels += int(np.sum(~np.isfinite(rows["joint_angles"])))
        self._add_signal(rows["emg"].astype(np.float64))
        if "time" in (rows.dtype.names or ()) and len(rows):
            self._add_time(rows["time"].reshape(len(rows)).astype(np.float64))

    def _add_signal(self, emg: np.ndarray) -> None:
        finite = np.isfinite(emg)
        clean = np.where(finite, emg, 0)
        before = np.concatenate([self._row.reshape(-1, emg.shape[1]), emg])
        self.repeated += int((before[1:] == before[:-1]).all(axis=1).sum())
        self._row = emg[-1:]
        self.bad_emg += int(np.sum(~finite))
        self._count = self._count + finite.sum(axis=0)
        self._sum = self._sum + clean.sum(axis=0)
        self._squares = self._squares + np.square(clean).sum(axis=0)
        for side, sign in enumerate((1, -1)):
            values = np.where(finite, sign * emg, -np.inf)
            top, known = values.max(axis=0), self._top[side]
            times = np.sum(values == top, axis=0)
            self._times[side] = times * (top >= known) + self._times[side] * (known >= top)
            self._top[side] = np.maximum(top, known)

    def _add_time(self, time: np.ndarray) -> None:
        if np.isnan(self.first) and len(time) > 1:
            self._step, self.first = float(np.quantile(np.diff(time), USUAL)), float(time[0])
        steps = np.diff(np.concatenate([[self.last], time]))  # the first step of all is NaN
        if self._step > 0:
            self.gaps += int(np.sum(steps > GAP_STEPS * self._step))
        self.longest = float(steps.max(initial=self.longest, where=np.isfinite(steps)))
        self.last = float(time[-1])

    @property
    def digest(self) -> str:
        """Equal for recordings of the same samples."""
        return self._digest.hexdigest()

    @property
    def rms(self) -> np.ndarray:
        """(C,) over finite samples, 0 without any."""
        return np.sqrt(self._squares / np.maximum(self._count, 1))

    @property
    def mean(self) -> np.ndarray:
        """(C,) over finite samples: a constant offset, 0 without any."""
        return np.asarray(self._sum / np.maximum(self._count, 1))

    @property
    def spread(self) -> np.ndarray:
        """(C,) standard deviation over finite samples, 0 without any."""
        return np.sqrt(np.maximum(np.square(self.rms) - np.square(self.mean), 0))

    @property
    def dead(self) -> np.ndarray:
        """(C,) bool: constant, never finite, or hardly varying beside the other channels."""
        return np.asarray(self.spread <= DEAD_SHARE * np.median(self.spread))

    @property
    def saturated(self) -> np.ndarray:
        """(C,) bool: alive, yet often at exactly its highest or lowest value."""
        times = np.maximum(*self._times)
        least = np.maximum(SATURATED_SHARE * self._count, SATURATED_LEAST)
        return np.asarray(~self.dead & (times >= least))
