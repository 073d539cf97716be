"""Intervals by drawing blocks again, and what is said of a model beside its baselines."""

import dataclasses

import numpy as np
import pytest

from tds_jax.engine.intervals import LEAST, Drawn, Resampled, few, too_narrow, verdict
from tds_jax.engine.metrics import Mean
from tds_jax.engine.report import AGAINST_MODEL, Report, Row
from tests.engine.test_report import shown

pytestmark = pytest.mark.every_draw

# Blocks differ by 10, the two methods by 1 in each: only a paired difference sees that.
HARDNESS = np.arange(40) % 8 * 10.0
SIZES = np.where(np.arange(40) % 2, 1.0, 3.0)


def blocks(above: float, count: int = 40):
    return [
        {"mse": Mean(np.float64(size * (hard + above)), np.float64(size))}
        for hard, size in zip(HARDNESS[:count], SIZES[:count], strict=True)
    ]


def row(method: str, value: float) -> Row:
    return Row("test", "all", method, "mse", value, None, 40.0)


def value(above: float) -> float:
    return float((SIZES * (HARDNESS + above)).sum() / SIZES.sum())


def test_an_interval_is_as_wide_as_the_mean_of_so_many_blocks_varies():
    known = [{"mse": Mean(np.float64(x), np.float64(1))} for x in HARDNESS]
    low, high = Resampled.of({"model": known}).interval("model", "mse")
    # ±1.96 standard errors of a mean of 40; an end from 1,000 draws is within 10 % of its place.
    error = HARDNESS.std() / np.sqrt(40)
    assert (high - low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.1)
    assert low < HARDNESS.mean() < high


def test_what_all_methods_find_hard_is_no_part_of_their_difference():
    drawn = Resampled.of({"model": blocks(0), "other": blocks(1)})
    low, high = drawn.interval("other", "mse", minus="model")
    assert (low, high) == pytest.approx((1, 1), abs=1e-9)  # f64: 40 sums of numbers below 100
    low, high = drawn.interval("other", "mse")
    assert high - low > 5


def test_a_block_counts_by_what_it_holds():
    """Pooled, not a mean of the blocks' means: the ends lie about the pooled value."""
    big, small = ({"mse": Mean(np.float64(x), np.float64(x))} for x in (100.0, 0.0))
    one = {"mse": Mean(np.float64(0), np.float64(1))}
    assert small["mse"].weight == 0
    low, _ = Resampled.of({"model": [big] * 20 + [one] * 20}).interval("model", "mse")
    assert low > 0.9


def test_few_blocks_have_no_interval_and_nothing_is_made_up():
    drawn = Resampled.of({"model": blocks(0, LEAST - 1), "other": blocks(1, LEAST - 1)})
    rows = [row("model", 3.0), row("other", 4.0)]
    assert drawn.rows(rows) == rows
    (line,) = verdict(rows, {"mse": False})
    assert line == "mse: model 3, other 4; the model beats every baseline, no interval"


def test_rows_get_their_ends_and_each_baseline_stands_against_the_model(tmp_path):
    drawn = Resampled.of({"model": blocks(0), "other": blocks(1)})
    group = dataclasses.replace(row("model", 7.0), group="user/a")
    model, other, alone, against = drawn.rows(
        [row("model", value(0)), row("other", value(1)), group]
    )
    assert model.low < model.value < model.high
    assert other.low < other.value < other.high
    assert alone == group
    assert (against.group, against.method) == (AGAINST_MODEL, "other")
    assert (against.value, against.low, against.high) == pytest.approx((1, 1, 1), abs=1e-9)
    report = Report([model, other, alone, against], ("mse",), (), drawn="40 users")
    report.write(tmp_path, {})
    assert Report.read(tmp_path, "test").rows == report.rows
    place = report.to_dict()["splits"]["test"]
    assert place["model"]["mse_low"] == model.low
    assert place["groups"][AGAINST_MODEL]["baselines"]["other"]["mse_high"] == against.high


def test_a_metric_that_the_model_lacks_is_compared_with_nothing():
    other = [states | {"crps": states["mse"]} for states in blocks(1)]
    drawn = Resampled.of({"model": blocks(0), "other": other})
    assert drawn.interval("other", "crps", minus="model") is None
    rows = [row("model", value(0)), dataclasses.replace(row("other", value(1)), metric="crps")]
    found = drawn.rows(rows)
    assert [(one.method, one.metric, one.low is None) for one in found] == [
        ("model", "mse", False),
        ("other", "crps", False),
    ]


def test_a_baseline_that_wins_is_named_first_and_a_close_race_is_called_one():
    def rows(metric, model, other, low, high):
        return [
            Row("test", "all", "model", metric, model, None, 9.0),
            Row("test", "all", "other", metric, other, None, 9.0),
            Row("test", "all", "zero", metric, 9.0 if metric == "mse" else -9.0, None, 9.0),
            Row("test", AGAINST_MODEL, "other", metric, other - model, None, 9.0, low, high),
        ]

    found = [*rows("mse", 1.0, 2.0, 0.5, 1.5), *rows("r2", 0.5, 0.7, 0.1, 0.3)]
    assert verdict(found, {"mse": False, "r2": True}) == (
        "r2: other 0.7, model 0.5; other beats the model by 0.1 to 0.3 (95% interval)",
        "mse: model 1, other 2; the model beats every baseline by 0.5 to 1.5 (95% interval)",
    )
    assert verdict(rows("mse", 1.0, 1.5, -0.5, 1.5), {"mse": False}) == (
        "mse: model 1, other 1.5; not told apart: by -0.5 to 1.5 (95% interval)",
    )
    assert verdict(rows("mse", np.nan, 1.5, -0.5, 1.5), {"mse": False}) == ()


def test_the_verdict_is_shown_and_where_the_intervals_are(capsys, monkeypatch):
    rows = [dataclasses.replace(row("model", 0.5), low=0.4, high=0.6), row("zero", 2.0)]
    report = Report(rows, ("mse",), (), verdict=("who wins",), drawn="7 users")
    title = "95 % intervals, 7 users drawn again and again"
    assert shown(report, capsys, monkeypatch, 200) == [
        "title", "who wins",
        "all", ["method", "mse"], ["model", "0.5"], ["zero", "2"],
        f"1 more table of 1 line in report.html: {title}. All 2 rows in report_test.csv",
    ]  # fmt: skip
    grid = report.grids("test")[1]
    assert (grid.title, grid.columns, grid.rows) == (title, ["mse"], [("model", ["0.4..0.6"])])


def test_few_blocks_are_said_to_draw_too_narrow_intervals():
    """Means of n normal numbers: intervals drawn from them, so widened, cover as often as they say.

    400 records: a share of 0.95 is off by 3 √(.95 · .05 / 400) = 0.033 at most; unwidened, of five
    numbers, it is near 0.8.
    """
    rng = np.random.default_rng(0)
    values = rng.normal(size=(400, 5))
    chosen = rng.integers(5, size=(400, 1000, 5))
    means = np.take_along_axis(values[:, None], chosen, axis=2).mean(axis=2)
    low, high = np.quantile(means, [0.025, 0.975], axis=1)
    middle = values.mean(axis=1)
    times = too_narrow(5)

    def covered(times):
        below, above = middle + times * (low - middle), middle + times * (high - middle)
        return np.mean((below < 0) & (above > 0))

    assert covered(1) < 0.87
    assert abs(covered(times) - 0.95) < 0.033
    assert few(Drawn(4, "users")) == few(Drawn(60, "users")) == ()
    (line,) = few(Drawn(6, "users"))
    assert line.startswith("6 users are few")
    assert "1.44 times" in line
