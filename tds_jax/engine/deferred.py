"""A scan that forms the gradient of each matrix in one product, after its reverse scan.

Autodiff of `jax.lax.scan` adds xᵀg to the gradient of every matrix at every step: all weights are
read and written N times, for products too thin to be fast. Here the reverse scan hands on only what
the step before needs; the inputs x and the cotangents g of the products' results are stacked over
the steps and meet in a single xᵀg.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Matrices = dict[str, jax.Array]
Product = Callable[[str, jax.Array], jax.Array]
Step = Callable[[Product, Any, Any], tuple[Any, Any]]


def direct(matrices: Matrices) -> Product:
    """(name, x (..., K)) -> x @ matrices[name] (K, M), in the matrix's dtype."""
    return lambda name, x: x.astype(matrices[name].dtype) @ matrices[name]


def scan(step: Step, matrices: Matrices, init: Any, xs: Any) -> tuple[Any, Any]:
    """`jax.lax.scan` of (carry, x) -> step(direct(matrices), carry, x), with the same gradients.

    step uses each matrix once, through its first argument; whatever else it closes over is
    differentiated as usual. Reverse mode only. Kept for it beside what the step's autodiff keeps:
    the inputs of the products; while it runs, also the cotangents of their results.
    """
    first = jax.tree.map(lambda x: x[0], xs)
    results = jax.eval_shape(functools.partial(_results, step), matrices, init, first)
    taps = {name: jnp.zeros(result.shape, result.dtype) for name, result in results.items()}
    example = (matrices, _transposed(matrices), taps, init, first)
    body, constants = jax.closure_convert(functools.partial(_tapped_step, step), *example)
    return _run(body, taps, matrices, constants, init, xs)


def _transposed(matrices: Matrices) -> Matrices:
    return {name: matrix.T for name, matrix in matrices.items()}


def _results(step: Step, matrices: Matrices, carry: Any, x: Any) -> Matrices:
    results: Matrices = {}

    def product(name: str, value: jax.Array) -> jax.Array:
        assert name not in results, f"matrix {name!r} is used twice in one step"
        results[name] = direct(matrices)(name, value)
        return results[name]

    step(product, carry, x)
    return results


def _tapped_step(
    step: Step, matrices: Matrices, transposed: Matrices, taps: Matrices, carry: Any, x: Any
) -> tuple[tuple[Any, Any], Matrices]:
    """A step, and the inputs of its products."""
    inputs: Matrices = {}

    def product(name: str, value: jax.Array) -> jax.Array:
        inputs[name] = value.astype(matrices[name].dtype)
        return _tapped_product(inputs[name], matrices[name], transposed[name], taps[name])

    return step(product, carry, x), inputs


@jax.custom_vjp
def _tapped_product(
    x: jax.Array, matrix: jax.Array, transposed: jax.Array, tap: jax.Array
) -> jax.Array:
    """x @ matrix. The result's cotangent is also that of `tap`; the matrix gets none here."""
    return x @ matrix


# On CPU a product with the transpose laid out once takes a third of one with the matrix turned.
_tapped_product.defvjp(
    lambda x, matrix, transposed, tap: (x @ matrix, transposed),
    lambda transposed, g: (g @ transposed, None, None, g),
)


def _run(
    body: Callable[..., Any],
    taps: Matrices,
    matrices: Matrices,
    constants: list[jax.Array],
    init: Any,
    xs: Any,
) -> tuple[Any, Any]:
    def zeros(xs: Any) -> Matrices:  # never read
        steps = len(jax.tree.leaves(xs)[0])
        return {name: jnp.zeros((steps, *tap.shape), tap.dtype) for name, tap in taps.items()}

    def tapped(
        matrices: Matrices, constants: list[jax.Array], init: Any, xs: Any, taps: Matrices
    ) -> tuple[tuple[Any, Any], Matrices]:
        transposed = _transposed(matrices)

        def one(carry: Any, x: tuple[Any, Matrices]) -> tuple[Any, tuple[Any, Matrices]]:
            (carry, y), inputs = body(matrices, transposed, x[1], carry, x[0], *constants)
            return carry, (y, inputs)

        carry, (ys, inputs) = jax.lax.scan(one, init, (xs, taps))
        return (carry, ys), inputs

    @jax.custom_vjp
    def run(matrices: Matrices, constants: list[jax.Array], init: Any, xs: Any) -> Any:
        return tapped(matrices, constants, init, xs, zeros(xs))[0]

    def forward(matrices: Matrices, *rest: Any) -> tuple[Any, Any]:
        part = functools.partial(tapped, matrices)
        out, pull, inputs = jax.vjp(part, *rest, zeros(rest[-1]), has_aux=True)
        return out, (pull, inputs)

    def backward(saved: Any, g: Any) -> tuple[Any, ...]:
        pull, inputs = saved
        *rest, results = pull(g)
        return {name: _gradient(x, results[name]) for name, x in inputs.items()}, *rest

    run.defvjp(forward, backward)
    return run(matrices, constants, init, xs)


def _gradient(x: jax.Array, g: jax.Array) -> jax.Array:
    """Σ xᵀg over all axes but the last: x (N, ..., K), g (N, ..., M) -> (K, M)."""
    return x.reshape(-1, x.shape[-1]).T @ g.reshape(-1, g.shape[-1])
