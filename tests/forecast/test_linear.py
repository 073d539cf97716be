"""The linear baselines: least squares of the days before, whatever edges, gaps and sea do."""

import jax.numpy as jnp
import numpy as np
import pytest

from tds_jax.forecast import linear
from tds_jax.forecast.climatology import Climatology
from tds_jax.forecast.day_of_year import BINS, REACH, at_phase, fit_day_of_year
from tds_jax.forecast.days import year_fraction
from tests.forecast.files import dates

H, W, LEADS = 4, 6, 2
PERIODIC = [pytest.param(False, marks=pytest.mark.long), True]


class Maps:
    """Fields in memory, with what the fits ask of them."""

    target, variables = "x", ("x", "y")

    def __init__(self, values, days):
        self.values, self.days = values, days
        self.lat, self.lon = np.zeros(H), np.zeros(W)

    def read(self, start, stop, variables=(), region=None):
        found = self.values[start:stop]
        return found[..., :1] if tuple(variables) == ("x",) else found


@pytest.fixture(scope="module")
def maps():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, H, W, 2)).astype("f4")
    values[:, 0, 0] = np.nan  # sea
    values[20, 2, 3] = np.nan  # a hole
    days = dates("2019-01-01", 41)
    return Maps(values, np.delete(days, 30))  # and a day that no file has


USUAL = Climatology(np.zeros((1, 1, 1, 2)), np.full((1, 1, 2), 2.0))
DAMPING = np.linspace(0.1, 0.5, LEADS * H * W).reshape(LEADS, H, W)


def by_hand(maps, channels, periodic):
    """(x (N, F), y (N, L) with NaN, cell (N,)) of every day and cell, by loops."""
    a = maps.values.astype("f8") / 2
    xs, ys, cells = [], [], []
    for t in range(1, len(a) - LEADS):
        if not 30 - LEADS <= t <= 30:  # none of the days between may be the one that is missing
            for i in range(H):
                for j in range(W):
                    x = []
                    for r in range(i - 2, i + 3):
                        for c in range(j - 2, j + 3):
                            inside = 0 <= r < H and (periodic or 0 <= c < W)
                            for day in (t - 1, t):
                                row = a[day, r, c % W] if inside else np.zeros(2)
                                x += list(np.nan_to_num(row[channels]))
                    last = np.nan_to_num(a[t, i, j, 0])
                    xs.append(x)
                    ys.append(a[t + 1 : t + 1 + LEADS, i, j, 0] - DAMPING[:, i, j] * last)
                    cells.append(i * W + j)
    return np.array(xs), np.array(ys), np.array(cells)


def ridge(x, y, share):
    gram = x.T @ x
    return np.linalg.solve(gram + share * np.trace(gram) / len(gram) * np.eye(len(gram)), x.T @ y)


@pytest.mark.parametrize("periodic", PERIODIC)
def test_maps_are_least_squares_over_the_days_that_follow_each_other(maps, periodic):
    """Shared over all known targets of a lead, each cell's own over its days; and both applied."""
    samples = list(linear.samples(maps, range(len(maps.days)), USUAL, DAMPING, 2))
    shared = linear.Shared(5, 4, 0, LEADS, periodic)
    cell = linear.PerCell((H, W), LEADS, periodic)
    for sample in samples:
        shared.add(sample, sample.last(2, slice(None)))
        cell.add(sample, sample.last(2, slice(0, 1)))
    weights = shared.solve(linear.RIDGE)
    x, y, _ = by_hand(maps, [0, 1], periodic)
    # f64 sums of some thousand rows, solved at a condition of 100; weights are stored as f32.
    close = {"rtol": 1e-5, "atol": 1e-6}
    for lead in range(LEADS):
        there = np.isfinite(y[:, lead])
        wanted = ridge(x[there], y[there, lead], linear.RIDGE)
        np.testing.assert_allclose(weights[..., lead].ravel(), wanted, **close)
    newest = samples[7].last(2, slice(None))
    # f32 sums of 100 products of about 1
    found = linear.shared_map(jnp.asarray(newest[None]), jnp.asarray(weights), periodic)
    wanted = linear.applied(weights, newest, periodic)
    np.testing.assert_allclose(np.moveaxis(np.asarray(found[0]), -1, 0), wanted, atol=1e-5)

    x, y, cells = by_hand(maps, [0], periodic)
    weights = cell.solve()
    for place in (3, 2 * W + 3, H * W - 1):
        rows = (cells == place) & np.isfinite(y).all(axis=1)
        wanted = ridge(x[rows], y[rows], linear.CELL_RIDGE)
        np.testing.assert_allclose(weights[divmod(place, W)], wanted, **close)
    assert not weights[0, 0].any()  # at sea
    newest = samples[7].last(2, slice(0, 1))
    found = linear.cell_map(jnp.asarray(newest[None]), jnp.asarray(weights), periodic)
    around = linear.patches(newest, (linear.KERNEL, linear.KERNEL), periodic).reshape(H, W, -1)
    wanted = np.einsum("hwf,hwfl->lhw", around, weights)
    np.testing.assert_allclose(np.asarray(found[0]), wanted, atol=1e-5)


