"""The usual value at each time of the year, without a wave's shape: smoothed means of days, of
finer steps one of each time of the day."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from tds_jax.forecast.climatology import Climatology, blocks
from tds_jax.forecast.cycles import split
from tds_jax.forecast.days import day_fraction, year_fraction
from tds_jax.forecast.gridded_days import Fields
from tds_jax.forecast.steps import Step

BINS = 73  # of five days, for each time of the day
HALF_DAY = 0.5 / 365.25  # of a year: phases are of the beginnings of days, bins of their middles
# Days on both sides that count, in bins: the nearer the more, as WeatherBench 2 smooths over 61.
REACH = 6


Value = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(days (n,), the target then (n, H, W)) -> what is averaged, NaN where missing."""


def fit_day_of_year(fields: Fields, days: Sequence[int] | range) -> np.ndarray:
    """(N BINS, H, W) f32 means of the target, one pass; a cell's mean where no day is within REACH.

    N: steps in a day, whose times of the day come one after the other. Sums are kept: 16 N BINS
    bytes a cell.
    """
    return _means(fields, days, lambda dates, values: values)


def fit_season(fields: Fields, days: Sequence[int] | range, usual: Climatology) -> np.ndarray:
    """(N BINS, H, W) f32 root mean square of the target about its climatology, likewise."""
    found = _means(fields, days, lambda dates, values: np.square(values - usual.at(dates)[..., 0]))
    return np.sqrt(found)


def _means(fields: Fields, days: Sequence[int] | range, value: Value) -> np.ndarray:
    times = Step.of(fields.days).per_day
    shape = times * BINS, len(fields.lat), len(fields.lon)
    total, count = np.zeros(shape), np.zeros(shape)
    for indices, block in blocks(fields, days, (fields.target,)):
        dates = fields.days[indices]
        values = value(dates, block[..., 0])
        known = np.isfinite(values)
        place = ((year_fraction(dates) + HALF_DAY / times) * BINS).astype(int)
        place += BINS * (day_fraction(dates) * times).round().astype(int)
        np.add.at(total, place, np.where(known, values, 0))
        np.add.at(count, place, known)
    each = zip(np.split(total, times), np.split(count, times), strict=True)
    return np.concatenate([_mean(*one) for one in each])


def _mean(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """(BINS, H, W) f32 of sums at one time of the day."""
    mean = total.sum(axis=0) / np.maximum(count.sum(axis=0), 1)
    total, count = _smoothed(total), _smoothed(count)
    return np.where(count > 0, total / np.where(count > 0, count, 1), mean).astype(np.float32)


def _smoothed(bins: np.ndarray) -> np.ndarray:
    """Triangular sums around the year."""
    weights = {k: 1 - abs(k) / (REACH + 1) for k in range(-REACH, REACH + 1)}
    return np.sum([w * np.roll(bins, k, axis=0) for k, w in weights.items()], axis=0)


def at_phase(bins: jax.Array, phase: jax.Array) -> jax.Array:
    """(B, N, H, W) at `phases` (B, N) or (B, N, 2), linear between the bins' middles."""
    year, day = split(phase)
    times = len(bins) // BINS
    place = (year + HALF_DAY / times) * BINS - 0.5
    low = jnp.floor(place)
    part = (place - low)[..., None, None]
    first = low.astype(jnp.int32) % BINS
    # Of a day one time alone, whose bins begin at 0.
    here = 0 if day is None else BINS * jnp.round(day * times).astype(jnp.int32)
    return bins[here + first] * (1 - part) + bins[here + (first + 1) % BINS] * part
