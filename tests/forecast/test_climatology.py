"""Laws of the climatology: least squares of what is there, train days only, the facts' numbers."""

from pathlib import Path

import numpy as np
import pytest

from tds_jax.forecast import climatology as module
from tds_jax.forecast.climatology import (
    fit_climatology,
    fit_damping,
    harmonics,
    season_gap,
)
from tds_jax.forecast.days import year_fraction
from tds_jax.forecast.opened import open_fields
from tds_jax.forecast.windows import WindowSpec, split_days, window_starts
from tests.forecast.files import ArrayFields, dates

AIR = Path(__file__).parents[3] / "shared/data/air_temperature/air_temperature.nc"
# RMSE in K at leads 1 to 10, all leads; facts/forecast.md, section 6.
PERSISTENCE = (2.580, 3.608, 4.008, 4.338, 4.514, 4.611, 4.749, 4.903, 5.061, 5.140, 4.414)
HARMONIC = (3.641, 3.655, 3.669, 3.688, 3.708, 3.722, 3.735, 3.753, 3.783, 3.810, 3.717)
DAMPED = (2.405, 3.126, 3.352, 3.500, 3.580, 3.624, 3.666, 3.703, 3.746, 3.776, 3.471)
WEIGHTED = {
    "persistence": (2.343, 3.286, 3.654, 3.934, 4.065, 4.129, 4.237, 4.369, 4.508, 4.574, 3.962),
    "damped": (2.180, 2.833, 3.036, 3.161, 3.224, 3.257, 3.290, 3.317, 3.351, 3.377, 3.122),
}  # by the cosine of latitude


def holey(seed=0, days=400, share=0.3, channels=2):
    rng = np.random.default_rng(seed)
    values = 280 + 5 * rng.normal(size=(days, 3, 2, channels))
    values[rng.uniform(size=values.shape) < share] = np.nan
    return ArrayFields(values)


def test_harmonics_are_the_least_squares_of_the_days_that_are_there():
    fields = holey()
    fitted = fit_climatology(fields, range(350), "anomaly", 2)
    basis = harmonics(year_fraction(fields.days[:350]), 2)
    left = np.zeros(2)
    count = np.zeros(2)
    for i, j, c in np.ndindex(3, 2, 2):
        x = fields.values[:350, i, j, c].astype(np.float64)
        known = np.isfinite(x)
        wanted, *_ = np.linalg.lstsq(basis[known], x[known], rcond=None)
        # f64 normal equations of a basis with condition < 10: 1e-14 x 280 x some
        np.testing.assert_allclose(fitted.coefficients[:, i, j, c], wanted, atol=1e-9)
        left[c] += np.square(x[known] - basis[known] @ wanted).sum()
        count[c] += known.sum()
    np.testing.assert_allclose(fitted.scale[0, 0], np.sqrt(left / count), rtol=1e-9)


def test_a_planted_cycle_is_found_and_its_anomaly_is_what_was_added():
    days = dates("2019-01-01", 730)
    basis = harmonics(year_fraction(days), 1)
    rng = np.random.default_rng(1)
    planted = rng.normal(size=(3, 2, 2, 1)) * [[[[9.0]]]]
    noise = rng.normal(size=(730, 2, 2, 1))
    fields = ArrayFields(np.tensordot(basis, planted, axes=1) + noise, days)
    fitted = fit_climatology(fields, range(730), "anomaly", 1)
    # Standard error of a coefficient: sqrt(2 / 730) = .05; four of them.
    np.testing.assert_allclose(fitted.coefficients, planted, atol=0.2)
    np.testing.assert_allclose(fitted.scale, 1, atol=0.05)
    anomaly = fields.values - fitted.at(days)
    np.testing.assert_allclose(anomaly, noise, atol=0.5)


def test_scalar_and_cell_are_means_and_standard_deviations_of_what_is_there():
    fields = holey()
    train = fields.values[:300].astype(np.float64)
    scalar, cell = (fit_climatology(fields, range(300), kind, 3) for kind in ("scalar", "cell"))
    assert scalar.coefficients.shape == (1, 1, 1, 2)
    np.testing.assert_allclose(scalar.coefficients[0, 0, 0], np.nanmean(train, (0, 1, 2)))
    np.testing.assert_allclose(scalar.scale[0, 0], np.nanstd(train, (0, 1, 2)))
    np.testing.assert_allclose(cell.coefficients[0], np.nanmean(train, 0))
    np.testing.assert_allclose(cell.scale, np.nanstd(train, 0))
    np.testing.assert_allclose(
        cell.of([1]).at(fields.days[:2])[1, ..., 0], np.nanmean(train, 0)[..., 1]
    )


@pytest.mark.parametrize("kind", ["scalar", "cell", "anomaly"])
def test_days_outside_training_and_the_size_of_blocks_change_nothing(kind, monkeypatch):
    fields, other = holey(), holey()
    other.values[300:] = 1e6
    one, two = (fit_climatology(f, range(300), kind, 1) for f in (fields, other))
    damping = [fit_damping(f, range(300), one.of([0]), 4) for f in (fields, other)]
    np.testing.assert_array_equal(one.coefficients, two.coefficients)
    np.testing.assert_array_equal(one.scale, two.scale)
    np.testing.assert_array_equal(*damping)
    monkeypatch.setattr(module, "BLOCK_DAYS", 37)
    again = fit_climatology(fields, range(300), kind, 1)
    np.testing.assert_allclose(again.coefficients, one.coefficients, rtol=1e-9)
    np.testing.assert_allclose(fit_damping(fields, range(300), one.of([0]), 4), damping[0])


