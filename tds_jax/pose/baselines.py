"""What a pose model must beat: constants, the held initial pose, `linear` on log-RMS features.

Fits stream over chunks `(emg (T, C), joint_angles (T, J) rad, valid (T,) bool)` of any length, in
any order; only rows with valid labels count. Memory does not grow with the number of rows.
"""

import dataclasses
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from tds_jax.data.drive import blame_the_drive
from tds_jax.data.whole_file import whole_file
from tds_jax.errors import UserError

OFFSET_BINS = 20  # 0.4 s of 20 ms: an offset may drift, a hold lasts longer than a twitch

Chunk = tuple[np.ndarray, np.ndarray, np.ndarray]


class Fit(Protocol):
    """Accumulates chunks."""

    def update(self, emg: np.ndarray, joint_angles: np.ndarray, valid: np.ndarray) -> None:
        """Adds one chunk."""


def fit(chunks: Iterable[Chunk], *fits: Fit) -> None:
    """Feeds every chunk to every fit: all baselines from one pass over the data."""
    for emg, joint_angles, valid in chunks:
        for one in fits:
            one.update(emg, joint_angles, valid)


class ConstantMean:
    """Mean pose: the constant of least squared error. Sums in f64."""

    def __init__(self, joints: int) -> None:
        self._sum = np.zeros(joints)
        self._count = 0

    def update(self, emg: np.ndarray, joint_angles: np.ndarray, valid: np.ndarray) -> None:
        self._sum += joint_angles[valid].sum(axis=0, dtype=np.float64)
        self._count += int(valid.sum())

    def result(self) -> np.ndarray:
        """(J,) f32. Raises UserError without a single valid row."""
        _require_rows(self._count)
        return (self._sum / self._count).astype(np.float32)


class ConstantMedian:
    """Median pose, the constant of least absolute error, from a histogram per joint.

    Within one bin (1 mrad in [-π, π], as many bins in any range) of the exact median for angles in
    [low, high]; angles beyond count as its ends. Memory: 1 MB of counts at 20 joints.
    """

    def __init__(self, joints: int, low: float = -np.pi, high: float = np.pi) -> None:
        self._bins = int(np.ceil(2 * np.pi / 1e-3))
        self._low, self._width = low, (high - low) / self._bins
        self._counts = np.zeros((joints, self._bins), np.int64)

    def update(self, emg: np.ndarray, joint_angles: np.ndarray, valid: np.ndarray) -> None:
        joints = len(self._counts)
        place = (joint_angles[valid].astype(np.float64) - self._low) / self._width
        index = np.clip(place, 0, self._bins - 1).astype(np.int64)
        flat = (index + np.arange(joints) * self._bins).ravel()
        self._counts += np.bincount(flat, minlength=self._counts.size).reshape(joints, -1)

    def result(self) -> np.ndarray:
        """(J,) f32. Raises UserError without a single valid row."""
        below = np.cumsum(self._counts, axis=1)
        _require_rows(int(below[0, -1]))
        middle = (below >= below[:, -1:] / 2).argmax(axis=1)
        return (self._low + (middle + 0.5) * self._width).astype(np.float32)


def log_rms(emg: np.ndarray, samples: int) -> np.ndarray:
    """(T // samples, C) f64 natural log of the RMS over each bin; a silent bin gives log(1e-6).

    About the mean of the last OFFSET_BINS bins: the offset of raw ADC counts would drown every
    change of amplitude. Samples with NaN or Inf count nowhere; a bin of nothing else is as the one
    before, or after where there is none before.
    """
    values, known = _binned(emg, samples)
    counts = known.sum(axis=1)
    offset = _last(values.sum(axis=1)) / np.maximum(_last(counts), 1)
    power = np.square(np.where(known, values - offset[:, None], 0)).sum(axis=1)
    found = 0.5 * np.log(power / np.maximum(counts, 1) + 1e-12)
    return _carried(found, counts > 0)


