"""Loops over the rows of arrays, a chunk at a time, whose memory is what stands in them.

`jax.lax.scan` over split arrays would do the same sums. But splitting may copy an array, and the
zeros that a scan's results are written into are one constant to XLA: it is made early, kept, and
copied for every loop with results of that shape. Here the results' place is made where the loop is.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Body = Callable[[Any, int, Any], Any]


def loop(total: int, chunk: int, body: Body, carry: Any) -> Any:
    """carry = body(first row, number of rows, carry) for `total` rows, `chunk` at a time.

    The last chunk may be smaller. Not differentiable; for use within custom derivatives.
    """
    whole = total - total % chunk
    carry = jax.lax.fori_loop(0, whole // chunk, lambda n, c: body(n * chunk, chunk, c), carry)
    return carry if whole == total else body(whole, total - whole, carry)


def take(tree: Any, start: Any, rows: int) -> Any:
    """Rows start ... start + rows of every leaf."""

    def one(x: jax.Array) -> jax.Array:
        return _as(jax.lax.dynamic_slice_in_dim(_bits(x), start, rows), x.dtype)

    return jax.tree.map(one, tree)


def put(places: Any, values: Any, start: Any) -> Any:
    """The places with rows of `values` from `start` on."""

    def one(place: jax.Array, value: jax.Array) -> jax.Array:
        bits = jax.lax.dynamic_update_slice_in_dim(_bits(place), _bits(value), start, 0)
        return _as(bits, place.dtype)

    return jax.tree.map(one, places, values)


def _bits(x: jax.Array) -> jax.Array:
    """x, a bf16 array as integers: XLA on CPU would convert all of it to f32 to take a slice."""
    return _as(x, jnp.dtype(jnp.uint16) if x.dtype == jnp.bfloat16 else x.dtype)


def _as(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    return x if x.dtype == dtype else jax.lax.bitcast_convert_type(x, dtype)


def places(total: int, chunk: Any, after: jax.Array) -> Any:
    """Arrays for `total` rows like those of the shapes `chunk`, whose values mean nothing.

    after: an array of which one number is read, so that they are not made before it is there.
    """
    zero = 0 * after[(0,) * after.ndim]

    def one(shape: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.broadcast_to(zero.astype(shape.dtype), (total, *shape.shape[1:]))

    return jax.tree.map(one, chunk)


def mapped(
    f: Callable[[Any, jax.Array], jax.Array], weights: Any, x: jax.Array, chunk: int
) -> jax.Array:
    """f(weights, x) by chunks of rows, each done again for the backward pass: nothing is kept.

    f treats every row alike and closes over no traced values.
    """

    @jax.custom_vjp
    def run(weights: Any, x: jax.Array) -> jax.Array:
        def body(start: Any, rows: int, y: jax.Array) -> jax.Array:
            return put(y, f(weights, take(x, start, rows)), start)

        return loop(len(x), chunk, body, places(len(x), jax.eval_shape(f, weights, x), x))

    def backward(saved: tuple[Any, jax.Array], g: jax.Array) -> tuple[Any, jax.Array]:
        weights, x = saved

        def body(start: Any, rows: int, carry: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
            total, dx = carry
            more, part = jax.vjp(f, weights, take(x, start, rows))[1](take(g, start, rows))
            return jax.tree.map(jnp.add, total, more), put(dx, part, start)

        zeros = jax.tree.map(jnp.zeros_like, weights)
        return loop(len(x), chunk, body, (zeros, places(len(x), x, g)))

    run.defvjp(lambda weights, x: (run(weights, x), (weights, x)), backward)
    return run(weights, x)
