"""A scan that forms the gradient of each matrix in one product, after its reverse scan.

Autodiff of `jax.lax.scan` adds xᵀg to the gradient of every matrix at every step: all weights are
read and written N times, for products too thin to be fast. Here the reverse scan hands on only what
the step before needs; the inputs x and the cotangents g of the products' results are stacked over
the steps and meet in a single xᵀg.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

Matrices = dict[str, tuple[jax.Array, ...]]
"""By name: (K1, M), (K2, M) ..., each multiplied by an input of its own, the results summed."""


class Product(Protocol):
    """(name, x1 (..., K1), x2 (..., K2) ...) -> Σ xi @ matrices[name][i], in their dtype."""

    def __call__(self, name: str, *inputs: jax.Array) -> jax.Array: ...


Step = Callable[[Product, Any, Any], tuple[Any, Any]]


class Joined(NamedTuple):
    """Matrices of one name below each other (ΣKi, M), and their transpose for the way back.

    On CPU a thin product with the latter takes a third of one with the former read across.
    """

    matrix: jax.Array
    transposed: jax.Array


def join(matrices: Matrices) -> dict[str, Joined]:
    """What `scan` takes; outside of a loop over chunks, so that it is done once."""
    joined = {name: jnp.concatenate(parts) for name, parts in matrices.items()}
    return {name: Joined(m, jax.lax.stop_gradient(m).T) for name, m in joined.items()}


def direct(matrices: Matrices) -> Product:
    """The product for single steps: nothing joined, nothing kept."""

    def product(name: str, *inputs: jax.Array) -> jax.Array:
        pairs = zip(inputs, matrices[name], strict=True)
        return functools.reduce(operator.add, (x.astype(w.dtype) @ w for x, w in pairs))

    return product


def scan(step: Step, matrices: dict[str, Joined], init: Any, xs: Any) -> tuple[Any, Any]:
    """`jax.lax.scan` of step(product, carry, x) -> (carry, y) with `matrices` behind product.

    step uses each name once, through its first argument; whatever else it closes over is
    differentiated as usual. Reverse mode only. Kept for it beside what the step's autodiff keeps:
    the inputs of the products; while it runs, also the cotangents of their results.
    """
    first = jax.tree.map(lambda x: x[0], xs)
    results = jax.eval_shape(functools.partial(_results, step), matrices, init, first)
    taps = {name: jnp.zeros(result.shape, result.dtype) for name, result in results.items()}
    step = functools.partial(_tapped_step, step)
    body, constants = jax.closure_convert(step, matrices, taps, init, first)
    return _run(body, taps, matrices, constants, init, xs)


def _concatenate(inputs: tuple[jax.Array, ...], dtype: jnp.dtype) -> jax.Array:
    return jnp.concatenate([x.astype(dtype) for x in inputs], axis=-1)


def _results(step: Step, matrices: dict[str, Joined], carry: Any, x: Any) -> dict[str, jax.Array]:
    results: dict[str, jax.Array] = {}

    def product(name: str, *inputs: jax.Array) -> jax.Array:
        assert name not in results, f"{name!r} is used twice in one step"
        matrix = matrices[name].matrix
        results[name] = _concatenate(inputs, matrix.dtype) @ matrix
        return results[name]

    step(product, carry, x)
    return results


def _tapped_step(
    step: Step, matrices: dict[str, Joined], taps: dict[str, jax.Array], carry: Any, x: Any
) -> tuple[tuple[Any, Any], dict[str, jax.Array]]:
    """A step, and the inputs of its products."""
    kept: dict[str, jax.Array] = {}

    def product(name: str, *inputs: jax.Array) -> jax.Array:
        matrix, transposed = matrices[name]
        kept[name] = _concatenate(inputs, matrix.dtype)
        return _tapped_product(kept[name], matrix, transposed, taps[name])

    return step(product, carry, x), kept


@jax.custom_vjp
def _tapped_product(
    x: jax.Array, matrix: jax.Array, transposed: jax.Array, tap: jax.Array
) -> jax.Array:
    """x @ matrix. The result's cotangent is also that of `tap`; the matrix gets none here."""
    return x @ matrix


_tapped_product.defvjp(
    lambda x, matrix, transposed, tap: (x @ matrix, transposed),
    lambda transposed, g: (g @ transposed, None, None, g),
)


def _run(
    body: Callable[..., Any],
    taps: dict[str, jax.Array],
    matrices: dict[str, Joined],
    constants: list[jax.Array],
    init: Any,
    xs: Any,
) -> tuple[Any, Any]:
    def zeros(xs: Any) -> dict[str, jax.Array]:  # never read
        steps = len(jax.tree.leaves(xs)[0])
        return {name: jnp.zeros((steps, *tap.shape), tap.dtype) for name, tap in taps.items()}

    def tapped(
        matrices: dict[str, Joined], constants: list[jax.Array], init: Any, xs: Any, taps: Any
    ) -> tuple[tuple[Any, Any], dict[str, jax.Array]]:
        def one(carry: Any, x: tuple[Any, Any]) -> tuple[Any, tuple[Any, Any]]:
            (carry, y), kept = body(matrices, x[1], carry, x[0], *constants)
            return carry, (y, kept)

        carry, (ys, kept) = jax.lax.scan(one, init, (xs, taps))
        return (carry, ys), kept

    @jax.custom_vjp
    def run(matrices: dict[str, Joined], *rest: Any) -> Any:
        constants, init, xs = rest
        return tapped(matrices, constants, init, xs, zeros(xs))[0]

    def forward(matrices: dict[str, Joined], *rest: Any) -> tuple[Any, Any]:
        part: Any = functools.partial(tapped, matrices)
        out, pull, kept = jax.vjp(part, *rest, zeros(rest[-1]), has_aux=True)
        return out, (pull, kept)

    def backward(saved: Any, g: Any) -> tuple[Any, ...]:
        pull, kept = saved
        *rest, results = pull(g)
        nothing: Any = None  # for the transpose
        return {n: Joined(matrix_gradient(x, results[n]), nothing) for n, x in kept.items()}, *rest

    run.defvjp(forward, backward)
    return run(matrices, constants, init, xs)


def matrix_gradient(x: jax.Array, g: jax.Array) -> jax.Array:
    """Σ xᵀg over all axes but the last: x (N, ..., K), g (N, ..., M) -> (K, M)."""
    return x.reshape(-1, x.shape[-1]).T @ g.reshape(-1, g.shape[-1])
