"""A deferred scan is the plain scan: same values, same gradients, less work going backward."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tds_jax.nn import deferred
from tds_jax.nn.remat import in_chunks

STEPS, BATCH, SIZE = 11, 3, 5


def problem(dtype):
    rng = np.random.default_rng(0)
    weights = {
        name: jnp.asarray(rng.normal(size=(SIZE, SIZE)) / SIZE**0.5, dtype)
        for name in ("now", "before", "last")
    }
    weights |= {"bias": jnp.asarray(rng.normal(size=(1, SIZE)), dtype)}
    weights |= {"added": jnp.asarray(rng.normal(size=SIZE), dtype)}
    xs = jnp.asarray(rng.normal(size=(STEPS, BATCH, SIZE)), dtype)
    return weights, xs, jnp.asarray(rng.normal(size=(BATCH, SIZE)), dtype)


def loss(scan, chunk, weights, xs, start):
    """An integer in the carry, a product of two inputs, one of one with a bias, a bias beside."""
    matrices = {
        "both": (weights["now"], weights["before"]),
        "last": (weights["last"], weights["added"]),
    }

    def step(product, carry, x):
        count, h = carry
        h = jnp.tanh(product("last", jnp.tanh(product("both", x, h) + weights["bias"])))
        return (count + 1, h), jnp.where(count < 4, h, h**2)

    def run(carry, xs):
        return scan(step, matrices, carry, xs)

    (count, h), ys = in_chunks(run, (jnp.zeros((), jnp.int32), start), xs, chunk)
    return jnp.sum(jnp.sin(ys)) + jnp.sum(h**3) + count.astype(h.dtype)


def plain(step, matrices, init, xs):
    return jax.lax.scan(functools.partial(step, deferred.direct(matrices)), init, xs)


def ours(step, matrices, init, xs):
    return deferred.scan(step, deferred.join(matrices), init, xs)


@pytest.mark.parametrize("chunk", [0, 1, 4])
def test_gradients_are_those_of_plain_autodiff(chunk):
    with jax.enable_x64(True):
        grads = [
            jax.jit(jax.value_and_grad(functools.partial(loss, scan, chunk), argnums=(0, 1, 2)))(
                *problem(jnp.float64)
            )
            for scan in (plain, ours)
        ]
    for a, b in zip(*map(jax.tree.leaves, grads), strict=True):
        # 33 rows in another order of summation: a few f64 roundings
        np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-14)


def loops(jaxpr):
    """Every scan in a jaxpr, nested ones too; of a choice of platforms those of one."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "scan":
            yield eqn
        if eqn.primitive.name == "cond":
            yield from loops(eqn.params["branches"][0].jaxpr)
            continue
        for inner in jax.tree.leaves(eqn.params, is_leaf=lambda p: hasattr(p, "jaxpr")):
            if hasattr(inner, "jaxpr"):
                yield from loops(inner.jaxpr)


def test_no_scan_accumulates_a_matrix():
    def accumulated(scan):
        grad = jax.grad(functools.partial(loss, scan, 0))
        found = loops(jax.make_jaxpr(grad)(*problem(jnp.float32)).jaxpr)
        carries = [e.invars[e.params["num_consts"] :][: e.params["num_carry"]] for e in found]
        return sum(v.aval.shape[-1:] == (SIZE,) for carry in carries for v in carry)

    # h and its cotangent, the gradient of the bias beside; that of the other, three matrices'
    assert (accumulated(ours), accumulated(plain)) == (3, 7)


def test_values_alone_cost_no_more_memory_than_the_plain_scan():
    def temporaries(scan):
        weights, xs, start = problem(jnp.float32)
        run = jax.jit(functools.partial(loss, scan, 0))
        compiled = run.lower(weights, jnp.tile(xs, (100, 1, 1)), start).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    # The stacked inputs of one product alone would be half as much again.
    assert temporaries(ours) < 1.1 * temporaries(plain)


def test_products_of_bf16_have_bf16_rounding_only():
    weights, xs, start = problem(jnp.float32)

    def total(dtype, weights):
        matrix = {"w": (weights["before"].astype(dtype),)}

        def step(product, h, x):
            h = jnp.tanh(product("w", h).astype(jnp.float32) + x)
            return h, h

        return jnp.sum(ours(step, matrix, start, xs)[1] ** 2)

    narrow, wide = (jax.grad(functools.partial(total, d))(weights) for d in ("bfloat16", "float32"))
    assert narrow["before"].dtype == jnp.float32
    scale = np.abs(wide["before"]).max()
    # 11 steps of 8-bit operands, each good to 2^-9
    np.testing.assert_allclose(narrow["before"], wide["before"], atol=0.03 * scale)


@pytest.mark.parametrize("distinct", [True, False])
def test_a_packed_tree_is_the_tree_also_when_it_was_stacked(distinct):
    twice = jnp.arange(6.0).reshape(2, 3)
    tree = {"a": twice, "b": (twice, jnp.int32(7)), "c": twice + 1, "d": jnp.float32(3)}
    packed = deferred.pack(tree, distinct=distinct)
    assert sum(array.size for array in packed.arrays) == 6 + 1 + 6 + 1 + (0 if distinct else 6)
    stacked = jax.tree.map(lambda array: jnp.stack([array, array * 2]), packed).tree
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(stacked), strict=True):
        np.testing.assert_array_equal(b, jnp.stack([a, a * 2]))


def test_what_a_step_returns_and_carries_is_stacked_once_for_the_way_back():
    def step(product, h, x):
        h = jnp.tanh(product("w", h) + x)
        return h, h

    def loss(w, xs):
        return jnp.sum(ours(step, {"w": (w,)}, jnp.ones((BATCH, SIZE)), xs)[1])

    found = loops(jax.make_jaxpr(jax.grad(loss))(jnp.eye(SIZE), problem(jnp.float32)[1]).jaxpr)
    forward = next(found)
    # The result of the product and h; then nothing else of N rows.
    stacked = [v.aval.shape for v in forward.outvars[forward.params["num_carry"] :]]
    assert stacked == [(STEPS, BATCH, 2 * SIZE)]


def test_a_matrix_used_twice_is_refused():
    def step(product, h, x):
        return product("w", product("w", h)), x

    with pytest.raises(AssertionError, match="'w' is used twice"):
        ours(step, {"w": (jnp.eye(2),)}, jnp.ones((1, 2)), jnp.ones((3, 1)))
