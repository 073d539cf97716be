"""The functional training step: graphdef static, everything else a pytree of arrays.

Modules are only how a network is written. The step sees `params` and `rest` as pure dicts and
uses nothing but jax.jit and jax.value_and_grad, so it means the same under Flax's graph and tree
modes. The state is donated: its buffers are reused for the next one.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tds_jax.engine import metrics
from tds_jax.engine.optim import Optimizer, Sums, finite, select

Batch = dict[str, jax.Array]


def batch_spec(
    examples: int, leaves: Mapping[str, tuple[tuple[int, ...], Any]]
) -> dict[str, jax.ShapeDtypeStruct]:
    """A Loader's batch of a source whose examples have these leaves: name -> (shape, dtype)."""
    loader = {"example": ((), jnp.int32), "key": ((2,), jnp.uint32)}
    return {
        name: jax.ShapeDtypeStruct((examples, *shape), dtype)
        for name, (shape, dtype) in {**leaves, **loader}.items()
    }


class Objective(NamedTuple):
    """Σ weight·loss and Σ weight of a batch; the loss is their ratio, taken over whole batches."""

    sum: jax.Array
    weight: jax.Array


class LossFn(Protocol):
    """(model, batch, train) -> objective and metric states."""

    def __call__(
        self, model: nnx.Module, batch: Batch, train: bool
    ) -> tuple[Objective, dict[str, Any]]: ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything a step changes.

    params, rest: pure dicts with string keys; rest is every Variable that is not a Param.
    ema: the moving average of params over the updates, {} when optim.ema_decay is 0.
    window: metric states since the last log line, so that a line never depends on interruptions.
    skipped: () int32, micro-batches left out because their gradient was not finite.
    """

    params: dict[str, Any]
    rest: dict[str, Any]
    opt_state: Any
    window: dict[str, Any]
    skipped: jax.Array
    ema: dict[str, Any]

    @property
    def weights(self) -> dict[str, Any]:
        """The parameters that are evaluated and used: averaged ones if there are any."""
        return self.ema or self.params


def split(model: nnx.Module) -> tuple[nnx.GraphDef, dict[str, Any], dict[str, Any]]:
    """(graphdef, params, rest) of a module, the latter two as pure dicts."""
    graphdef, state = nnx.split(model)
    params, rest = nnx.split_state(state, nnx.Param, ...)
    return graphdef, nnx.to_pure_dict(params), nnx.to_pure_dict(rest)


def _with_loss(objective: Objective, states: dict[str, Any]) -> dict[str, Any]:
    return {"loss": metrics.Mean(objective.sum, objective.weight)} | states


def compiled(model: nnx.Module, run: Callable[..., Any]) -> Callable[..., Any]:
    """inputs -> run(model, *inputs), compiled once per shape; the model stays as it is."""
    graphdef, state = nnx.split(model)
    jitted = jax.jit(lambda state, *inputs: run(nnx.merge(graphdef, state), *inputs))
    return functools.partial(jitted, state)


Total = Callable[..., tuple[jax.Array, tuple[Objective, dict[str, Any], dict[str, Any]]]]
"""(params, rest, batch) -> Σ weight·loss, and (objective, metric states, rest after the pass)."""


def make_total(graphdef: nnx.GraphDef, loss_fn: LossFn) -> Total:
    """What is differentiated, jitted so that its trace is kept."""

    def total(params: dict[str, Any], rest: dict[str, Any], batch: Batch) -> Any:
        # Pure dicts become fresh Variables at this trace level, so `rest` may be mutated.
        model = nnx.merge(graphdef, params, rest)
        objective, states = loss_fn(model, batch, train=True)
        _, _, rest = split(model)
        return objective.sum, (objective, _with_loss(objective, states), rest)

    return jax.jit(total, inline=True)


def make_train_step(
    total: Total, optimizer: Optimizer, out_shardings: Any = None
) -> jax.stages.Wrapped:
    """(state, micro-batch) -> (state, objective), jitted, the old state donated.

    out_shardings: of both; None where the devices leave no choice.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Objective]:
        differentiated = jax.value_and_grad(total, has_aux=True)
        (_, (objective, states, rest)), grad = differentiated(state.params, state.rest, batch)
        sums = Sums(optimizer.learnt(grad), objective.weight)
        with jax.named_scope("optimizer"):
            params, opt_state = optimizer.update(sums, state.opt_state, state.params)
        skip = opt_state.skip_state["should_skip"]
        # A skipped micro-batch leaves no trace: neither in the statistics nor in the log.
        window = select(skip, state.window, metrics.merge(state.window, states))
        rest = _unless(skip, state.rest, rest)
        skipped = state.skipped + skip.astype(jnp.int32)
        ema = optimizer.average(state.ema, params, opt_state, state.opt_state)
        return TrainState(params, rest, opt_state, window, skipped, ema), objective

    return jax.jit(train_step, donate_argnums=0, out_shardings=out_shardings)


