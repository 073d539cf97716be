"""The strongest answer without a network: logistic regression on blurred radar and the prior.

A cell's odds are a sum of terms: the radar's occupancy, intensity and Doppler, blurred by Gaussians
of every size along every axis, and how often the cell is occupied in the train split. Values are
the linear regression of the target's on the same terms, where it is occupied.

It is fitted to frames that the prior was counted from, and is asked about streets that it was not:
a train frame gets the prior of the other train scenes (`held_out`), or the fit would trust it too
much.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import optimize, special
from scipy.ndimage import gaussian_filter1d, uniform_filter

from tds_jax.data.numpy_files import archive
from tds_jax.data.whole_file import whole_file
from tds_jax.progress import Progress, progress_bar
from tds_jax.voxel.data.counts import Counts, spread_over
from tds_jax.voxel.data.dataset import VoxelData
from tds_jax.voxel.data.source import Statistics, VoxelPairs
from tds_jax.voxel.data.volumes import KINDS

WIDTHS = (0.0, 1.0, 2.5)  # cells: standard deviations of the blurs along each axis
ROWS = 1 << 18  # cells that the odds are fitted to, as many of every frame: 118 MiB of terms
RIDGE = 1e-4  # of a term of unit size, per row: what the data do not tell stays small
FLOOR = 1e-3  # of the prior: its log-odds stay finite
GRADIENT = 1e-5  # of the mean cross-entropy: f32 sums tell no less
VERSION = 2  # raised when equal data would give another fit


@dataclasses.dataclass(frozen=True)
class Linear:
    """A fitted regression. odds: (F,) weights of the terms; values: (F, 2) those of reflectivity
    and Doppler; known: units of the terms."""

    odds: np.ndarray
    values: np.ndarray
    known: Statistics

    def __call__(self, radar: np.ndarray) -> np.ndarray:
        """Raw radar (D, H, W, 4) -> the target (D, H, W, 4), channel 0 a probability."""
        found = terms(radar, self.known)
        volume = np.empty_like(radar)
        volume[..., 0] = special.expit(found @ self.odds)
        volume[..., 1:3] = found @ self.values
        volume[..., 3] = self.known.target_mean[3]
        return volume


def terms(radar: np.ndarray, known: Statistics) -> np.ndarray:
    """(D, H, W, F) f32: what the regressions add up, of a raw radar volume (D, H, W, 4)."""
    full = radar[..., 0]
    units = (radar[..., 1:3] - known.radar_mean[1:3]) / known.radar_scale[1:3]
    units = units * (full > 0)[..., None]
    blurred = np.stack(list(_blurs(np.concatenate([full[..., None], units], axis=-1))), axis=-2)
    prior = known.prior
    often = prior[..., 0]
    near = uniform_filter(full, 3, mode="constant")[..., None]
    around = uniform_filter(units, (3, 3, 3, 0), mode="constant") / np.maximum(near, 1e-6)
    odds = special.logit(np.clip(often, FLOOR, 1 - FLOOR))
    parts = (
        blurred.reshape(*full.shape, -1),
        blurred[..., 0] * often[..., None],
        np.where(near > 1e-6, around, 0),
        prior[..., :3],
        odds[..., None],
        np.ones_like(full)[..., None],
    )
    return np.concatenate(parts, axis=-1, dtype=np.float32)


def _blurs(channels: np.ndarray) -> Iterator[np.ndarray]:
    """(D, H, W, C) by every choice of `WIDTHS` along the three axes."""
    for d in WIDTHS:
        deep = _blur(channels, d, 0)
        for h in WIDTHS:
            long = _blur(deep, h, 1)
            yield from (_blur(long, w, 2) for w in WIDTHS)


def _blur(channels: np.ndarray, width: float, axis: int) -> np.ndarray:
    return gaussian_filter1d(channels, width, axis, mode="constant") if width else channels


def fitted(data: VoxelData) -> Linear:
    """The regression of the train split: computed once, kept beside the data's cache."""
    known = data.statistics
    parts = (
        VERSION,
        WIDTHS,
        ROWS,
        RIDGE,
        FLOOR,
        data.shape,
        data.sweeps,
        data.contents("train", tuple(KINDS)),
        [frame.scene for frame in data.pairs("train").frames],
        known.counts.frames,
    )
    name = hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()
    path = data.cache / "linear" / f"{name}.npz"
    if not path.exists():
        with progress_bar("fitting the linear baseline") as progress:
            _write(path, *fit(data, known, progress))
    with archive(path) as arrays:
        return Linear(arrays["odds"], arrays["values"], known)


def _write(path: Path, odds: np.ndarray, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, odds=odds, values=values)