def test_cells_without_spread_or_without_values_stay_finite():
    fields = holey(share=0)
    fields.values[:, 0, 0, 0] = np.nan
    fields.values[:, 1, 0, 0] = 7.0
    fields.values[20:, 2, 0, 0] = np.nan  # 20 days tell no annual cycle
    for kind in ("scalar", "cell", "anomaly"):
        fitted = fit_climatology(fields, range(400), kind, 1)
        assert np.isfinite(fitted.coefficients).all()
        assert (fitted.scale > 0.1).all()
    usual = fitted.at(fields.days)
    np.testing.assert_array_equal(usual[:, 0, 0, 0], 0)
    np.testing.assert_allclose(usual[:, 1, 0, 0], 7, rtol=1e-6)
    assert np.isfinite(fit_damping(fields, range(400), fitted.of([0]), 3)).all()


def test_damping_is_the_regression_over_pairs_of_days_that_are_there():
    fields = holey(days=80, channels=1)
    fields.days = np.delete(dates("2020-01-01", 95), np.arange(30, 45))  # a gap of 15 days
    usual = fit_climatology(fields, range(60), "scalar", 0)
    found = fit_damping(fields, range(60), usual, 5)
    anomaly = (fields.values[:60] - usual.at(fields.days[:60]))[..., 0]
    for lead, i, j in np.ndindex(5, 3, 2):
        pairs = [
            (anomaly[a, i, j], anomaly[b, i, j])
            for a in range(60)
            for b in range(60)
            if (fields.days[b] - fields.days[a]).astype(int) == lead + 1
        ]
        x, y = np.array([p for p in pairs if np.isfinite(p).all()]).T
        np.testing.assert_allclose(found[lead, i, j], (x * y).sum() / (x * x).sum(), rtol=1e-9)


def test_the_season_gap_is_the_longest_share_of_the_year_without_days():
    np.testing.assert_allclose(season_gap(dates("2019-01-01", 365)), 1 / 365)
    np.testing.assert_allclose(season_gap(dates("2019-01-01", 90)), 276 / 365)
    np.testing.assert_allclose(season_gap(dates("2018-10-01", 182)), 184 / 365)


@pytest.mark.parametrize(("days", "waves"), [(45, False), (300, False), (360, True)])
def test_waves_are_fitted_only_where_days_hold_the_year(days, waves):
    """Weather without a season: what a wave would see in part of a year is chance."""
    fields = holey(days=days, channels=1)
    fitted = fit_climatology(fields, range(days), "anomaly", 2)
    assert fitted.coefficients.shape[0] == 5
    assert fitted.coefficients[1:].any() == waves
    if not waves:
        mean = fit_climatology(fields, range(days), "cell", 0)
        np.testing.assert_array_equal(fitted.coefficients[:1], mean.coefficients)
        later = fitted.at(fields.days[-1:] + 180)
        np.testing.assert_array_equal(later, mean.coefficients)


@pytest.fixture(scope="module")
def air():
    if not AIR.exists():
        pytest.skip(f"{AIR} is not there")
    return open_fields(AIR, ("air",), "air", accumulated=(), land_mask="", downsample=1)


@pytest.mark.parametrize("weighted", [False, True])
def test_baselines_of_air_temperature_are_those_of_the_facts(air, weighted):
    """Climatology of days 0..583 by calendar-year fraction; damping by cell and lead."""
    before = split_days(len(air.days), (0.7, 0.1, 0.2))["test"].start
    usual = fit_climatology(air, range(before), "anomaly", 1)
    damping = fit_damping(air, range(before), usual, 10)
    truth, normal = air.read(0, len(air.days))[..., 0], usual.at(air.days)[..., 0]
    starts = window_starts(air.days, WindowSpec(20, 10), range(before, len(air.days)), 0)
    last, ahead = starts + 19, (starts + 19)[:, None] + np.arange(1, 11)
    kept = (truth - normal)[last][:, None]
    area = np.cos(np.deg2rad(air.lat))[:, None] if weighted else np.ones((25, 1))
    area = np.broadcast_to(area, truth.shape[1:])

    def errors(forecast):
        squares = np.average(np.square(forecast - truth[ahead]).mean(0), axis=(1, 2), weights=area)
        return np.sqrt([*squares, squares.mean()])

    found = {
        "persistence": errors(truth[last][:, None]),
        "damped": errors(normal[ahead] + damping * kept),
        "harmonic": errors(normal[ahead]),
    }
    plain = {"persistence": PERSISTENCE, "damped": DAMPED, "harmonic": HARMONIC}
    for name, wanted in (WEIGHTED if weighted else plain).items():
        np.testing.assert_allclose(found[name], wanted, atol=0.0005001, rtol=0)
