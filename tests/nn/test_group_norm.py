"""Laws of group normalisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tds_jax.nn.group_norm import GroupNorm, Moments, merge, moments

F32 = jnp.float32


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), F32)


def formula(x, groups, eps=1e-5):
    """The definition, in f64."""
    x = np.asarray(x, np.float64)
    rows = x.reshape(x.shape[0], -1, groups, x.shape[-1] // groups)
    mean = rows.mean((1, 3), keepdims=True)
    return ((rows - mean) / np.sqrt(rows.var((1, 3), keepdims=True) + eps)).reshape(x.shape)


def layer(features, groups, dtype=F32, **options):
    norm = GroupNorm(features, groups, dtype=dtype, **options)
    norm.scale[...] = 1 + 0.3 * normal(features, seed=5)
    norm.bias[...] = 0.3 * normal(features, seed=6)
    return norm


@pytest.mark.parametrize("groups", [1, 3, 6])
@pytest.mark.parametrize("space", [(5,), (3, 4), (2, 3, 4)])
def test_groups_of_channels_are_normalised_over_space(space, groups):
    x = 3 * normal(2, *space, 6) + 2
    ours = GroupNorm(6, groups, dtype=F32)(x)
    np.testing.assert_allclose(ours, formula(x, groups), atol=3e-6)


def test_a_mean_far_from_zero_costs_no_digits():
    """The one-pass variance would be off by 300² * 6e-8 / 1e-2, more than half of it."""
    x = 0.1 * normal(1, 8, 8, 8, 2) + 300
    # a mean of 300 is good to some ulp of 3e-5 each, over deviations of 0.1
    np.testing.assert_allclose(GroupNorm(2, 2, dtype=F32)(x), formula(x, 2), atol=5e-3)


def test_bf16_is_normalised_in_f32_and_rounded_once():
    x = (0.25 * normal(2, 4, 8, 8) + 4).astype(jnp.bfloat16)
    exact = layer(8, 4)(x.astype(F32))
    y = layer(8, 4, dtype=jnp.bfloat16)(x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(F32), exact, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("given", [False, True])
def test_gradients_are_those_of_the_formula(given):
    """Autodiff of the plain formula, f64; given: through moments handed in from outside."""
    with jax.enable_x64(True):
        draws = (
            normal(2, 3, 4, 6),
            normal(6, seed=1),
            normal(6, seed=2),
            normal(2, 3, 4, 6, seed=3),
        )
        *arrays, g = (a.astype(jnp.float64) for a in draws)

        def plain(x, scale, bias):
            rows = x.reshape(2, 12, 3, 2)
            rows = rows - rows.mean((1, 3), keepdims=True)
            rows = rows / jnp.sqrt((rows**2).mean((1, 3), keepdims=True) + 1e-5)
            shape = (1, 1, 1, 6)
            return jax.nn.silu(rows.reshape(x.shape) * scale.reshape(shape) + bias.reshape(shape))

        def ours(x, scale, bias):
            norm = GroupNorm(6, 3, dtype=jnp.float64, activation=jax.nn.silu)
            norm.scale, norm.bias = type(norm.scale)(scale), type(norm.bias)(bias)
            return norm(x, norm.moments(x) if given else None)

        for a, b in zip(*(jax.vjp(f, *arrays)[1](g) for f in (plain, ours)), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-11, atol=1e-12)


def test_each_example_may_be_told_scales_and_shifts_of_what_is_normalised():
    """Values and gradients as of the formula by autodiff, f64."""
    with jax.enable_x64(True):
        arrays = [normal(2, 3, 4, 6), normal(2, 6, seed=1), normal(2, 6, seed=2)]
        arrays = [a.astype(jnp.float64) for a in arrays]
        norm = layer(6, 3, jnp.float64)

        def plain(x, scale, shift):
            rows = [a.reshape(2, 1, 1, 6) for a in (1 + scale, shift)]
            return jax.nn.silu(norm(x) * rows[0] + rows[1])

        def ours(x, scale, shift):
            return layer(6, 3, jnp.float64, activation=jax.nn.silu)(x, told=(scale, shift))

        g = normal(2, 3, 4, 6, seed=3).astype(jnp.float64)
        (y, pull), (y_plain, pull_plain) = (jax.vjp(f, *arrays) for f in (ours, plain))
        for a, b in zip((y, *pull(g)), (y_plain, *pull_plain(g)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("told", [False, True])
def test_backward_keeps_the_input_and_a_few_numbers(told):
    x = normal(2, 8, 8, 8, 4).astype(jnp.bfloat16)
    norm = layer(4, 2, dtype=jnp.bfloat16, activation=jax.nn.silu)
    rows = (normal(2, 4), normal(2, 4, seed=1))

    def normed(x):
        return norm(x, told=rows if told else None)

    pullback = jax.eval_shape(lambda x: jax.vjp(normed, x)[1], x)
    kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pullback))
    assert kept <= x.size * 2 + 4 * (2 * 2 * 2 + 2 * (2 if told else 1) * 4)


def test_moments_of_parts_merge_to_those_of_the_whole():
    x = 2 * normal(2, 7, 3, 3, 4) + 50
    whole = moments(x, 2)
    merged = merge(moments(x[:, :2], 2), jnp.float32(2 / 7), moments(x[:, 2:], 2))
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-6)
    np.testing.assert_allclose(merged.var, whole.var, rtol=1e-5)


def test_a_part_is_normalised_by_the_whole():
    x = normal(1, 6, 3, 3, 4)
    norm = layer(4, 2, activation=jax.nn.silu)
    whole = norm(x)
    np.testing.assert_allclose(norm(x[:, 2:5], norm.moments(x)), whole[:, 2:5], atol=1e-6)
    apart = Moments(*(0 * m + 1 for m in norm.moments(x)))
    assert np.abs(norm(x[:, 2:5], apart) - whole[:, 2:5]).max() > 0.1
