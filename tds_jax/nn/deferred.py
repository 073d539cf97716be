"""A scan that forms the gradient of each matrix in one product, after its reverse scan.

Autodiff of `jax.lax.scan` adds xᵀg to the gradient of every matrix at every step: all weights are
read and written N times, for products too thin to be fast. Here the reverse scan hands on only what
the step before needs; the inputs x and the cotangents g of the products' results are stacked over
the steps and meet in a single xᵀg. Autodiff also keeps every value that a step's pointwise
operations multiply by, each in an array of its own; here one array holds what cannot be made anew
cheaply.
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
    differentiated as usual. Reverse mode only. Kept for it: the carry and the results of the
    products, of which the way back makes the rest of a step anew, without a product; while it runs,
    also the products' inputs and their results' cotangents.
    """
    first = jax.tree.map(lambda x: x[0], xs)
    ahead = functools.partial(_recorded, step)
    _, shapes = jax.eval_shape(ahead, matrices, init, first)
    results = {name: jnp.zeros(shape.shape, shape.dtype) for name, shape in shapes.items()}
    forth, seen = jax.closure_convert(ahead, matrices, init, first)
    again = functools.partial(_replayed, step)
    back, seen_again = jax.closure_convert(again, matrices, results, results, init, first)
    return _make(forth, back, results)(matrices, seen, seen_again, init, xs)


def _concatenate(inputs: tuple[jax.Array, ...], dtype: jnp.dtype) -> jax.Array:
    return jnp.concatenate([x.astype(dtype) for x in inputs], axis=-1)


def _recorded(
    step: Step, matrices: dict[str, Joined], carry: Any, x: Any
) -> tuple[tuple[Any, Any], dict[str, jax.Array]]:
    """A step, and the results of its products."""
    results: dict[str, jax.Array] = {}

    def product(name: str, *inputs: jax.Array) -> jax.Array:
        assert name not in results, f"{name!r} is used twice in one step"
        matrix = matrices[name].matrix
        results[name] = _concatenate(inputs, matrix.dtype) @ matrix
        return results[name]

    return step(product, carry, x), results


def _replayed(
    step: Step,
    matrices: dict[str, Joined],
    taps: dict[str, jax.Array],
    results: dict[str, jax.Array],
    carry: Any,
    x: Any,
) -> tuple[tuple[Any, Any], dict[str, jax.Array]]:
    """A step whose products are known, and the inputs of these."""
    inputs: dict[str, jax.Array] = {}

    def product(name: str, *parts: jax.Array) -> jax.Array:
        matrix, transposed = matrices[name]
        inputs[name] = _concatenate(parts, matrix.dtype)
        return _known(inputs[name], transposed, taps[name], results[name])

    return step(product, carry, x), inputs


@jax.custom_vjp
def _known(x: jax.Array, transposed: jax.Array, tap: jax.Array, result: jax.Array) -> jax.Array:
    """The result of x @ matrix. Its cotangent is also that of `tap`; the matrix gets none here."""
    del x, transposed, tap
    return result


_known.defvjp(
    lambda x, transposed, tap, result: (result, transposed),
    lambda transposed, g: (g @ transposed, None, g, None),
)


class Packing:
    """Leaves of a tree side by side in as few arrays as their types and leading axes allow.

    A loop on a card writes each array that it stacks by a kernel of its own.
    """

    def __init__(self, tree: Any) -> None:
        leaves, self._structure = jax.tree.flatten(tree)
        self._shapes = [leaf.shape for leaf in leaves]
        self._kinds = [(leaf.shape[:-1], leaf.dtype) for leaf in leaves]
        self._groups = list(dict.fromkeys(self._kinds))

    def pack(self, tree: Any) -> list[jax.Array]:
        """The arrays of a tree of this structure."""
        leaves = [jnp.atleast_1d(leaf) for leaf in jax.tree.leaves(tree)]
        pairs = list(zip(self._kinds, leaves, strict=True))
        return [
            jnp.concatenate([leaf for kind, leaf in pairs if kind == group], axis=-1)
            for group in self._groups
        ]

    def unpack(self, arrays: list[jax.Array]) -> Any:
        """The tree; arrays may have leading axes beside those that were packed."""
        ends = dict.fromkeys(self._groups, 0)
        leaves = []
        for shape, kind in zip(self._shapes, self._kinds, strict=True):
            array, start = arrays[self._groups.index(kind)], ends[kind]
            ends[kind] = start + (shape[-1] if shape else 1)
            leaf = array[..., start : ends[kind]]
            leaves.append(leaf if shape else leaf[..., 0])
        return jax.tree.unflatten(self._structure, leaves)


