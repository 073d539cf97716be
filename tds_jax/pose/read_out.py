"""`linear_median`: the median label where `linear` says what it says, joint by joint.

A ridge answers with means. Where labels are one of two and nothing between, as prompted ones are, a
mean is never right, and least absolute error wants the likelier of the two.
"""

import dataclasses

import numpy as np

from tds_jax.pose.linear import Ridge

CELLS = 48  # of what is said, an eighth of its standard deviation each
REACH = 3.0  # standard deviations to either side
LEAST = 10  # rows, without which a cell's median means nothing
LABELS = 1024  # bins: 6 mrad in [-π, π]


@dataclasses.dataclass(frozen=True)
class ReadOut:
    """said: (J, K) rad, rising. median: (J, K) of the labels there; between them interpolated."""

    said: np.ndarray
    median: np.ndarray

    def __call__(self, poses: np.ndarray) -> np.ndarray:
        """(..., J) f32 of what the ridge says; held beyond the ends."""
        columns = [
            np.interp(poses[..., j], *one)
            for j, one in enumerate(zip(self.said, self.median, strict=True))
        ]
        return np.stack(columns, axis=-1).astype(np.float32)


class ReadOutFit:
    """Histograms of labels, one per joint and cell of answers: J · 48 · 1024 · 8 B = 8 MB at 20.

    mean, spread: (J,) of the ridge's answers on train. low, high: of the labels.
    """

    def __init__(
        self, ridge: Ridge, mean: np.ndarray, spread: np.ndarray, low: float, high: float
    ) -> None:
        self._ridge, self._low, self._width = ridge, low, (high - low) / LABELS
        self._start = mean - REACH * spread
        # of a joint that is always said to be the same all rows are in one cell
        self._cell = np.maximum(2 * REACH * spread / CELLS, 1e-9)
        self._counts = np.zeros((len(mean), CELLS, LABELS), np.int64)

    def update(self, emg: np.ndarray, joint_angles: np.ndarray, valid: np.ndarray) -> None:
        said = self._ridge.predict_bins(emg)
        ends = (np.arange(len(said)) + 1) * self._ridge.bin_samples - 1
        said, labels = said[valid[ends]], joint_angles[ends[valid[ends]]].astype(np.float64)
        cell = np.clip((said - self._start) / self._cell, 0, CELLS - 1).astype(np.int64)
        label = np.clip((labels - self._low) / self._width, 0, LABELS - 1).astype(np.int64)
        flat = ((np.arange(said.shape[1]) * CELLS + cell) * LABELS + label).ravel()
        self._counts += np.bincount(flat, minlength=self._counts.size).reshape(self._counts.shape)

    def result(self) -> ReadOut:
        """Medians within 3 mrad; a cell of fewer than LEAST rows has what its neighbours give."""
        below = np.cumsum(self._counts, axis=2)
        counts = below[:, :, -1]
        middle = (below >= counts[:, :, None] / 2).argmax(axis=2)
        median = self._low + (middle + 0.5) * self._width
        said = self._start[:, None] + (np.arange(CELLS) + 0.5) * self._cell[:, None]
        for j, known in enumerate(counts >= LEAST):
            near = np.interp(said[j], said[j, known], median[j, known]) if known.any() else said[j]
            median[j] = near
        return ReadOut(said, median)
