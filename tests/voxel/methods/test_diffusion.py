"""Preconditioning, levels and sampler, where the right denoiser is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tds_jax.voxel.methods import diffusion
from tds_jax.voxel.methods.diffusion import Levels

LEVELS = Levels(data=0.5, lowest=0.002, highest=80.0, rho=7.0, mean=-1.2, spread=1.2)
CENTRE = 0.3


def exact(x, sigma):
    """E[clean | noisy] where clean is a Gaussian around CENTRE with standard deviation 0.5."""
    share = 0.25 / (0.25 + diffusion.rows(sigma, x) ** 2)
    return CENTRE + share * (x - CENTRE)


def test_the_grid_is_karras():
    # Karras et al., eq. 5: (s0^(1/r) + i/(n-1) (s1^(1/r) - s0^(1/r)))^r; the original's for N = 40
    grid = LEVELS.grid(41)
    np.testing.assert_allclose(grid[:3], [80, 69.699, 60.557], rtol=1e-4)
    np.testing.assert_allclose(grid[-1], 0.002, rtol=1e-4)
    assert np.all(np.diff(grid) < 0)
    np.testing.assert_array_equal(LEVELS.grid(1), np.float32([80]))


def test_the_network_sees_and_answers_unit_variance_at_every_level():
    sigma = jnp.float32([0.002, 0.1, 1.0, 80.0])
    by = diffusion.mix(sigma, LEVELS.data)
    noisy_variance = sigma**2 + LEVELS.data**2
    np.testing.assert_allclose(by.inside**2 * noisy_variance, 1, rtol=1e-5)
    # What the network should answer: (clean - skip * noisy) / out, for clean and noise independent.
    target = ((1 - by.skip) ** 2 * LEVELS.data**2 + by.skip**2 * sigma**2) / by.out**2
    np.testing.assert_allclose(
        target, 1, rtol=1e-3
    )  # 1 - skip cancels at 0.002: 1.6e-5 of eps 6e-8
    np.testing.assert_allclose(diffusion.loss_weight(sigma, 0.5) * by.out**2, 1, rtol=1e-5)


def test_the_boundary_is_exact_at_the_lowest_level():
    at = jnp.float32([LEVELS.lowest])
    by = diffusion.boundary_mix(at, LEVELS.data, LEVELS.lowest)
    x = jnp.float32(np.random.default_rng(0).normal(size=(1, 3, 2)))
    answer = diffusion.apply(lambda x, t: x * 1e6, by, x)
    np.testing.assert_array_equal(answer, x)


def test_the_boundary_mix_is_the_plain_one_far_above():
    sigma = jnp.float32([1.0, 80.0])
    plain = diffusion.mix(sigma, 0.5)
    for a, b in zip(plain, diffusion.boundary_mix(sigma, 0.5, 0.002), strict=True):
        np.testing.assert_allclose(a, b, rtol=5e-3)  # 2 * 0.002 / 1


def test_heun_takes_gaussian_noise_to_the_data_and_ends_at_zero():
    start = jnp.float32(np.random.default_rng(1).normal(size=(2, 4000)))
    got = jax.jit(lambda start: diffusion.sample(exact, start, LEVELS.grid(18)))(start)
    # The ODE maps x to CENTRE + 0.5 / sqrt(80^2 + 0.25) * (x - CENTRE) exactly.
    want = CENTRE + 0.5 / np.hypot(80, 0.5) * (80 * np.asarray(start) - CENTRE)
    finer = jax.jit(lambda start: diffusion.sample(exact, start, LEVELS.grid(72)))(start)
    error, less = (np.abs(np.asarray(x) - want).max() for x in (got, finer))
    assert less < 0.01  # of values within 2
    assert less < error / 8  # second order: 16 times less with a quarter of the step


def test_the_last_step_is_the_estimate_itself():
    seen = []

    def denoise(x, sigma):
        seen.append(sigma.shape)
        return jnp.full_like(x, 7.0)

    np.testing.assert_array_equal(
        diffusion.sample(denoise, jnp.ones((2, 3)), LEVELS.grid(4)), np.full((2, 3), 7.0, "f4")
    )
    assert set(seen) == {(2,)}


def keys(n):
    return jnp.asarray(np.random.default_rng(0).integers(2**32, size=(n, 2), dtype=np.uint32))


def test_noise_depends_on_the_examples_key_alone():
    whole = diffusion.noise(keys(4), 1, (3, 2))
    np.testing.assert_array_equal(diffusion.noise(keys(4)[2:3], 1, (3, 2))[0], whole[2])
    assert np.abs(whole - diffusion.noise(keys(4), 2, (3, 2))).max() > 0.1


def test_training_levels_are_log_normal():
    drawn = np.log(LEVELS.draw(keys(4000)))
    assert drawn.mean() == pytest.approx(LEVELS.mean, abs=4 * 1.2 / 4000**0.5)
    assert drawn.std() == pytest.approx(LEVELS.spread, rel=0.05)
