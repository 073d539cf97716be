"""Metrics of predicted volumes as states (see `engine.metrics`): voxels, points, bands, values.

A volume is (D, H, W, 4): channel 0 an occupancy (a probability, or 1), then intensity and Doppler.
A voxel is predicted where channel 0 is above a threshold and true where the target's is above 0.
Points are the centres of such voxels in metres. States hold float64 numbers and add up.

Nothing to compare: a frame in which prediction and truth are both empty adds nothing to any mean or
ratio. A frame in which one of them is empty has the largest Chamfer and Hausdorff distance that any
answer on the grid could have: no frame gets a better one by saying nothing. It is also counted in
empty_prediction or empty_target.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any, Self

import jax
import numpy as np
from scipy.spatial import cKDTree

from tds_jax.engine.metrics import Additive, Mean, divide
from tds_jax.voxel.data.resize import Geometry

TOLERANCE_M = 0.5
RANGE_BANDS_M = (0.0, 20.0, 40.0, 80.0, 120.0)  # horizontal distance from the sensor
HEIGHT_BANDS_M = (-6.0, -1.0, 1.0, 3.0, 10.0)
States = dict[str, Any]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cells(Additive):
    """True positives, false positives and false negatives of cells."""

    hits: float
    false: float
    missed: float

    @classmethod
    def of(cls, predicted: np.ndarray, true: np.ndarray) -> Self:
        """Of two boolean arrays of one shape."""
        hits = float(np.sum(predicted & true))
        return cls(hits, float(np.sum(predicted)) - hits, float(np.sum(true)) - hits)

    def compute(self, name: str) -> dict[str, float]:
        """<name>_iou, _precision, _recall, _f1 (without the prefix for 'voxel': iou …).

        NaN where nothing was predicted (precision), true (recall) or either (iou, f1).
        """
        prefix = "" if name == "voxel" else f"{name}_"
        return {
            f"{prefix}iou": divide(self.hits, self.hits + self.false + self.missed),
            f"{prefix}precision": divide(self.hits, self.hits + self.false),
            f"{prefix}recall": divide(self.hits, self.hits + self.missed),
            f"{prefix}f1": divide(2 * self.hits, 2 * self.hits + self.false + self.missed),
        }


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Points(Additive):
    """Distances between two point sets, summed over frames; counts of points near the others."""

    chamfer: float
    hausdorff: float
    compared: float
    near_predicted: float
    predicted: float
    near_true: float
    true: float
    empty_prediction: float
    empty_target: float
    frames: float

    @classmethod
    def of(cls, predicted: np.ndarray, true: np.ndarray, farthest_m: float = math.inf) -> Self:
        """Of (N, 3) and (M, 3) metres; N or M may be 0.

        farthest_m: how far two points can be apart, which stands for the distance to an empty set;
        without bounds that is infinite.
        """
        n, m = len(predicted), len(true)
        empty = float(n == 0), float(m == 0), 1.0
        if not n and not m:
            return cls(0, 0, 0, 0, n, 0, m, *empty)
        if not n or not m:
            return cls(2 * farthest_m, farthest_m, 1, 0, n, 0, m, *empty)
        there, _ = cKDTree(true).query(predicted)
        back, _ = cKDTree(predicted).query(true)
        near, found = (there <= TOLERANCE_M).sum(), (back <= TOLERANCE_M).sum()
        worst = max(there.max(), back.max())
        return cls(there.mean() + back.mean(), worst, 1, near, n, found, m, *empty)

    def compute(self, name: str) -> dict[str, float]:
        """chamfer_m and hausdorff_m (means over frames that are not empty), near_* and counts.

        chamfer = mean over predicted of the distance to the nearest true point + the reverse, not
        squared. near_precision: share of predicted points with a true one within TOLERANCE_M;
        near_recall: share of true points with a predicted one (the reference counts its recall's
        hits among the predicted points); near_f1: their harmonic mean, 0 where nothing is near, as
        f1. count_ratio: predicted
        points per true point. empty_*: share of frames without a point.
        """
        precision = divide(self.near_predicted, self.predicted)
        recall = divide(self.near_true, self.true)
        return {
            "chamfer_m": divide(self.chamfer, self.compared),
            "hausdorff_m": divide(self.hausdorff, self.compared),
            "near_precision": precision,
            "near_recall": recall,
            "near_f1": self._near_f1(),
            "count_ratio": divide(self.predicted, self.true),
            "empty_prediction": divide(self.empty_prediction, self.frames),
            "empty_target": divide(self.empty_target, self.frames),
        }

    def _near_f1(self) -> float:
        precision, recall = self.near_predicted * self.true, self.near_true * self.predicted
        if not precision + recall:
            return 0.0 if self.predicted + self.true else math.nan
        return divide(2 * self.near_predicted * self.near_true, precision + recall)


def compare(
    prediction: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray,
    geometry: Geometry,
    threshold: float,
) -> States:
    """States of one frame: (D, H, W, 4) volumes in raw units, weight (D, H, W) 0 in padding.

    Names: voxel, bev (cells in which any height is occupied), points, range/<band> and
    height/<band> (voxels by the true place: each voxel is in one band), intensity_mae and
    doppler_mae_m_s (on truly occupied voxels, Doppler where the target's is valid; a prediction
    there counts whether or not it says occupied, as in the reference).
    """
    inside = weight > 0
    predicted = (prediction[..., 0] > threshold) & inside
    true = (target[..., 0] > 0) & inside
    valid = true & (target[..., 3] > 0)
    return {
        "voxel": Cells.of(predicted, true),
        "bev": Cells.of(predicted.max(axis=0), true.max(axis=0)),
        "points": Points.of(geometry.points(predicted), geometry.points(true), geometry.farthest_m),
        **_bands(predicted, true, geometry),
        "intensity_mae": _absolute_error(prediction[..., 1], target[..., 1], true),
        "doppler_mae_m_s": _absolute_error(prediction[..., 2], target[..., 2], valid),
    }


def _absolute_error(prediction: np.ndarray, target: np.ndarray, where: np.ndarray) -> Mean:
    error = np.abs(prediction[where].astype(np.float64) - target[where])
    return Mean(float(error.sum()), float(error.size))


def _bands(predicted: np.ndarray, true: np.ndarray, geometry: Geometry) -> States:
    """A `Cells` for every band that the grid reaches."""
    either = predicted | true
    points = geometry.points(either)
    pairs = predicted[either], true[either]
    values = {"range": np.hypot(points[:, 0], points[:, 1]), "height": points[:, 2]}
    found: States = {}
    for kind, bands in reached_bands(geometry).items():
        for low, high in bands:
            band = (values[kind] >= low) & (values[kind] < high)
            found[f"{kind}/{low:g}..{high:g}m"] = Cells.of(pairs[0][band], pairs[1][band])
    return found


def reached_bands(geometry: Geometry) -> dict[str, list[tuple[float, float]]]:
    """The bands that hold some voxel centre of the grid."""
    centres = [
        low + size * (np.arange(n) + 0.5)
        for low, size, n in zip(geometry.lower, geometry.size, geometry.shape, strict=True)
    ]
    z, x, y = centres
    farthest = np.hypot(np.abs(x).max(), np.abs(y).max())
    nearest = np.hypot(np.abs(x).min(), np.abs(y).min())
    return {
        "range": _overlapping(RANGE_BANDS_M, nearest, farthest),
        "height": _overlapping(HEIGHT_BANDS_M, z[0], z[-1]),
    }


def _overlapping(
    edges: tuple[float, ...], lowest: float, highest: float
) -> list[tuple[float, float]]:
    pairs = itertools.pairwise(edges)
    return [(low, high) for low, high in pairs if low <= highest and high > lowest]


def split_groups(states: Mapping[str, Any]) -> tuple[States, dict[str, States]]:
    """(states of the whole, {group: states}), a group for each band: 'range/0..20m' …"""
    whole = {name: state for name, state in states.items() if "/" not in name}
    groups = {name: {"voxel": state} for name, state in states.items() if "/" in name}
    return whole, groups


@dataclasses.dataclass(frozen=True)
class ThresholdSweep(Additive):
    """How many true and how many empty voxels are predicted at each threshold; both (n,)."""

    hits: np.ndarray
    false: np.ndarray
    true: float

    @classmethod
    def of(
        cls, prediction: np.ndarray, target: np.ndarray, weight: np.ndarray, thresholds: np.ndarray
    ) -> Self:
        """Of occupancies (D, H, W) in one pass, whatever the number of ascending thresholds."""
        inside = weight > 0
        values, true = prediction[inside], target[inside] > 0
        return cls(
            _count_above(values[true], thresholds),
            _count_above(values[~true], thresholds),
            float(np.count_nonzero(true)),
        )

    def scores(self) -> dict[str, np.ndarray]:
        """iou, f1, precision and recall at each threshold; 0 where there is nothing."""
        either = self.true + self.false
        return {
            "iou": self.hits / np.maximum(either, 1),
            "f1": 2 * self.hits / np.maximum(either + self.hits, 1),
            "precision": self.hits / np.maximum(self.hits + self.false, 1),
            "recall": self.hits / np.maximum(self.true, 1),
        }

    def best(self, thresholds: np.ndarray, score: str) -> float:
        """The threshold with the highest 'iou' or 'f1': the middle one of those that tie.

        Both are increasing functions of each other, so they choose alike. Without any true voxel
        all tie at 0.
        """
        values = self.scores()[score]
        ties = np.flatnonzero(values == values.max())
        return float(thresholds[ties[len(ties) // 2]])


def _count_above(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(n,) how many values are > each of the ascending thresholds."""
    place = np.searchsorted(thresholds, values, side="left")
    counts = np.bincount(place, minlength=len(thresholds) + 1)
    return counts.sum() - np.cumsum(counts)[:-1].astype(np.float64)


def dilated(volume: np.ndarray, radius: int) -> np.ndarray:
    """A volume whose every occupied voxel fills its (2 radius + 1)³ neighbours.

    (D, H, W, 4) -> the same; a filled voxel takes the mean of the occupied voxels around it. The
    baseline that gains recall from raw radar without learning anything. Memory grows with the
    occupied voxels.
    """
    steps = np.arange(-radius, radius + 1)
    offsets = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    occupied = volume[..., 0] > 0
    near = (np.argwhere(occupied)[:, None] + offsets).reshape(-1, 3)
    values = np.repeat(volume[occupied], len(offsets), axis=0)
    shape = volume.shape[:3]
    inside = ((near >= 0) & (near < shape)).all(axis=1)
    flat = np.ravel_multi_index(tuple(near[inside].T), shape)
    cells, of_cell, counts = np.unique(flat, return_inverse=True, return_counts=True)
    result = np.zeros_like(volume)
    rows = result.reshape(-1, volume.shape[3])
    for c in range(1, volume.shape[3]):
        rows[cells, c] = np.bincount(of_cell, values[inside, c], minlength=len(cells)) / counts
    rows[cells, 0] = 1
    return result