@pytest.mark.parametrize("count", [30, 130])  # of steps finer than a day 75 are added at once
def test_a_cells_own_map_of_finer_steps_is_least_squares_over_all_of_them(count):
    rng = np.random.default_rng(2)
    maps, coming = rng.normal(size=(count, 2, 3, 3)), rng.normal(size=(count, LEADS, 2, 3))
    known = rng.random(coming.shape) > 0.1
    cell = linear.PerCell((2, 3), LEADS, False, days=3)
    for each, ahead, there in zip(maps.astype("f4"), coming, known, strict=True):
        cell.add(linear.Sample(0, each[..., None], ahead, there), each)
    weights = cell.solve()
    assert weights.shape == (2, 3, 75, LEADS)
    rows = known[:, :, 1, 2].all(axis=1)
    x = np.stack([linear.patches(one, (5, 5), False)[1, 2].ravel() for one in maps.astype("f4")])
    wanted = ridge(x[rows].astype("f8"), coming[rows, :, 1, 2], linear.CELL_RIDGE)
    # f64 sums, stored as f32
    np.testing.assert_allclose(weights[1, 2], wanted, rtol=1e-5, atol=1e-6)


def test_cells_look_less_far_where_their_equations_would_not_fit(monkeypatch):
    assert linear.PerCell((H, W), LEADS, False).kernel == 5
    monkeypatch.setattr(linear, "CELL_BYTES", 8 * H * W * 18**2)
    assert linear.PerCell((H, W), LEADS, False).kernel == 3
    monkeypatch.setattr(linear, "CELL_BYTES", 0)
    assert linear.PerCell((H, W), LEADS, False).kernel == 1


def test_the_smoothed_year_keeps_a_line_and_goes_around_new_year():
    days = dates("2019-01-01", 2 * 365)
    season = np.cos(2 * np.pi * year_fraction(days))
    values = np.broadcast_to(season[:, None, None, None], (len(days), H, W, 1)).astype("f4")
    bins = jnp.asarray(fit_day_of_year(Maps(values, days), range(len(days))))
    found = np.asarray(at_phase(bins, jnp.asarray(year_fraction(days)[None], jnp.float32)))[0]
    # Σ w cos over the triangle of REACH bins dampens the wave by this much, bins of 5 days and the
    # line between them by (2π 5 / 365)² (1/8 + 1/24) = 1.2e-3; bins of leap years end up to a fifth
    # of a day elsewhere, 2π / (5 · 365) = 3e-3, averaged over two years.
    k = np.arange(-REACH, REACH + 1)
    weights = 1 - abs(k) / (REACH + 1)
    left = (weights * np.cos(2 * np.pi * k / BINS)).sum() / weights.sum()
    np.testing.assert_allclose(found[:, 2, 2], left * season, atol=4e-3)
    assert abs(found[0] - found[364]).max() < 1e-2


def test_a_time_of_year_without_a_day_near_it_is_the_cells_mean():
    days = dates("2019-03-01", 20)
    values = np.arange(20.0)[:, None, None, None] * np.ones((20, H, W, 1))
    bins = fit_day_of_year(Maps(values.astype("f4"), days), range(20))
    np.testing.assert_allclose(bins[BINS // 2 + 10], 9.5, rtol=1e-6)
    assert (np.diff(bins[10:15, 0, 0]) > 0).all()
