"""Metrics are sums over rows, so that no split of the rows can be seen in them."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tds_jax.engine import metrics

ROWS, STEPS, JOINTS = 24, 30, 3
SPLITS = [(24,), (12, 12), (1,) * 24, (5, 3, 16), (1, 22, 1)]


def make(mean=0.0, seed=0):
    """Predictions, targets (B, N, J) and ragged weights (B, N), some examples without any."""
    rng = np.random.default_rng(seed)
    target = (mean + rng.normal(size=(ROWS, STEPS, JOINTS)) * [1, 2, 3]).astype(np.float32)
    prediction = target + rng.normal(size=target.shape).astype(np.float32) / 2
    weight = (rng.random((ROWS, STEPS)) < rng.random((ROWS, 1))).astype(np.float32)
    weight[[0, 7, 23]] = 0
    return prediction, target, weight


def reference(prediction, target, weight):
    """The definitions, in float64 on all rows at once."""
    chosen = weight.ravel() > 0
    y = target.astype(np.float64).reshape(-1, JOINTS)[chosen]
    error = prediction.astype(np.float64).reshape(-1, JOINTS)[chosen] - y
    sse, sst = (error**2).sum(0), ((y - y.mean(0)) ** 2).sum(0)
    return {
        "mae_rad": np.abs(error).mean(),
        "mse": (error**2).mean(),
        "rmse_rad": np.sqrt((error**2).mean()),
        "r2": 1 - sse.sum() / sst.sum(),
        "r2_mean": (1 - sse / sst).mean(),
    }


def states(arrays, split):
    """One pooled state for each part of a split."""
    ends = np.cumsum(split)
    parts = [[x[end - n : end] for x in arrays] for n, end in zip(split, ends, strict=True)]
    return [metrics.Regression.of(*map(jnp.asarray, part)).pool() for part in parts]


@pytest.mark.parametrize("split", SPLITS)
# f32 rounds a mean of 1e4 by 1e-3; where the spread is 1, squares about it are off by 1e-6, and
# 1 - R² = 0.25 of the first joint by a few times that. Sums of squares are off by 0.1 and more.
@pytest.mark.parametrize(("mean", "tolerance"), [(0.0, 2e-6), (1e4, 3e-5)])
def test_regression_equals_numpy_on_all_rows_for_any_split_and_any_mask(split, mean, tolerance):
    arrays = make(mean)
    on_device = functools.reduce(metrics.Regression.merge, states(arrays, split))
    on_host = metrics.merge_all({"rad": s} for s in states(arrays, split))["rad"]
    for state in (on_device, on_host):
        found = metrics.to_host(state).compute("rad")
        assert found == pytest.approx(reference(*arrays), rel=tolerance)


def test_sums_of_squares_would_have_lost_r2_at_a_mean_of_1e4():
    _, target, weight = make(1e4)
    rows = target[weight > 0]
    naive = np.sum(rows**2, 0) - np.sum(rows, 0) ** 2 / np.float32(len(rows))
    exact = len(rows) * rows.astype(np.float64).var(0)
    assert np.max(np.abs(naive / exact - 1)) > 0.1


def test_merge_is_associative_and_zero_is_neutral():
    a, b, c = (metrics.to_host(s) for s in states(make(100.0), (5, 3, 16)))
    left, right = a.merge(b).merge(c), a.merge(b.merge(c))
    zero = jax.tree.map(np.zeros_like, a)
    for x, y in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-13)  # f64, three additions
    for other in (zero.merge(a), a.merge(zero)):
        jax.tree.map(np.testing.assert_array_equal, other, a)


def test_values_under_weight_zero_do_not_count():
    prediction, target, weight = make()
    worse = prediction + 1e3 * (weight[..., None] == 0)
    moved = target - 50 * (weight[..., None] == 0)
    clean = states((prediction, target, weight), (24,))[0]
    dirty = states((worse, moved.astype(np.float32), weight), (24,))[0]
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)


def test_nothing_counted_is_nan_and_no_crash():
    prediction, target, weight = make()
    state = states((prediction, target, weight * 0), (24,))[0]
    values = metrics.compute({"rad": metrics.to_host(state), "loss": metrics.Mean(0.0, 0.0)})
    assert set(values) == {"mae_rad", "mse", "rmse_rad", "r2", "r2_mean", "loss"}
    assert all(math.isnan(value) for value in values.values())


def test_an_output_that_never_moves_has_no_r2_and_does_not_spoil_the_pooled_one():
    prediction, target, weight = make()
    target[..., 0] = 2.0
    state = metrics.to_host(states((prediction, target, weight), (24,))[0])
    assert not np.isfinite(state.per_output()["r2"][0])
    assert np.isfinite(state.per_output()["r2"][1:]).all()
    assert math.isfinite(state.compute("rad")["r2"])


def test_one_output_alone_equals_its_column():
    prediction, target, weight = make()
    state = metrics.to_host(states((prediction, target, weight), (24,))[0])
    for joint in range(JOINTS):
        chosen = weight > 0
        error = (prediction - target)[chosen][:, joint].astype(np.float64)
        assert state.per_output()["mae"][joint] == pytest.approx(np.abs(error).mean(), rel=3e-6)
        assert state.per_output()["mse"][joint] == pytest.approx((error**2).mean(), rel=3e-6)


@pytest.mark.parametrize("split", SPLITS)
def test_mean_equals_numpy_for_any_split(split):
    rng = np.random.default_rng(1)
    value, weight = rng.normal(size=24), rng.random(24) * (rng.random(24) < 0.5)
    ends = np.cumsum(split)
    parts = [slice(end - n, end) for n, end in zip(split, ends, strict=True)]
    merged = metrics.merge_all(
        {"m": metrics.Mean((value * weight)[p].sum(), weight[p].sum())} for p in parts
    )
    assert metrics.compute(merged) == pytest.approx({"m": np.average(value, weights=weight)})


def test_perfect_predictions_have_r2_one_and_the_mean_has_r2_zero():
    _, target, weight = make()
    chosen = target[weight > 0]
    mean = np.broadcast_to(chosen.mean(0), target.shape)
    perfect = states((target, target, weight), (12, 12))
    constant = states((mean, target, weight), (12, 12))
    values = [
        metrics.merge_all({"rad": s} for s in found)["rad"].compute("rad")
        for found in (perfect, constant)
    ]
    assert values[0] == pytest.approx(
        {"mae_rad": 0, "mse": 0, "rmse_rad": 0, "r2": 1, "r2_mean": 1}
    )
    assert values[1]["r2"] == pytest.approx(0, abs=1e-6)


def test_an_output_that_does_not_move_has_no_r2_and_spoils_none():
    """0.3 is no float32: a sum of equal ones rounds, and its squares are no variance."""
    rng = np.random.default_rng(0)
    target = rng.normal(size=(4, 400, JOINTS)).astype(np.float32)
    weight = np.ones((4, 400), np.float32)
    target[..., 1] = np.where(weight > 0, np.float32(0.3), 0)
    found = metrics.merge_all({"rad": s} for s in states((target * 0, target, weight), (1, 3)))
    state = found["rad"]
    assert state.moves.tolist() == [True, False, True]
    r2 = state.per_output()["r2"]
    assert np.isnan(r2[1])
    values = state.compute("rad")
    assert values["r2_mean"] == pytest.approx(r2[[0, 2]].mean())
    pooled = 1 - state.squared_error[[0, 2]].sum() / state.target_m2[[0, 2]].sum()
    assert values["r2"] == pytest.approx(pooled)
    assert np.isnan(jax.tree.map(lambda leaf: leaf[1:2], state).compute("rad")["r2"])
