"""A scan that forms the gradient of each matrix in one product, after its reverse scan.

Autodiff of `jax.lax.scan` adds xᵀg to the gradient of every matrix at every step: all weights are
read and written N times, for products too thin to be fast. Here the reverse scan hands on only what
the step before needs; the inputs x and the cotangents g of the products' results are stacked over
the steps and meet in a single xᵀg, biases in a single Σg. Autodiff also keeps every value that a
step's pointwise operations multiply by, each in an array of its own; here one array holds what
cannot be made anew cheaply.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from tds_jax.nn.linear import add_bias, matrix_gradient
from tds_jax.nn.precision import at_least_f32

# A step of 512 there and back, counted: 23 kernels with 1, 20.6 with 2, 17.7 with 5.
STEPS_OF_A_TURN = 5

Matrices = dict[str, tuple[jax.Array, ...]]
"""By name: (K1, M), (K2, M) ..., each multiplied by an input of its own, the results summed.

A last one of (M,) is a bias, added to that.
"""


class Product(Protocol):
    """(name, x1 (..., K1), x2 (..., K2) ...) -> Σ xi @ matrices[name][i] + bias, in their dtype."""

    def __call__(self, name: str, *inputs: jax.Array) -> jax.Array: ...


Step = Callable[[Product, Any, Any], tuple[Any, Any]]


class Joined(NamedTuple):
    """Matrices of one name below each other (ΣKi, M), and their transpose for the way back.

    On CPU a thin product with the latter takes a third of one with the former read across.
    """

    matrix: jax.Array
    transposed: jax.Array
    bias: jax.Array | None


def join(matrices: Matrices) -> dict[str, Joined]:
    """What `scan` takes; outside of a loop over chunks, so that it is done once."""
    return {name: _joined(*_parted(parts)) for name, parts in matrices.items()}


def _parted(parts: tuple[jax.Array, ...]) -> tuple[tuple[jax.Array, ...], jax.Array | None]:
    return (parts[:-1], parts[-1]) if parts[-1].ndim == 1 else (parts, None)


def _joined(parts: tuple[jax.Array, ...], bias: jax.Array | None) -> Joined:
    matrix = jnp.concatenate(parts)
    return Joined(matrix, jax.lax.stop_gradient(matrix).T, bias)


def direct(matrices: Matrices) -> Product:
    """The product for single steps: nothing joined, nothing kept."""

    def product(name: str, *inputs: jax.Array) -> jax.Array:
        kernels, bias = _parted(matrices[name])
        pairs = zip(inputs, kernels, strict=True)
        result = functools.reduce(operator.add, (x.astype(w.dtype) @ w for x, w in pairs))
        return _shifted(result, bias)

    return product


def _shifted(x: jax.Array, bias: jax.Array | None) -> jax.Array:
    return x if bias is None else add_bias(x, bias)


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
        matrix, _, bias = matrices[name]
        results[name] = _shifted(_concatenate(inputs, matrix.dtype) @ matrix, bias)
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
        matrix, transposed, _ = matrices[name]
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


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("arrays",),
    meta_fields=("structure", "places"),
)
@dataclasses.dataclass(frozen=True)
class Packed:
    """A tree whose leaves stand side by side in as few arrays as types and leading axes allow.

    A loop on a card writes each array that it stacks by a kernel of its own. places: of every leaf,
    its array, and where in its last axis it begins and ends; no end: a leaf without axes.
    """

    arrays: tuple[jax.Array, ...]
    structure: Any
    places: tuple[tuple[int, int, int | None], ...]

    @property
    def tree(self) -> Any:
        """The tree; its leaves have the axes that the arrays have got since, in front."""
        leaves = [
            self.arrays[n][..., start] if end is None else self.arrays[n][..., start:end]
            for n, start, end in self.places
        ]
        return jax.tree.unflatten(self.structure, leaves)


def pack(tree: Any, *, distinct: bool) -> Packed:
    """The tree packed; distinct: what stands in it more than once is packed once."""
    leaves, structure = jax.tree.flatten(tree)
    groups: dict[Any, list[jax.Array]] = {}
    places: dict[Any, tuple[Any, int, int | None]] = {}
    names = [id(leaf) if distinct else n for n, leaf in enumerate(leaves)]
    for name, leaf in zip(names, leaves, strict=True):
        if name in places:
            continue
        wide = jnp.atleast_1d(leaf)
        kind = wide.shape[:-1], wide.dtype
        group = groups.setdefault(kind, [])
        start = sum(member.shape[-1] for member in group)
        places[name] = kind, start, start + wide.shape[-1] if leaf.ndim else None
        group.append(wide)
    numbers = {kind: n for n, kind in enumerate(groups)}
    arrays = tuple(jnp.concatenate(group, axis=-1) for group in groups.values())
    found = (places[name] for name in names)
    return Packed(arrays, structure, tuple((numbers[kind], a, b) for kind, a, b in found))


def _make(
    forth: Callable[..., Any], back: Callable[..., Any], results: dict[str, jax.Array]
) -> Callable[..., Any]:
    """The scan as a function of arrays; results: zeros of the shapes of one step's products."""

    @jax.custom_vjp
    def run(matrices: dict[str, Joined], seen: Any, seen_again: Any, init: Any, xs: Any) -> Any:
        def one(carry: Any, x: Any) -> tuple[Any, Any]:
            return forth(matrices, carry, x, *seen)[0]

        return _loop(one, init, xs)

    def forward(
        matrices: dict[str, Joined], seen: Any, seen_again: Any, init: Any, xs: Any
    ) -> tuple[Any, Any]:
        def one(carry: Any, x: Any) -> tuple[Any, Packed]:
            (after, y), made = forth(matrices, carry, x, *seen)
            # What it ends with, not what it begins with: that is overwritten.
            return after, pack((after, made, y), distinct=True)

        carry, kept = _loop(one, init, xs)
        return (carry, kept.tree[2]), (matrices, seen_again, init, xs, kept)

    def backward(saved: Any, cotangents: Any) -> tuple[Any, ...]:
        matrices, seen, init, xs, kept = saved
        ends, moved = _Floats(init), _Floats(xs)

        def one(carried: Any, now: Any) -> tuple[Any, Packed]:
            (d_after, d_seen), (n, x, d_y) = carried, now
            _, made, _ = _row(kept, n).tree
            ended, _, _ = _row(kept, jnp.maximum(n - 1, 0)).tree
            before = jax.tree.map(lambda first, other: jnp.where(n > 0, other, first), init, ended)

            def step(seen: Any, before_: Any, x_: Any, taps: Any) -> tuple[Any, Any]:
                carry, now = ends.put(before, before_), moved.put(x, x_)
                (after, y), inputs = back(matrices, taps, made, carry, now, *seen)
                return (ends.of(after), y), inputs

            floats = ends.of(before), moved.of(x)
            _, pull, inputs = jax.vjp(step, seen, *floats, results, has_aux=True)
            more, d_before, d_x, d_results = pull((d_after.tree, d_y))
            d_seen = jax.tree.map(jnp.add, d_seen, more)
            carried = pack(d_before, distinct=False), d_seen
            return carried, pack((d_x, inputs, d_results), distinct=True)

        numbers = jnp.arange(len(jax.tree.leaves(xs)[0]))
        start = pack(ends.of(cotangents[0]), distinct=False), jax.tree.map(jnp.zeros_like, seen)
        (d_init, d_seen), packed = _loop(one, start, (numbers, xs, cotangents[1]), reverse=True)
        d_xs, inputs, d_results = packed.tree
        found = {n: _gradient(matrices[n], inputs[n], d_results[n]) for n in results}
        return found, None, d_seen, ends.alone(d_init.tree), moved.alone(d_xs)

    run.defvjp(forward, backward)
    return run


