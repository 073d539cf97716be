"""Networks of maps: what a cell sees, what dropout and recomputation change, which are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.errors import UserError
from tds_jax.forecast.unet import UNet, doubled, halved

SETTINGS = {
    "num_channels": 2,
    "days": 3,
    "leads": 4,
    "hidden": 4,
    "by_day": 0,
    "head": "leads",
    "norm": "group",
    "groups": 2,
    "dropout": 0.5,
    "periodic": False,
    "remat": "none",
    "dtype": jnp.float32,
}
KEYS = jnp.asarray(np.arange(4, dtype=np.uint32).reshape(2, 2))


def network(**changes):
    """One that has learnt something: fresh ones answer 0."""
    net = UNet(**SETTINGS | changes, rngs=nnx.Rngs(0))
    assert not np.asarray(net.out.linear.kernel[...]).any()
    shape = net.out.linear.kernel[...].shape
    net.out.linear.kernel[...] = jnp.asarray(np.random.default_rng(2).normal(size=shape), "f4")
    return net


@pytest.fixture(scope="module")
def x():
    return jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 5, 7, 2)), jnp.float32)


@pytest.mark.parametrize("by_day", [pytest.param(0, marks=pytest.mark.long), 3])
def test_every_day_reaches_every_lead_on_maps_of_odd_sizes(x, by_day):
    net = network(by_day=by_day)
    run = jax.jit(lambda x: net(x, False))
    y = np.asarray(run(x))
    assert y.shape == (2, 4, 5, 7)
    for day in range(3):
        moved = np.asarray(run(x.at[:, day, 2, 3, 1].add(1.0)))
        assert (np.abs(moved - y).max(axis=(2, 3)) > 1e-5).all()


def test_an_example_does_not_know_its_neighbours_and_dropout_is_its_keys(x):
    net = network()
    run = jax.jit(lambda x, keys: net(x, True, keys))
    both = np.asarray(run(x, KEYS))
    alone = np.asarray(run(x[1:], KEYS[1:]))
    np.testing.assert_allclose(alone[0], both[1], atol=1e-5)  # f32, summed in another order
    assert np.abs(run(x, KEYS + jnp.uint32(1)) - both).max() > 1e-3


@pytest.mark.long
def test_recomputation_changes_no_gradient(x):
    def gradient(remat):
        graphdef, params, rest = nnx.split(network(remat=remat), nnx.Param, ...)
        loss = jax.jit(
            jax.grad(lambda p: jnp.square(nnx.merge(graphdef, p, rest)(x, True, KEYS)).sum())
        )
        return jax.tree.leaves(loss(params))

    for a, b in zip(gradient("none"), gradient("full"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)  # sums of 140 squares, f32


@pytest.mark.long
def test_around_the_globe_a_shifted_map_gives_a_shifted_forecast():
    net = network(periodic=True)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1, 3, 4, 8, 2)), jnp.float32)
    run = jax.jit(lambda x: net(x, False))
    # By 4 columns, a cell of the coarsest of the three maps.
    shifted = run(jnp.roll(x, 4, axis=3))
    np.testing.assert_allclose(shifted, jnp.roll(run(x), 4, axis=3), atol=2e-5)
    flat = network()
    run = jax.jit(lambda x: flat(x, False))
    assert np.abs(run(jnp.roll(x, 4, axis=3)) - jnp.roll(run(x), 4, axis=3)).max() > 1e-3


def test_halving_and_doubling_meet_again():
    x = jnp.arange(15.0).reshape(1, 3, 5, 1)
    half = halved(x)
    np.testing.assert_array_equal(half[0, ..., 0], [[3.0, 5.0, 6.5], [10.5, 12.5, 14.0]])
    assert doubled(half, 3, 5).shape == x.shape


def test_a_norm_that_cannot_be_is_refused():
    with pytest.raises(UserError, match=r"model.norm='batch' with model.groups=2 and a width of 4"):
        network(norm="batch")
    with pytest.raises(UserError, match="width of 6"):
        network(hidden=6, groups=4)