def _binned(emg: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """(bins, samples, C) f64 and which are finite; others are 0.

    A channel's first finite sample is taken off: near all others, it leaves their squares digits.
    """
    whole = emg[: len(emg) // samples * samples].astype(np.float64)
    known = np.isfinite(whole)
    first = known.argmax(axis=0, keepdims=True) if len(whole) else np.zeros((0, 1), np.int64)
    with np.errstate(invalid="ignore"):  # of what stays unknown
        whole = np.where(known, whole - np.take_along_axis(whole, first, axis=0), 0)
    shape = (len(whole) // samples, samples, emg.shape[1])
    return whole.reshape(shape), known.reshape(shape)


def _last(values: np.ndarray) -> np.ndarray:
    """(n, C) sums over OFFSET_BINS rows up to each; fewer at the start."""
    sums = np.cumsum(values, axis=0)
    sums[OFFSET_BINS:] -= sums[:-OFFSET_BINS].copy()
    return sums


def _carried(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(n, C) with unknown values replaced by the known one before, or after, in their column."""
    if known.all():
        return values
    rows = np.arange(len(values))[:, None]
    before = np.maximum.accumulate(np.where(known, rows, -1), axis=0)
    after = np.minimum(np.where(known, rows, len(values)).min(axis=0), len(values) - 1)
    return np.take_along_axis(values, np.where(before < 0, after, before), axis=0)


def _histories(features: np.ndarray, length: int) -> np.ndarray:
    """(N, length·C): row n holds features n-length+1 .. n, the first one repeated before 0."""
    padded = np.concatenate([np.repeat(features[:1], length - 1, axis=0), features])
    windows = np.lib.stride_tricks.sliding_window_view(padded, length, axis=0)
    return windows.swapaxes(1, 2).reshape(len(features), -1)


@dataclasses.dataclass(frozen=True)
class LogRmsRidge:
    """Angles at the end of a bin, linear in the log-RMS of `history` bins up to it: causal.

    weights: (history·C, J), the latest bin's C last. bias: (J,). bin_samples: samples per bin.
    """

    weights: np.ndarray
    bias: np.ndarray
    bin_samples: int
    history: int

    def predict_bins(self, emg: np.ndarray) -> np.ndarray:
        """(T // bin_samples, J) f64; row n is for sample (n + 1)·bin_samples - 1.

        emg: (T, C), one stretch of recording. Before `history` bins have passed, the first one
        stands for the missing ones.
        """
        if len(emg) < self.bin_samples:
            return np.zeros((0, len(self.bias)))
        features = log_rms(emg, self.bin_samples)
        return _histories(features, self.history) @ self.weights + self.bias

    def predict(self, emg: np.ndarray) -> np.ndarray:
        """(T, J) f32: `predict_bins` interpolated to every sample, held beyond the ends.

        Interpolation looks up to one bin ahead. T shorter than one bin: the bias.
        """
        bins = self.predict_bins(emg)
        if not len(bins):
            return np.tile(self.bias.astype(np.float32), (len(emg), 1))
        ends = (np.arange(len(bins)) + 1) * self.bin_samples - 1
        samples = np.arange(len(emg))
        columns = [np.interp(samples, ends, column) for column in bins.T]
        return np.stack(columns, axis=1).astype(np.float32)


# Tried for `linear`: seconds of log-RMS, and λ relative to the mean variance of the features, so
# that it means the same in any unit and for any amount of data.
HISTORIES = (0.1, 0.2, 0.4, 0.8)
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
PLAIN = (0.4, 1e-3)  # without a val split


class LogRmsSums:
    """Normal equations of the longest history, summed in f64: memory O((history·C)²).

    A shorter history's are a part of them. A chunk is one stretch of recording: bins do not reach
    across chunks, and bins with less than the full history behind them are not used. A history is
    features of (lag, C), the latest last, and a column of ones.
    """

    def __init__(self, channels: int, joints: int, bin_samples: int, history: int) -> None:
        self._bin, self._history = bin_samples, history
        size = history * channels + 1
        self.gram = np.zeros((size, size))
        self.cross = np.zeros((size, joints))
        self.square = 0.0

    def update(self, emg: np.ndarray, joint_angles: np.ndarray, valid: np.ndarray) -> None:
        if len(emg) < self._bin * self._history:
            return
        features = _histories(log_rms(emg, self._bin), self._history)
        ends = (np.arange(len(features)) + 1) * self._bin - 1
        used = valid[ends] & (np.arange(len(features)) >= self._history - 1)
        design = np.append(features[used], np.ones((int(used.sum()), 1)), axis=1)
        target = joint_angles[ends[used]].astype(np.float64)
        self.gram += design.T @ design
        self.cross += design.T @ target
        self.square += float(np.square(target).sum())

    @property
    def count(self) -> int:
        """How many rows."""
        return int(self.gram[-1, -1])


class LinearFit:
    """`linear`: ridge regression on log-RMS, its history and penalty those that suit `val` best.

    train, val: the sums that chunks of either split go to. Without any of val: PLAIN.
    """

    def __init__(
        self,
        channels: int,
        joints: int,
        sample_rate: float,
        bin_seconds: float = 0.02,
        histories: Sequence[float] = HISTORIES,
        penalties: Sequence[float] = PENALTIES,
    ) -> None:
        self._channels = channels
        self._bin = max(1, round(bin_seconds * sample_rate))
        seconds = self._bin / sample_rate
        bins = [max(1, round(history / seconds)) for history in (PLAIN[0], *histories)]
        self._plain = (min(bins[0], max(bins[1:])), PLAIN[1])
        self._choices = [(h, p) for h in dict.fromkeys(bins[1:]) for p in penalties]
        self.train, self.val = (
            LogRmsSums(channels, joints, self._bin, max(bins[1:])) for _ in range(2)
        )

    def result(self) -> LogRmsRidge:
        """What suits best. Raises UserError without any row to fit to."""
        _require_rows(self.train.count)
        if not self.val.count:
            return self._fitted(*self._plain)
        return min((self._fitted(*one) for one in self._choices), key=self._error_on_val)

    def _fitted(self, history: int, penalty: float) -> LogRmsRidge:
        return LogRmsRidge(*_solve(*self._cut(self.train, history), penalty), self._bin, history)

    def _error_on_val(self, found: LogRmsRidge) -> float:
        """Σ of squared errors, of the sums alone."""
        weights = np.append(found.weights, found.bias[None], axis=0)
        gram, cross = self._cut(self.val, found.history)
        return self.val.square + float(np.sum(weights * (gram @ weights - 2 * cross)))

    def _cut(self, sums: LogRmsSums, history: int) -> tuple[np.ndarray, np.ndarray]:
        """Of the latest `history` bins and the ones."""
        start = len(sums.gram) - 1 - history * self._channels
        return sums.gram[start:, start:], sums.cross[start:]


def _solve(gram: np.ndarray, cross: np.ndarray, relative: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias of sums whose last column is of ones; the bias is not penalised."""
    count = gram[-1, -1]
    mean, target = gram[-1, :-1] / count, cross[-1] / count
    covariance = gram[:-1, :-1] / count - np.outer(mean, mean)
    # The floor keeps constant features solvable: their weights come out 0.
    penalty = relative * max(np.trace(covariance) / len(covariance), 1e-12)
    covariance[np.diag_indices_from(covariance)] += penalty
    weights = np.linalg.solve(covariance, cross[:-1] / count - np.outer(mean, target))
    return weights, target - mean @ weights


# Of what is fitted, raised when a baseline changes: kept ones of another form are fitted anew.
FORM = 3


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What was fitted to the train split of sessions, as a file keeps it.

    digest: the task's. contents: fingerprint of the sessions' files.
    """

    digest: str
    contents: str
    mean: np.ndarray
    median: np.ndarray
    linear: LogRmsRidge

    def write(self, path: Path) -> None:
        """An .npz; it is there whole or not at all."""
        linear = {f"linear_{name}": value for name, value in vars(self.linear).items()}
        with whole_file(path) as temporary, temporary.open("wb") as file:
            plain = {name: getattr(self, name) for name in ("digest", "contents", "mean", "median")}
            np.savez(file, form=FORM, **plain, **linear)

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """None if there is no such file, or one of another form."""
        if not path.exists():
            return None
        try:
            # numpy leaves a path it fails to read open.
            with path.open("rb") as file, np.load(file) as arrays:
                found = dict(arrays)
            if int(found.get("form", 1)) != FORM:
                return None
            linear = LogRmsRidge(
                found["linear_weights"],
                found["linear_bias"],
                int(found["linear_bin_samples"]),
                int(found["linear_history"]),
            )
            contents = str(found.get("contents", ""))  # of older versions, which did not look
            return cls(str(found["digest"]), contents, found["mean"], found["median"], linear)
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            blame_the_drive(error, path)
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{path} cannot be read ({reason}); delete it to fit anew") from error


def _require_rows(count: int) -> None:
    if not count:
        raise UserError(
            "the training split has 0 valid label rows; the baselines need at least one: "
            "check joint_angles (an all-zero row is a failed label)"
        )
