"""Values of a forecast against the same formulas written down once more in NumPy."""

import jax
import numpy as np
import pytest

from tds_jax.engine import metrics as states_of
from tds_jax.forecast import metrics

SHAPE = (6, 3, 4, 5)  # B, L, H, W
AREA = np.float32([0.2, 0.5, 0.9, 1.0])
# f32 sums of some hundred terms near 280 K: eps 6e-8 * 280 per difference, relative to about 3 K.
RTOL = 2e-5


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    truth = rng.normal(280, 5, SHAPE).astype("f4")
    # A bias of each cell's own, so that rmse and ubrmse differ.
    prediction = (
        truth + rng.normal(1, 2, SHAPE).astype("f4") + rng.normal(0, 1, (4, 5)).astype("f4")
    )
    climatology = np.full(SHAPE, 280, "f4")
    weight = (rng.random(SHAPE) > 0.3).astype("f4")
    weight[:, :, 0, 0] = 0  # sea
    return prediction, truth, climatology, weight


def found(*arrays):
    return states_of.to_host(jax.jit(metrics.compare)(*arrays, AREA))


def described(prediction, truth, weight):
    """Straight from the definitions, in f64, one lead after another."""
    w = weight.astype("f8")
    e = prediction.astype("f8") - truth
    per_cell = np.where(w.sum(0) > 0, w.sum(0), 1)
    bias = (w * e).sum(0) / per_cell
    centred = (w * (e - bias) ** 2).sum()
    spread = sum(
        (w[:, n] * (truth[:, n] - np.average(truth[:, n], weights=w[:, n])) ** 2).sum()
        for n in range(truth.shape[1])
    )
    return {
        "rmse": np.sqrt((w * e**2).sum() / w.sum()),
        "mae": (w * np.abs(e)).sum() / w.sum(),
        "bias": (w * e).sum() / w.sum(),
        "ubrmse": np.sqrt(centred / w.sum()),
        "r2": 1 - (w * e**2).sum() / spread,
    }


def test_values_are_what_their_definitions_say_weighted_or_not(data):
    prediction, truth, _, weight = data
    values = metrics.values(found(*data), AREA)
    for suffix, rows in (("", np.ones(4)), ("_area", AREA)):
        wanted = described(prediction, truth, weight * rows[:, None].astype("f8"))
        for name, value in wanted.items():
            np.testing.assert_allclose(values[f"{name}{suffix}"], value, rtol=RTOL)
    assert values["ubrmse"] < values["rmse"]


def test_square_of_rmse_is_that_of_the_cells_biases_and_ubrmse(data):
    prediction, truth, _, weight = data
    for lead in range(SHAPE[1]):
        values = metrics.values(found(*data), AREA, lead)
        w, e = weight[:, lead].astype("f8"), (prediction - truth)[:, lead].astype("f8")
        count = w.sum(0)
        bias = (w * e).sum(0) / np.maximum(count, 1)
        for suffix, rows in (("", np.ones(4)), ("_area", AREA)):
            cells = count * rows[:, None]
            squared = values[f"ubrmse{suffix}"] ** 2 + (cells * bias**2).sum() / cells.sum()
            np.testing.assert_allclose(values[f"rmse{suffix}"] ** 2, squared, rtol=RTOL)


def test_batches_merge_to_the_whole(data):
    parts = [found(*(leaf[part] for leaf in data)) for part in (slice(2), slice(2, 6))]
    merged = states_of.merge(*parts)
    whole = found(*data)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), merged, whole)
    assert metrics.values(merged, AREA) == pytest.approx(metrics.values(whole, AREA), rel=1e-5)


def test_what_has_no_weight_has_no_say(data):
    prediction, truth, climatology, weight = data
    changed = np.where(weight > 0, prediction, 1e6).astype("f4")
    jax.tree.map(
        np.testing.assert_array_equal, found(changed, truth, climatology, weight), found(*data)
    )


def test_anomaly_correlation_is_spatial_and_averaged_over_days(data):
    prediction, truth, climatology, weight = data
    w = weight * AREA[:, None].astype("f8")
    a, b = prediction - climatology, truth - climatology
    over = (2, 3)
    each = (w * a * b).sum(over) / np.sqrt((w * a**2).sum(over) * (w * b**2).sum(over))
    for lead in range(SHAPE[1]):
        value = metrics.values(found(*data), AREA, lead)["acc"]
        np.testing.assert_allclose(value, each[:, lead].mean(), rtol=1e-5)
    truth = truth.copy()
    truth[0] = climatology[0]  # a day without anomalies has no correlation
    value = metrics.values(found(prediction, truth, climatology, weight), AREA)["acc"]
    np.testing.assert_allclose(value, each[1:].mean(), rtol=1e-5)


@pytest.mark.parametrize("unit", [1e-11, 1.0, 1e11])
def test_anomaly_correlation_is_the_same_in_any_unit(data, unit):
    """Also where the product of two sums of squares leaves f32."""
    prediction, truth, climatology, weight = data
    anomalies = [np.float32(unit) * (one - climatology) for one in (prediction, truth)]
    none = np.zeros_like(climatology)
    expected = metrics.values(found(*data), AREA)["acc"]
    value = metrics.values(found(*anomalies, none, weight), AREA)["acc"]
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_skill_is_one_when_perfect_and_zero_against_itself():
    reference = {"rmse": 2.0, "rmse_area": 1.0}
    assert metrics.skill({"rmse": 0.0}, reference) == 1
    assert metrics.skill(reference, reference) == 0
    assert metrics.skill({"rmse_area": 2.0}, reference, "_area") == -3
    assert np.isnan(metrics.skill(reference, {"rmse": 0.0}))


def test_nothing_counted_is_nan():
    zeros = np.zeros(SHAPE, "f4")
    values = metrics.values(found(zeros, zeros, zeros, zeros), AREA)
    assert all(np.isnan(value) for value in values.values())


def test_rows_count_by_their_share_of_the_sphere_whichever_way_they_run():
    lat = np.arange(75.0, 14.0, -2.5)
    area = metrics.row_area(lat)
    # sin(φ + d) - sin(φ - d) = 2 cos φ sin d: on an even grid, cosines.
    np.testing.assert_allclose(area, np.cos(np.radians(lat)) / np.cos(np.radians(lat)).mean())
    np.testing.assert_allclose(metrics.row_area(lat[::-1]), area[::-1])
    poles = metrics.row_area(np.array([-90.0, -30.0, 30.0, 90.0]))
    share = 1 - np.sin(np.radians(60))  # of a hemisphere beyond 60 degrees
    np.testing.assert_allclose(poles, np.array([share, 1 - share, 1 - share, share]) * 2)
    assert metrics.row_area(np.array([5.0])).tolist() == [1]


def test_forecasts_that_begin_in_the_same_days_are_one_block():
    rng = np.random.default_rng(0)
    leaves = rng.random((7, 6, 2))
    blocks = {}
    starts = np.array([8, 9, 10, 19, 20, 41])
    for part in (slice(0, 4), slice(4, 6)):  # batches, of which the second adds to a block
        metrics.add_to_blocks(blocks, metrics.Scores(*leaves[:, part]), starts[part] + 1, 10)
    assert sorted(blocks) == [0, 1, 2, 4]
    for number, rows in {0: [0], 1: [1, 2], 2: [3, 4], 4: [5]}.items():
        for found, wanted in zip(vars(blocks[number]).values(), leaves[:, rows], strict=True):
            np.testing.assert_allclose(found, wanted.sum(axis=0), rtol=1e-12)
