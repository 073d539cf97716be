"""Remat changes memory, never values; chunked scans are scans."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tds_jax.errors import UserError
from tds_jax.nn import remat

pytestmark = pytest.mark.optimised


def body(w, carry, x):
    carry = jnp.tanh(carry @ w + x)
    return carry, carry * 2


def loss(w, xs, chunk):
    run = lambda carry, xs: jax.lax.scan(lambda c, x: body(w, c, x), carry, xs)  # noqa: E731
    carry, ys = remat.in_chunks(run, jnp.zeros((3, 4)), xs, chunk)
    return jnp.sum(carry**2) + jnp.sum(jnp.sin(ys))


@pytest.mark.parametrize("chunk", [1, 4, 5, 7, 20, 99])
def test_chunked_scan_has_the_values_and_gradients_of_the_plain_scan(chunk):
    rng = np.random.default_rng(0)
    w = jnp.asarray(rng.normal(size=(4, 4)) / 2, jnp.float32)
    xs = jnp.asarray(rng.normal(size=(20, 3, 4)), jnp.float32)
    plain = jax.value_and_grad(loss, argnums=(0, 1))(w, xs, 0)
    chunked = jax.value_and_grad(loss, argnums=(0, 1))(w, xs, chunk)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(chunked), strict=True):
        # 20 steps * a few roundings of values of order 10
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def temp_bytes(chunk):
    w, xs = jnp.ones((64, 64)), jnp.ones((400, 8, 64))

    def f(w):
        one = lambda c, x: (jnp.tanh(jnp.sin(jnp.cos(c @ w)) + x), ())  # noqa: E731
        run = lambda c, xs: jax.lax.scan(one, c, xs)  # noqa: E731
        return jnp.sum(remat.in_chunks(run, jnp.zeros((8, 64)), xs, chunk)[0])

    return jax.jit(jax.grad(f)).lower(w).compile().memory_analysis().temp_size_in_bytes


def test_chunks_of_a_square_root_keep_a_fifth_or_less():
    # kept: 20 carries + 20 steps' intermediates instead of 400 steps' intermediates
    assert temp_bytes(20) < temp_bytes(0) / 5


def kept_bytes(policy):
    w = jnp.ones((32, 32))

    def block(x):
        x = remat.keep(jnp.sin(jnp.cos(jnp.tanh(x @ w))))
        return jnp.sum(jnp.sin(jnp.cos(x @ w)))

    _, pullback = jax.vjp(remat.checkpoint(block, policy), jnp.ones((256, 32)))
    return sum(leaf.size for leaf in jax.tree.leaves(pullback) if hasattr(leaf, "size"))


def test_policies_keep_less_in_their_documented_order():
    none, dots, names, full = (kept_bytes(p) for p in ("none", "dots", "names", "full"))
    assert full < names < none
    assert full < dots < none


@pytest.mark.parametrize("policy", ["dots", "names", "full"])
def test_policies_change_no_value_and_no_gradient(policy):
    f = lambda x: jnp.sum(remat.keep(jnp.sin(x @ x)) @ jnp.cos(x))  # noqa: E731
    x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 8)), jnp.float32)
    plain = jax.value_and_grad(f)(x)
    ours = jax.value_and_grad(remat.checkpoint(f, policy))(x)
    np.testing.assert_allclose(ours[0], plain[0], rtol=1e-6)
    np.testing.assert_allclose(ours[1], plain[1], rtol=1e-5, atol=1e-5)


def test_unknown_policy_and_negative_chunk_name_the_fix():
    with pytest.raises(UserError, match=r"memory.remat='False'.*none, dots, names, full"):
        remat.checkpoint(jnp.sin, "False")
    with pytest.raises(UserError, match=r"^chunk=-1 is negative"):
        remat.in_chunks(lambda c, xs: (c, xs), 0, jnp.ones(3), -1)