def _loop(
    step: Callable[[Any, Any], tuple[Any, Any]], init: Any, xs: Any, *, reverse: bool = False
) -> tuple[Any, Any]:
    """`jax.lax.scan`. On a card several steps make a turn: a turn's count and its writing of what
    is stacked are kernels of their own. A number that divides the steps, so that none is left over.
    """
    steps = len(jax.tree.leaves(xs)[0])
    whole = max(n for n in range(1, STEPS_OF_A_TURN + 1) if steps % n == 0)

    def scan(turn: int) -> Callable[[Any, Any], tuple[Any, Any]]:
        return functools.partial(jax.lax.scan, step, reverse=reverse, unroll=turn)

    return jax.lax.platform_dependent(init, xs, cuda=scan(whole), default=scan(1))


def _row(kept: Packed, n: jax.Array) -> Packed:
    return jax.tree.map(lambda array: array[n], kept)


def _gradient(joined: Joined, x: jax.Array, g: jax.Array) -> Joined:
    """Of a product's matrix and bias: x (N, ..., K), g (N, ..., M)."""
    nothing: Any = None  # for the transpose
    bias = None if joined.bias is None else g.sum(range(g.ndim - 1), at_least_f32(g.dtype))
    return Joined(matrix_gradient(x, g), nothing, bias)


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