def fit(data: VoxelData, known: Statistics, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
    """(odds (F,), values (F, 2)) of the train split; one frame and `ROWS` cells in memory.

    Beside a frame's terms (460 bytes per voxel) there are one scene's counts and the prior without
    them: 56 bytes per voxel, however many frames and scenes; 76 where there is one scene alone.
    """
    pairs = data.pairs("train")
    each = max(ROWS // len(pairs), 1)
    rows: list[np.ndarray] = []
    full: list[np.ndarray] = []
    values = Squares(), Squares()
    for done, (index, example, others) in enumerate(held_out(pairs, known)):
        inside = example["weight"] > 0
        found, target = terms(example["radar"], others)[inside], example["target"][inside]
        chosen = np.random.default_rng(index).permutation(len(found))[:each]
        rows.append(found[chosen])
        full.append(target[chosen, 0] > 0)
        seen = target[:, 0] > 0
        for sums, channel, where in zip(
            values, (1, 2), (seen, seen & (target[:, 3] > 0)), strict=True
        ):
            sums.add(found[where], target[where, channel])
        progress(done + 1, len(pairs))
    odds = logistic(np.concatenate(rows), np.concatenate(full))
    return odds, np.stack([sums.solved() for sums in values], axis=1)


def held_out(
    pairs: VoxelPairs, known: Statistics
) -> Iterator[tuple[int, dict[str, np.ndarray], Statistics]]:
    """(index, example, statistics) of every frame, scene by scene; the statistics' prior is of the
    other scenes.

    Where all frames that the prior was counted from are of one scene, it is of the other frames:
    neighbours are alike, so the prior is then still trusted too much on other streets. Every frame
    is read twice.
    """
    counted = set(spread_over(len(pairs), known.counts.frames).tolist())
    for members in _by_scene(pairs):
        own = _counts(pairs, counted.intersection(members))
        others = known.without(own)
        for index in members:
            if own.frames == known.counts.frames:
                others = known.without(_counts(pairs, counted.intersection([index])))
            yield index, pairs.example(index, None), others


def _by_scene(pairs: VoxelPairs) -> Iterable[list[int]]:
    """Indices of each scene's frames."""
    members: dict[str, list[int]] = {}
    for index, frame in enumerate(pairs.frames):
        members.setdefault(frame.scene, []).append(index)
    return members.values()


def _counts(pairs: VoxelPairs, frames: Iterable[int]) -> Counts:
    counts = Counts.none(pairs.shape)
    for index in sorted(frames):
        counts = counts.plus(pairs.example(index, None)["target"])
    return counts


class Squares:
    """Least squares of rows that come in parts: what is kept has the size of the terms alone."""

    def __init__(self) -> None:
        self._squares: Any = 0.0
        self._products: Any = 0.0
        self._rows = 0

    def add(self, rows: np.ndarray, values: np.ndarray) -> None:
        """(N, F) terms and (N,) what they are to add up to."""
        wide = rows.astype(np.float64)
        self._squares = self._squares + wide.T @ wide
        self._products = self._products + wide.T @ values
        self._rows += len(rows)

    def solved(self) -> np.ndarray:
        """(F,) weights of the least squared error, with `RIDGE`; zeros of no rows."""
        unit = np.diag(self._squares) + self._rows
        return np.linalg.lstsq(self._squares + RIDGE * np.diag(unit), self._products)[0]


def logistic(rows: np.ndarray, full: np.ndarray) -> np.ndarray:
    """(F,) weights of the least cross-entropy of (N,) booleans given (N, F) terms, with `RIDGE`.

    Terms are brought to unit size for it: they differ by a factor of a thousand.
    """
    size = np.sqrt((rows.astype(np.float64) ** 2).mean(axis=0))
    size = np.where(size > 0, size, 1)
    scaled, sign = rows / size.astype(np.float32), np.where(full, 1, -1).astype(np.float32)

    def charge(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (scaled @ weights.astype(np.float32))
        slope = -sign * special.expit(-margin) / len(full)
        loss = np.logaddexp(0, -margin).mean(dtype=np.float64) + RIDGE * (weights**2).sum() / 2
        return loss, (scaled.T @ slope).astype(np.float64) + RIDGE * weights

    def curvature(weights: np.ndarray) -> np.ndarray:
        chance = special.expit(scaled @ weights.astype(np.float32))
        root = np.sqrt(chance * (1 - chance) / len(full))[:, None] * scaled
        return (root.T @ root).astype(np.float64) + RIDGE * np.eye(len(weights))

    start = np.zeros(rows.shape[1])
    found = optimize.minimize(
        charge, start, jac=True, hess=curvature, method="trust-exact", options={"gtol": GRADIENT}
    )
    return found.x / size
