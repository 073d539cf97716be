"""What is usual in each cell on each day of the year, fitted on training days as they stream by."""

import dataclasses
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np

from tds_jax.data.crew import ALONE, Crew
from tds_jax.data.grid_record import WHOLE
from tds_jax.forecast.days import day_fraction, year_fraction
from tds_jax.forecast.gridded_days import Fields
from tds_jax.forecast.steps import Step

BLOCK_DAYS = 8  # read at once while statistics stream
LEAST_SPREAD = 0.05  # of a variable's typical spread: floor of the spread of a single cell
# Longest part of the year without a day before annual waves are not fitted: they would be
# extrapolated there.
SEASON_GAP = 0.15
PIVOT = 1e-6  # relative eigenvalue of the normal equations below which a direction is not fitted


@dataclasses.dataclass(frozen=True)
class Climatology:
    """The usual value of each variable, Σ_p basis_p(phase) · coefficients_p, and its spread.

    coefficients: (P, H, W, C) f64, or (1, 1, 1, C) where all cells share one mean. scale: (H, W, C)
    or (1, 1, C), above 0: standard deviation about the usual value. `harmonics` is the basis.
    Cells where a variable is never there have the usual value 0. daily: waves of the day in it.
    """

    coefficients: np.ndarray
    scale: np.ndarray
    daily: int = 0

    def at(self, days: np.ndarray) -> np.ndarray:
        """(n, H, W, C) f64 usual values on `days`."""
        annual = (len(self.coefficients) // (1 + 2 * self.daily) - 1) // 2
        return np.tensordot(basis(days, annual, self.daily), self.coefficients, axes=1)

    def of(self, channels: Sequence[int]) -> "Climatology":
        """The same for some of the variables, which stay in an axis C."""
        chosen = list(channels)
        return Climatology(self.coefficients[..., chosen], self.scale[..., chosen], self.daily)


def harmonics(phase: np.ndarray, count: int) -> np.ndarray:
    """(n, 1 + 2 count) basis at phases (n,) of the year: 1, sin 2πp, cos 2πp, sin 4πp, …"""
    angles = 2 * np.pi * phase[:, None] * np.arange(1, count + 1)
    waves = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(len(phase), -1)
    return np.concatenate([np.ones((len(phase), 1)), waves], axis=1)


def basis(days: np.ndarray, count: int, daily: int) -> np.ndarray:
    """(n, (1 + 2 count)(1 + 2 daily)): annual harmonics, and each times each wave of the day, so
    that days are not the same all year."""
    annual = harmonics(year_fraction(days), count)
    if not daily:
        return annual
    day = harmonics(day_fraction(days), daily)
    return (day[:, :, None] * annual[:, None]).reshape(len(days), -1)


@dataclasses.dataclass(frozen=True)
class _Sums:
    """Sums over the days at which a value is there: Σ φφᵀ, Σ φx and Σ x², per cell and variable."""

    gram: np.ndarray  # (P, P, H, W, C)
    product: np.ndarray  # (P, H, W, C)
    square: np.ndarray  # (H, W, C)


def fit_climatology(
    fields: Fields,
    days: Sequence[int] | range,
    kind: str,
    count: int,
    crew: Crew = ALONE,
    daily: int = 0,
) -> Climatology:
    """Statistics of the days with these indices; one block of days in memory at a time.

    kind: 'scalar': one mean and standard deviation per variable over all cells and days; 'cell':
    one per cell; 'anomaly': `count` annual harmonics per cell by least squares, with `daily` of the
    day, see `basis`, and one standard deviation per variable of what they leave; no annual waves
    (coefficients of 0) where the days leave out a season. Missing values carry no weight. A cell
    with too few days to tell the harmonics apart gets the smallest ones that fit. Sums are kept in
    f64: 8 (P² + P + 1) bytes per cell and variable with P = (1 + 2 count)(1 + 2 daily) of
    'anomaly', else P = 1. A crew reads a part of the days each.
    """
    asked = count if kind == "anomaly" else 0
    waves = 0 if lacks_season(fields.days[np.asarray(days)]) else asked
    daily = daily if kind == "anomaly" else 0
    own = _sums(fields, days[crew.span(len(days))], waves, daily)
    sums = _Sums(*crew.add([own.gram, own.product, own.square]))
    present = sums.gram[0, 0]
    every = np.maximum(present.sum(axis=(0, 1)), 1)
    if kind == "scalar":
        mean = sums.product[0].sum(axis=(0, 1)) / every
        spread = np.sqrt(np.maximum(sums.square.sum(axis=(0, 1)) / every - mean**2, 0))
        return Climatology(mean[None, None, None], _positive(spread)[None, None])
    fitted = _solve(sums.gram, sums.product)
    coefficients = np.zeros(((1 + 2 * asked) * (1 + 2 * daily), *fitted.shape[1:]))
    if waves == asked:
        coefficients[...] = fitted
    else:  # of the year only its mean
        coefficients[:: 1 + 2 * asked] = fitted
    # At the least-squares solution Σ (x - cφ)² = Σ x² - c·Σ φx.
    left = np.maximum(sums.square - (fitted * sums.product).sum(axis=0), 0)
    typical = _positive(np.sqrt(left.sum(axis=(0, 1)) / every))[None, None]
    if kind == "anomaly":
        return Climatology(coefficients, typical, daily)
    spread = np.sqrt(left / np.maximum(present, 1))
    return Climatology(coefficients, np.maximum(spread, LEAST_SPREAD * typical))


def _positive(spread: np.ndarray) -> np.ndarray:
    return np.where(spread > 0, spread, 1.0)


def _sums(fields: Fields, days: Sequence[int] | range, waves: int, daily: int) -> _Sums:
    shape = len(fields.lat), len(fields.lon), len(fields.variables)
    size = (1 + 2 * waves) * (1 + 2 * daily)
    sums = _Sums(np.zeros((size, size, *shape)), np.zeros((size, *shape)), np.zeros(shape))
    for indices, block in blocks(fields, days):
        known = np.isfinite(block)
        values = np.where(known, block, 0).astype(np.float64)
        cycles = basis(fields.days[indices], waves, daily)
        pairs = np.einsum("np,nq->npq", cycles, cycles)
        sums.gram[...] += np.tensordot(pairs, known.astype(np.float64), axes=(0, 0))
        sums.product[...] += np.tensordot(cycles, values, axes=(0, 0))
        sums.square[...] += np.square(values).sum(axis=0)
    return sums


def _solve(gram: np.ndarray, product: np.ndarray) -> np.ndarray:
    """(P, H, W, C) least-squares coefficients; of many solutions the smallest."""
    matrices = np.moveaxis(gram, (0, 1), (-2, -1))
    inverse = np.linalg.pinv(matrices, rcond=PIVOT, hermitian=True)
    return np.moveaxis(np.einsum("...pq,q...->...p", inverse, product), -1, 0)


def blocks(
    fields: Fields, days: Sequence[int] | range, variables: Sequence[str] = ()
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(indices, (n, H, W, C) values) of consecutive indices, BLOCK_DAYS at most."""
    wanted = np.asarray(days, np.int64)
    breaks = np.flatnonzero(np.diff(wanted) != 1) + 1
    for part in np.split(wanted, breaks):
        for i in range(0, len(part), BLOCK_DAYS):
            indices = part[i : i + BLOCK_DAYS]
            start, stop = int(indices[0]), int(indices[-1]) + 1
            yield indices, fields.read(start, stop, variables, WHOLE)


def fit_damping(
    fields: Fields,
    days: Sequence[int] | range,
    climatology: Climatology,
    leads: int,
    crew: Crew = ALONE,
) -> np.ndarray:
    """(leads, H, W) f64: regression of a cell's anomaly on that of `lead` days before, per lead.

    Over the pairs of days among `days`: Σ a(t) a(t + lead) / Σ a(t)²; 0 where there are none. The
    damped persistence forecast is usual(t + lead) + damping · a(t). climatology: of the target
    alone, C = 1. A crew reads a part of the days each, and those before it that it needs.
    """
    own, earlier = with_earlier(days, crew, leads)
    shape = leads, len(fields.lat), len(fields.lon)
    products, squares = np.zeros(shape), np.zeros(shape)
    step = Step.of(fields.days).delta
    recent: deque[tuple[np.datetime64, np.ndarray]] = deque(maxlen=leads)
    for indices, block in blocks(fields, [*earlier, *own], (fields.target,)):
        dates = fields.days[indices]
        anomalies = (block - climatology.at(dates))[..., 0]
        known = np.isfinite(anomalies)
        anomalies[~known] = 0  # adds nothing to either sum
        for index, date, anomaly, there in zip(indices, dates, anomalies, known, strict=True):
            for other, before in recent if index not in earlier else ():
                lead = int((date - other) / step)
                if lead <= leads:  # more when days between are not in the record
                    products[lead - 1] += anomaly * before
                    squares[lead - 1] += np.square(before) * there
            recent.append((date, anomaly))
    products, squares = crew.add([products, squares])
    return products / np.where(squares > 0, squares, 1)


def with_earlier(
    days: Sequence[int] | range, crew: Crew, count: int
) -> tuple[Sequence[int] | range, Sequence[int] | range]:
    """A crew member's part of some days, and up to so many of them before it."""
    part = crew.span(len(days))
    return days[part], days[max(0, part.start - count) : part.start]


def season_gap(days: np.ndarray) -> float:
    """Longest share of the year in which no day lies: where harmonics are not held by data."""
    phase = np.sort(year_fraction(days))
    return float(np.diff(phase, append=phase[0] + 1).max())


def lacks_season(days: np.ndarray) -> bool:
    """Whether the part of the year without a day is so long that annual waves are not fitted."""
    return season_gap(days) >= SEASON_GAP