def _make(
    forth: Callable[..., Any], back: Callable[..., Any], results: dict[str, jax.Array]
) -> Callable[..., Any]:
    """The scan as a function of arrays; results: zeros of the shapes of one step's products."""

    @jax.custom_vjp
    def run(matrices: dict[str, Joined], seen: Any, seen_again: Any, init: Any, xs: Any) -> Any:
        def one(carry: Any, x: Any) -> tuple[Any, Any]:
            return forth(matrices, carry, x, *seen)[0]

        return jax.lax.scan(one, init, xs)

    def forward(
        matrices: dict[str, Joined], seen: Any, seen_again: Any, init: Any, xs: Any
    ) -> tuple[Any, Any]:
        packing = Packing((init, results))

        def one(carry: Any, x: Any) -> tuple[Any, tuple[Any, list[jax.Array]]]:
            (after, y), made = forth(matrices, carry, x, *seen)
            # What it ends with, not what it begins with: that is overwritten.
            return after, (y, packing.pack((after, made)))

        carry, (ys, kept) = jax.lax.scan(one, init, xs)
        return (carry, ys), (matrices, seen_again, init, xs, kept)

    def backward(saved: Any, cotangents: Any) -> tuple[Any, ...]:
        matrices, seen, init, xs, kept = saved
        ends, moved = _Floats(init), _Floats(xs)
        packing = Packing((init, results))
        outer = Packing((_inputs(matrices, results), results))

        def one(carried: Any, now: Any) -> tuple[Any, Any]:
            (d_after, d_seen), (n, x, d_y) = carried, now
            _, made = packing.unpack([array[n] for array in kept])
            ended, _ = packing.unpack([array[jnp.maximum(n - 1, 0)] for array in kept])
            before = jax.tree.map(lambda first, other: jnp.where(n > 0, other, first), init, ended)

            def step(seen: Any, before_: Any, x_: Any, taps: Any) -> tuple[Any, Any]:
                carry, now = ends.put(before, before_), moved.put(x, x_)
                (after, y), inputs = back(matrices, taps, made, carry, now, *seen)
                return (ends.of(after), y), inputs

            floats = ends.of(before), moved.of(x)
            _, pull, inputs = jax.vjp(step, seen, *floats, results, has_aux=True)
            more, d_before, d_x, d_results = pull((d_after, d_y))
            d_seen = jax.tree.map(jnp.add, d_seen, more)
            return (d_before, d_seen), (d_x, outer.pack((inputs, d_results)))

        start = ends.of(cotangents[0]), jax.tree.map(jnp.zeros_like, seen)
        (d_init, d_seen), (d_xs, packed) = jax.lax.scan(
            one, start, (jnp.arange(len(kept[0])), xs, cotangents[1]), reverse=True
        )
        inputs, d_results = outer.unpack(packed)
        nothing: Any = None  # for the transpose, and for integers
        found = {n: Joined(matrix_gradient(x, d_results[n]), nothing) for n, x in inputs.items()}
        return found, None, d_seen, ends.alone(d_init), moved.alone(d_xs)

    run.defvjp(forward, backward)
    return run


def _inputs(
    matrices: dict[str, Joined], results: dict[str, jax.Array]
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of what one step's products multiply."""
    found = {}
    for name, result in results.items():
        matrix = matrices[name].matrix
        found[name] = jax.ShapeDtypeStruct((*result.shape[:-1], len(matrix)), matrix.dtype)
    return found


class _Floats:
    """The leaves of a tree that have gradients."""

    def __init__(self, tree: Any) -> None:
        leaves, self._structure = jax.tree.flatten(tree)
        self._which = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]

    def of(self, tree: Any) -> list[Any]:
        """Those of a tree of this structure."""
        pairs = zip(jax.tree.leaves(tree), self._which, strict=True)
        return [leaf for leaf, float_ in pairs if float_]

    def put(self, tree: Any, floats: list[Any]) -> Any:
        """The tree with these in their places."""
        rest = iter(floats)
        pairs = zip(jax.tree.leaves(tree), self._which, strict=True)
        leaves = [next(rest) if float_ else leaf for leaf, float_ in pairs]
        return jax.tree.unflatten(self._structure, leaves)

    def alone(self, floats: list[Any]) -> Any:
        """The tree of these, None in the places of others."""
        rest = iter(floats)
        leaves = [next(rest) if float_ else None for float_ in self._which]
        return jax.tree.unflatten(self._structure, leaves)


def matrix_gradient(x: jax.Array, g: jax.Array) -> jax.Array:
    """Σ xᵀg over all axes but the last: x (N, ..., K), g (N, ..., M) -> (K, M)."""
    return x.reshape(-1, x.shape[-1]).T @ g.reshape(-1, g.shape[-1])
