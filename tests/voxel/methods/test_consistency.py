"""Distillation and the multistep sampler, where teacher and best student are known."""

import jax
import jax.numpy as jnp
import numpy as np

from tds_jax.voxel.methods import consistency, diffusion
from tests.voxel.methods.test_diffusion import CENTRE, LEVELS, exact, keys

GRID = LEVELS.grid(40)


def end_of_path(x, sigma):
    """Where the exact ODE of `exact` takes x at sigma: the point at the lowest level."""
    there, here = np.hypot(LEVELS.lowest, 0.5), jnp.sqrt(sigma**2 + 0.25)
    return CENTRE + diffusion.rows(there / here, x) * (x - CENTRE)


def charge(student, seed=0):
    rng = np.random.default_rng(seed)
    x = jnp.float32(CENTRE + 0.5 * rng.normal(size=(64, 30)))
    noise = jnp.float32(rng.normal(size=x.shape))
    sigma, lower = consistency.draw_pairs(keys(64), GRID)
    return consistency.distillation(student, exact, x, noise, sigma, lower) * (sigma - lower)


def test_the_exact_student_is_charged_next_to_nothing():
    # Left: Heun's error of one step of the 40, at worst some 1e-3 of the path.
    assert np.max(charge(end_of_path)) < 0.1
    assert np.mean(charge(exact)) > 10 * np.mean(charge(end_of_path))


def test_only_the_answer_at_the_higher_level_learns():
    def total(a, b):
        calls = iter((b, a))  # the aim is asked for first

        def student(x, sigma):
            return next(calls) * x

        return jnp.sum(
            consistency.distillation(
                student, exact, jnp.ones((2, 3)), jnp.ones((2, 3)),
                jnp.full((2,), 2.0), jnp.full((2,), 1.0),
            )
        )  # fmt: skip

    higher, lower = jax.grad(total, argnums=(0, 1))(jnp.float32(0.5), jnp.float32(0.2))
    assert lower == 0
    assert abs(higher) > 0.1


def test_pairs_are_neighbours_on_the_grid_and_all_of_them_come():
    sigma, lower = map(np.asarray, consistency.draw_pairs(keys(2000), GRID))
    place = np.searchsorted(-GRID, -sigma)
    np.testing.assert_array_equal(lower, GRID[place + 1])
    assert set(place.tolist()) == set(range(39))


def test_pseudo_huber_is_zero_at_zero_with_a_finite_slope():
    x = jnp.ones((2, 5))
    np.testing.assert_array_equal(consistency.pseudo_huber(x, x), np.zeros(2))
    slope = jax.grad(lambda a: jnp.sum(consistency.pseudo_huber(a, x)))(x)
    np.testing.assert_array_equal(slope, np.zeros((2, 5)))
    # far apart: the distance less c
    far = consistency.pseudo_huber(x + 10, x)
    np.testing.assert_allclose(far, 10 * 5**0.5, rtol=1e-3)


def test_each_jump_of_the_exact_student_gives_the_data():
    def draw(n):
        return diffusion.noise(keys(8), n, (2000,))

    for count in (1, 2, 4):
        levels = LEVELS.grid(count + 1)[:-1]
        got = np.asarray(consistency.sample(end_of_path, levels, LEVELS.lowest, draw))
        # 16,000 draws: standard error 0.004 of the mean
        assert abs(got.mean() - CENTRE) < 0.02
        assert abs(got.std() - 0.5) < 0.02


def test_one_jump_asks_the_network_once():
    calls = []

    def student(x, sigma):
        calls.append(x.shape)
        return sigma[:, None] + x

    got = consistency.sample(student, np.float32([80]), 0.002, lambda n: jnp.ones((1, 2)))
    assert calls == [(1, 2)]
    np.testing.assert_allclose(got, 160.0)
