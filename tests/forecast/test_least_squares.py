"""Least squares that are judged by what they were not fitted to."""

import numpy as np
import pytest

from tds_jax.forecast import prior
from tds_jax.forecast.least_squares import STEPS, Sums, chosen
from tds_jax.forecast.linear import samples
from tests.data.crews import together
from tests.forecast.files import ArrayFields
from tests.forecast.test_linear import DAMPING, USUAL, H, W

RIDGE = 1e-3


def rows(seed, count=60, missing=0.2):
    """x (N, 6), y (3, N) of it and noise, and which are known."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 6))
    y = (x @ np.arange(18).reshape(6, 3)).T / 10 + rng.normal(size=(3, count))
    known = rng.random((3, count)) >= missing
    return x, np.where(known, y, 0), known


def sums(*each):
    found = Sums.of(6, 3)
    for x, y, known in each:
        found.add(x, y, known)
    return found


@pytest.mark.parametrize("missing", [0, 0.2])
def test_sums_give_the_weights_and_what_they_leave_of_the_rows_known_at_each_lead(missing):
    one, two = rows(0, missing=missing), rows(1, missing=missing)
    total = sums(one) + sums(two)
    weights = total.solve([RIDGE, RIDGE, 0.5])
    x = np.concatenate([one[0], two[0]])
    y, known = (np.concatenate([one[n], two[n]], axis=1) for n in (1, 2))
    for lead, ridge in enumerate((RIDGE, RIDGE, 0.5)):
        there = known[lead]
        gram = x[there].T @ x[there]
        gram += ridge * np.trace(gram) / 6 * np.eye(6)
        wanted = np.linalg.solve(gram, x[there].T @ y[lead, there])
        np.testing.assert_allclose(weights[:, lead], wanted, rtol=1e-10)
        left = np.square(y[lead, there] - x[there] @ wanted).sum()
        assert total.left(weights)[lead] == pytest.approx(left, rel=1e-10)


@pytest.mark.parametrize("lacking", [(), (0,), (0, 1)])
def test_sums_of_several_are_those_of_all_rows_where_some_lack_targets(lacking):
    each = [rows(n, missing=0.2 if n in lacking else 0) for n in range(2)]
    total = sums(*each)
    for found in together(2, lambda crew: sums(each[crew.index]).merged(crew)):
        for ridge in (RIDGE, 0.5):
            wanted = total.solve([ridge] * 3)
            np.testing.assert_allclose(found.solve([ridge] * 3), wanted, rtol=1e-10)
            np.testing.assert_allclose(found.left(wanted), total.left(wanted), rtol=1e-10)


@pytest.mark.parametrize("folds", [0, 2])
def test_what_several_fit_is_what_one_fits_with_days_left_out_too(folds):
    values = np.random.default_rng(4).normal(size=(40, H, W, 2))
    fields, days = ArrayFields(values), range(40)
    beside = fields, days, USUAL, 0 * DAMPING, prior.Inputs(5, 1, (), (), False), RIDGE, folds
    alone = prior.fit_linear(*beside, False)
    for found in together(3, lambda crew: prior.fit_linear(*beside, False, crew)):
        for name, value in alone.weights.items():
            np.testing.assert_allclose(found.weights[name], value, rtol=0, atol=1e-6)
        for day in range(1, 38):
            one, other = alone.judged(day), found.judged(day)
            assert (one is None) == (other is None)
            if one is not None:
                np.testing.assert_allclose(other, one, rtol=0, atol=1e-9)


def test_a_ridge_and_a_rank_are_those_that_leave_least_of_what_was_left_out():
    """By hand: three folds, what lies between them is in no fold and beside none it touches."""
    folds, between = [rows(n) for n in range(3)], [rows(n) for n in (3, 4)]
    found = chosen([sums(one) for one in folds], [sums(one) for one in between], RIDGE)
    rest = [sums(folds[1], folds[2], between[1]), sums(folds[0], folds[2]),
            sums(folds[0], folds[1], between[0])]  # fmt: skip

    def left(weights):
        return sum(sums(fold).left(own) for fold, own in zip(folds, weights, strict=True))

    tried = np.array([left([one.solve([RIDGE * step] * 3) for one in rest]) for step in STEPS])
    best = [RIDGE * STEPS[n] for n in tried.argmin(axis=0)]
    full = [one.solve(best) for one in rest]
    by_rank = [
        [one.reduced(own, rank) for one, own in zip(rest, full, strict=True)] for rank in (1, 2, 3)
    ]
    wanted = min(by_rank, key=lambda weights: left(weights).sum())
    np.testing.assert_allclose(found.without, wanted, atol=1e-9)
    assert np.linalg.matrix_rank(found.weights) == np.linalg.matrix_rank(wanted[0])


def test_reduced_weights_are_the_fit_of_so_many_mixtures_that_leaves_least():
    """Eckart-Young: of rank 1, no other mixture of the leads' fits comes nearer to them."""
    total = sums(rows(0, missing=0))
    weights = total.solve([RIDGE] * 3)
    one = total.reduced(weights, 1)
    assert np.linalg.matrix_rank(one) == 1

    def away(other):
        return np.einsum("fl,fg,gl->", weights - other, total.whole, weights - other)

    angles = np.random.default_rng(0).normal(size=(50, 3))
    others = [weights @ np.outer(a, a) / (a @ a) for a in angles]
    assert away(one) <= min(away(other) for other in others)
    np.testing.assert_allclose(total.reduced(weights, 3), weights, atol=1e-12)


def test_the_spread_is_of_days_whose_weights_never_saw_them():
    """Of nothing but noise, a map of 50 numbers fits a twentieth of 36 days of 24 cells, and
    explains less than nothing of days that were left out."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(40, H, W, 2))
    fields, days = ArrayFields(values), range(40)
    inputs = prior.Inputs(5, 1, (), (), False)
    beside = fields, days, USUAL, 0 * DAMPING

    def spread(folds):
        fitted = prior.fit_linear(*beside, inputs, 1e-6, folds, False)
        return prior.fit_spread(*beside, inputs, fitted.judged, False).mean()

    noise = np.mean([s.coming.std() for s in samples(*beside, 1)])
    assert spread(0) < 0.985 * noise < noise < spread(2)