def make_update_step(
    total: Total, optimizer: Optimizer, out_shardings: Any = None
) -> jax.stages.Wrapped:
    """(state, all micro-batches of an update) -> (state, objectives), as `make_train_step`.

    Leaves of the batch are (K, B, ...), of the objectives (K,). The micro-batches' gradients are
    added in their order, as they are when each has a call of its own; the optimizer, the averages
    and the metrics of the window move once. Where an update was begun in an earlier run, the
    micro-batches that its sums hold already are passed over.
    """

    def update_step(state: TrainState, batch: Batch) -> tuple[TrainState, Objective]:
        differentiated = jax.value_and_grad(total, has_aux=True)
        begun = state.opt_state.mini_step

        def add(carry: Any, one: tuple[jax.Array, Batch]) -> tuple[Any, Any]:
            (sums, rest, skipped), (number, part) = carry, one
            (_, (objective, states, after)), grad = differentiated(state.params, rest, part)
            good, found, _ = finite(Sums(optimizer.learnt(grad), objective.weight))
            due = number >= begun
            counts = good & due
            sums = select(due, jax.tree.map(jnp.add, sums, found), sums)
            states = jax.tree.map(lambda s: jnp.where(counts, s, 0), states)
            skipped = skipped + (due & ~good).astype(jnp.int32)
            rest = select(due, _unless(~good, rest, after), rest)
            return (sums, rest, skipped), (objective, states)

        numbers = jnp.arange(len(jax.tree.leaves(batch)[0]), dtype=begun.dtype)
        carry = state.opt_state.acc_grads, state.rest, state.skipped
        (sums, rest, skipped), (objectives, states) = jax.lax.scan(add, carry, (numbers, batch))
        with jax.named_scope("optimizer"):
            params, opt_state = optimizer.close(sums, state.opt_state, state.params)
        window = metrics.merge(state.window, metrics.pool(states))
        ema = optimizer.average(state.ema, params, opt_state, state.opt_state)
        return TrainState(params, rest, opt_state, window, skipped, ema), objectives

    return jax.jit(update_step, donate_argnums=0, out_shardings=out_shardings)


def _unless(skip: jax.Array, before: Any, after: Any) -> Any:
    """Variables after a micro-batch, or before it if it is skipped; but whole numbers count what
    was drawn, and go on: what ends with the update must not end later for it."""
    return jax.tree.map(
        lambda a, b: jnp.where(skip, b, a) if jnp.issubdtype(a.dtype, jnp.inexact) else a,
        after,
        before,
    )


def make_eval_step(graphdef: nnx.GraphDef, loss_fn: LossFn) -> jax.stages.Wrapped:
    """(params, rest, batch) -> metric states, jitted."""

    def eval_step(params: dict[str, Any], rest: dict[str, Any], batch: Batch) -> dict[str, Any]:
        model = nnx.merge(graphdef, params, rest)
        return _with_loss(*loss_fn(model, batch, train=False))

    return jax.jit(eval_step)


def replace_leaves(tree: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """`tree` with the leaves of a nested dict `values` put in their places (same shapes)."""
    result = dict(tree)
    for name, value in values.items():
        old = tree[name]
        if isinstance(value, dict):
            result[name] = replace_leaves(old, value)
        else:
            assert old.shape == value.shape, (name, old.shape, value.shape)
            result[name] = jnp.asarray(value, old.dtype)
    return result


def placed(tree: dict[str, Any], like: dict[str, Any]) -> dict[str, Any]:
    """A tree where the leaves of another are, those that it has of that one as they are."""

    def put(new: Any, old: jax.Array) -> jax.Array:
        # What stays may lie on several hosts, where none of them has all of it.
        return old if new is old else jax.device_put(np.asarray(new), old.sharding)

    return jax.tree.map(put, tree, like)


def beginning_with(state: TrainState, params: dict[str, Any]) -> TrainState:
    """A state before its first update with other parameters, placed as its own are."""
    params = placed(params, state.params)
    ema = jax.tree.map(jnp.copy, params) if state.ema else {}
    return dataclasses.replace(state, params=params, ema=ema)
