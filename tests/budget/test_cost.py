"""The cost estimate counts what a device would do."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl

from tds_jax.budget import cost
from tds_jax.budget.cost import Speed

FLOPS = Speed(flops=1.0, bandwidth=1e30, latency=0.0)
CALLS = Speed(flops=1e30, bandwidth=1e30, latency=1.0)
X, W = jax.ShapeDtypeStruct((8, 16), jnp.float32), jax.ShapeDtypeStruct((16, 16), jnp.float32)


def estimate(f, speed, *args):
    return cost.seconds(jax.make_jaxpr(f)(*args).jaxpr, speed)


def loop(x, w):
    return jax.lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, None, length=10)[0]


def test_a_product_costs_two_operations_per_term():
    assert estimate(jnp.matmul, FLOPS, X, W) == 2 * 8 * 16 * 16


def test_a_convolution_costs_its_window_times_its_input_channels():
    x, k = jnp.zeros((2, 20, 3)), jnp.zeros((5, 3, 7))

    def conv(x, k):
        return jax.lax.conv_general_dilated(
            x, k, (1,), "VALID", dimension_numbers=("NTC", "TIO", "NTC")
        )

    assert estimate(conv, FLOPS, x, k) == 2 * (2 * 16 * 7) * (5 * 3)


def test_the_body_of_a_loop_counts_as_often_as_it_turns():
    assert estimate(loop, FLOPS, X, W) == 10 * estimate(jnp.matmul, FLOPS, X, W)
    assert estimate(loop, CALLS, X, W) == 10


def test_of_two_branches_the_dearer_counts():
    def either(x, w):
        return jax.lax.cond(x[0, 0] > 0, lambda: x @ w @ w, lambda: x @ w)

    assert estimate(either, FLOPS, X, W) == 2 * estimate(jnp.matmul, FLOPS, X, W)


def test_recomputing_the_forward_pass_is_paid_for():
    def plain(x, w):
        return loop(x, w).sum()

    def remat(x, w):
        return jax.checkpoint(loop)(x, w).sum()

    # Forward, twice as much backward; with recomputation the forward pass once more.
    once = estimate(plain, FLOPS, X, W)
    assert estimate(jax.grad(plain, argnums=1), FLOPS, X, W) == pytest.approx(3 * once, rel=0.1)
    assert estimate(jax.grad(remat, argnums=1), FLOPS, X, W) == pytest.approx(4 * once, rel=0.1)


def test_moving_bytes_limits_what_has_few_operations():
    slow = Speed(flops=1e30, bandwidth=1.0, latency=0.0)
    assert estimate(jnp.matmul, slow, X, W) == 4 * (8 * 16 + 16 * 16 + 8 * 16)


def test_a_kernel_of_our_own_is_one_operation_that_does_the_work_of_all_its_programs():
    def kernel(x, w, y):
        y[:, :] = jax.lax.fori_loop(0, 10, lambda _, c: jnp.tanh(c @ w[:, :]), x[:, :])

    def fused(x, w):
        rows, whole = pl.BlockSpec((2, 16), lambda n: (n, 0)), pl.BlockSpec((16, 16))
        out = jax.ShapeDtypeStruct(x.shape, x.dtype)
        specs = {"grid": (4,), "in_specs": [rows, whole], "out_specs": rows}
        return pl.pallas_call(kernel, out_shape=out, interpret=True, **specs)(x, w)

    assert estimate(fused, FLOPS, X, W) == estimate(loop, FLOPS, X, W)
    assert (estimate(fused, CALLS, X, W), estimate(loop, CALLS, X, W)) == (1, 10)
