"""The baseline `linear`: a ridge on how strong the electrodes are, when, and how alike.

Its features are the log-RMS of the last bins one by one, and, over longer stretches, log-RMS and
the correlation of every pair of electrodes: of the same muscle's units two hear the same spikes.
How much of this, and how strong a penalty, is what suits `val` best. `linear_median` says what the
median label is where `linear` says what it says: of angles that are bent or straight and nothing
between it says one or the other.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tds_jax.pose.labels import require_rows

OFFSET_BINS = 20  # 0.4 s of 20 ms: an offset may drift, a hold lasts longer than a twitch
FLOOR = 1e-12  # of a power, in the recording's unit squared
# Pairs of more electrodes are too many: 32 have 496, and all sums together 2 x 43 MB.
MOST_PAIRED = 32


def log_rms(emg: np.ndarray, samples: int) -> np.ndarray:
    """(T // samples, C) f64 natural log of the RMS over each bin; a silent bin gives log(1e-6).

    About the mean of the last OFFSET_BINS bins: the offset of raw ADC counts would drown every
    change of amplitude. Samples with NaN or Inf count nowhere; a bin of nothing else is as the one
    before, or after where there is none before.
    """
    values, known = _deviations(emg, samples)
    counts = known.sum(axis=1)
    return _log_rms(np.square(values).sum(axis=1), counts)


def _log_rms(power: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(bins, C) of sums of squares over bins and how many there are."""
    found = 0.5 * np.log(power / np.maximum(counts, 1) + FLOOR)
    return _carried(found, counts > 0)


def _deviations(emg: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """(bins, samples, C) f64 about the mean of the last OFFSET_BINS, and which are known."""
    values, known = _binned(emg, samples)
    counts = last_sums(known.sum(axis=1), OFFSET_BINS)
    offset = last_sums(values.sum(axis=1), OFFSET_BINS) / np.maximum(counts, 1)
    return np.where(known, values - offset[:, None], 0), known


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


def last_sums(values: np.ndarray, length: int) -> np.ndarray:
    """Sums over the last `length` rows up to each; fewer at the start."""
    sums = np.cumsum(values, axis=0)
    sums[length:] -= sums[:-length].copy()
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


class Reach(NamedTuple):
    """What a fit looks back at, in bins: the last `history` one by one, and whole stretches."""

    history: int
    stretches: tuple[int, ...]

    @property
    def bins(self) -> int:
        """Of the recording before a row that its features depend on."""
        return max(self.history, *self.stretches, 1) + OFFSET_BINS

    def features(self, channels: int) -> int:
        """How many."""
        each = channels * (channels + 1) // 2
        return self.history * channels + len(self.stretches) * each


def design(emg: np.ndarray, samples: int, reach: Reach) -> np.ndarray:
    """(T // samples, F) f64 features at the end of each bin of `samples`: causal.

    The stretches' first, each log-RMS (C) and correlations (C (C - 1) / 2), then the history, the
    latest bin's C last. At the start the first bin stands for missing ones, and a stretch is as
    long as what there is.
    """
    values, known = _deviations(emg, samples)
    counts = known.sum(axis=1)
    history = _histories(_log_rms(np.square(values).sum(axis=1), counts), reach.history)
    if not reach.stretches:
        return history
    moments = values.swapaxes(1, 2) @ values
    parts = [_alike(moments, counts, length) for length in reach.stretches]
    return np.concatenate([*parts, history], axis=1)


def _alike(moments: np.ndarray, counts: np.ndarray, length: int) -> np.ndarray:
    """(bins, C (C + 1) / 2): log-RMS over the last `length` bins, correlations of the pairs."""
    total, count = last_sums(moments, length), last_sums(counts, length)
    power = np.maximum(np.einsum("ncc->nc", total), 0)  # of differences of sums
    first, second = np.triu_indices(moments.shape[1], 1)
    scale = np.sqrt(power[:, first] * power[:, second])
    alike = total[:, first, second] / np.maximum(scale, FLOOR)
    return np.concatenate([_log_rms(power, count), np.clip(alike, -1, 1)], axis=1)


@dataclasses.dataclass(frozen=True)
class Ridge:
    """Angles at the end of a bin, linear in the `design` of what is before it: causal.

    weights: (F, J). bias: (J,). bin_samples: samples per bin. history, stretches: of a `Reach`.
    """

    weights: np.ndarray
    bias: np.ndarray
    bin_samples: int
    history: int
    stretches: tuple[int, ...] = ()

    @property
    def reach(self) -> Reach:
        """What it looks back at."""
        return Reach(self.history, self.stretches)

    @property
    def samples_before(self) -> int:
        """Of a recording before a row, which its answer depends on."""
        return self.reach.bins * self.bin_samples

    def predict_bins(self, emg: np.ndarray) -> np.ndarray:
        """(T // bin_samples, J) f64; row n is for sample (n + 1)·bin_samples - 1.

        emg: (T, C), one stretch of recording.
        """
        if len(emg) < self.bin_samples:
            return np.zeros((0, len(self.bias)))
        return design(emg, self.bin_samples, self.reach) @ self.weights + self.bias

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


# Tried: seconds of log-RMS bin by bin, seconds of stretches, and λ relative to each feature's
# variance, so that it means the same in any unit and for any amount of data.
HISTORIES = (0.1, 0.2, 0.4, 0.8)
STRETCHES = ((), (0.1, 0.5), (0.1, 0.5, 2.0))
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
PLAIN = (0.4, (), 1e-3)  # without a val split


class Sums:
    """Normal equations of the longest reach, summed in f64: memory O(F²).

    A shorter reach's are a part of them. A chunk is one stretch of recording: bins do not reach
    across chunks, and bins with less than the full history behind them are not used. Features are
    those of `design`, and a column of ones.
    """

    def __init__(self, channels: int, joints: int, bin_samples: int, reach: Reach) -> None:
        self._bin, self._reach = bin_samples, reach
        size = reach.features(channels) + 1
        self.gram = np.zeros((size, size))
        self.cross = np.zeros((size, joints))
        self.square = 0.0

    def update(self, emg: np.ndarray, joint_angles: np.ndarray, valid: np.ndarray) -> None:
        if len(emg) < self._bin * self._reach.history:
            return
        features = design(emg, self._bin, self._reach)
        ends = (np.arange(len(features)) + 1) * self._bin - 1
        used = valid[ends] & (np.arange(len(features)) >= self._reach.history - 1)
        rows = np.append(features[used], np.ones((int(used.sum()), 1)), axis=1)
        target = joint_angles[ends[used]].astype(np.float64)
        self.gram += rows.T @ rows
        self.cross += rows.T @ target
        self.square += float(np.square(target).sum())

    @property
    def count(self) -> int:
        """How many rows."""
        return int(self.gram[-1, -1])


class LinearFit:
    """`linear`: of what is tried the reach and penalty that suit `val` best.

    train, val: the sums that chunks of either split go to. Without any of val: PLAIN.
    """

    def __init__(
        self,
        channels: int,
        joints: int,
        sample_rate: float,
        bin_seconds: float = 0.02,
        histories: Sequence[float] = HISTORIES,
        stretches: Sequence[Sequence[float]] = STRETCHES,
        penalties: Sequence[float] = PENALTIES,
    ) -> None:
        self._channels, self._rate = channels, sample_rate
        self._bin = max(1, round(bin_seconds * sample_rate))
        each = channels * (channels + 1) // 2
        alike = [self._bins(one) for one in stretches] if channels <= MOST_PAIRED else [()]
        lengths = sorted({length for one in alike for length in one})
        self._columns = {n: np.arange(i * each, (i + 1) * each) for i, n in enumerate(lengths)}
        tried = list(dict.fromkeys(self._bins(histories)))
        plain = min(self._bins(PLAIN[:1])[0], max(tried))
        self._plain = (Reach(plain, ()), PLAIN[2])
        self._choices = [(Reach(h, a), p) for h in tried for a in alike for p in penalties]
        self._most = Reach(max(tried), tuple(lengths))
        self.train, self.val = (Sums(channels, joints, self._bin, self._most) for _ in range(2))

    def _bins(self, seconds: Sequence[float]) -> tuple[int, ...]:
        return tuple(max(1, round(one * self._rate / self._bin)) for one in seconds)

    def result(self) -> Ridge:
        """What suits best. Raises UserError without any row to fit to."""
        require_rows(self.train.count)
        if not self.val.count:
            return self._fitted(*self._plain)
        return min((self._fitted(*one) for one in self._choices), key=self._error_on_val)

    def spread(self, found: Ridge) -> tuple[np.ndarray, np.ndarray]:
        """(J,) mean and standard deviation of its answers on train."""
        gram, cross = self._cut(self.train, found.reach)
        covariance = _moments(gram, cross)[0]
        variance = np.einsum("fj,fg,gj->j", found.weights, covariance, found.weights, optimize=True)
        return cross[-1] / gram[-1, -1], np.sqrt(np.maximum(variance, 0))

    def _fitted(self, reach: Reach, penalty: float) -> Ridge:
        return Ridge(*_solve(*self._cut(self.train, reach), penalty), self._bin, *reach)

    def _error_on_val(self, found: Ridge) -> float:
        """Σ of squared errors, of the sums alone."""
        weights = np.append(found.weights, found.bias[None], axis=0)
        gram, cross = self._cut(self.val, found.reach)
        return self.val.square + float(np.sum(weights * (gram @ weights - 2 * cross)))

    def _cut(self, sums: Sums, reach: Reach) -> tuple[np.ndarray, np.ndarray]:
        """Of the stretches asked for, the latest `history` bins and the ones."""
        size = len(sums.gram)
        latest = np.arange(size - 1 - reach.history * self._channels, size)
        kept = np.concatenate([*(self._columns[n] for n in reach.stretches), latest])
        return sums.gram[np.ix_(kept, kept)], sums.cross[kept]


def _moments(gram: np.ndarray, cross: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Covariances of the features, and with the target, of sums whose last column is of ones."""
    count = gram[-1, -1]
    mean, target = gram[-1, :-1] / count, cross[-1] / count
    covariance = gram[:-1, :-1] / count - np.outer(mean, mean)
    return covariance, cross[:-1] / count - np.outer(mean, target)


def _solve(gram: np.ndarray, cross: np.ndarray, relative: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias of sums whose last column is of ones; the bias is not penalised."""
    covariance, with_target = _moments(gram, cross)
    variance = np.diagonal(covariance)
    # The floor keeps constant features solvable: their weights come out 0.
    least = max(1e-6 * float(variance.mean()), 1e-12)
    covariance[np.diag_indices_from(covariance)] += relative * np.maximum(variance, least)
    weights = np.linalg.solve(covariance, with_target)
    return weights, cross[-1] / gram[-1, -1] - gram[-1, :-1] / gram[-1, -1] @ weights
