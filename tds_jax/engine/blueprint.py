"""What a run compiles, known from shapes alone; shared by program and planner."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from tds_jax.config import Config, OptimConfig
from tds_jax.engine import optim, sharding, step
from tds_jax.engine.step import Batch, TrainState
from tds_jax.tasks import Task


class StateBytes(NamedTuple):
    """Of one device: parameters (and their averages), the optimizer's moments, sums of gradients,
    other variables and metrics; and what evaluating fetches of parameters that are split."""

    parameters: int
    optimizer: int
    accumulator: int
    other: int
    fetched: int

    @property
    def held(self) -> int:
        """Between steps."""
        return self.parameters + self.optimizer + self.accumulator + self.other

    @property
    def held_evaluating(self) -> int:
        """While an evaluation lasts."""
        return self.held + self.fetched


def remembered(task: Task) -> Callable[[Config], "Blueprint"]:
    """Config -> blueprint, each made once; the model is traced once for all splits of the batch."""
    first: dict[Config, Blueprint] = {}

    @functools.cache
    def build(config: Config) -> Blueprint:
        whole = dataclasses.replace(config.optim, accumulate=1)
        alone = dataclasses.replace(config.eval, batch_size=1)
        family = dataclasses.replace(config, optim=whole, eval=alone)
        made = Blueprint(task.under(config), config)
        return made.sharing(first.setdefault(family, made))

    return build


class Blueprint:
    """A task under a config, and all that follows from the two before anything is allocated.

    The model and its loss are traced once each: jax.jit remembers a trace, so that init, shapes,
    the training step and the planner's question about it share one.
    """

    def __init__(self, task: Task, config: Config) -> None:
        self.task, self.config = task, config
        self.optimizer = optim.make_optimizer(config.optim)
        self.spec = task.batch_spec(config.optim.micro_batch)
        self.call_spec = sharding.stacked(self.spec, config.micro_batches_per_call)
        self.key = jax.random.key(config.seed)
        self._draw = jax.jit(lambda key: step.split(task.init(nnx.Rngs(key))))

    @functools.cached_property
    def _drawn(self) -> tuple[nnx.GraphDef, dict[str, Any], dict[str, Any]]:
        return jax.eval_shape(self._draw, self.key)

    @property
    def graphdef(self) -> nnx.GraphDef:
        """The static part of the model."""
        return self._drawn[0]

    @functools.cached_property
    def _total(self) -> step.Total:
        return step.make_total(self.graphdef, self.task.loss)

    @functools.cached_property
    def _window(self) -> dict[str, Any]:
        mesh = sharding.all_devices()  # a trace on no mesh is not one on this
        params, rest = (sharding.abstract(tree, mesh) for tree in self._drawn[1:])
        batch = sharding.abstract_batch(self.spec, mesh)
        _, (_, states, _) = jax.eval_shape(self._total, params, rest, batch)
        return states

    def sharing(self, other: "Blueprint") -> "Blueprint":
        """This one, with what another of the same model knows of that, whatever its batch."""
        self._draw = other._draw
        self.__dict__ |= {"_drawn": other._drawn, "_window": other._window}
        return self

    def init(self, key: jax.Array) -> TrainState:
        """A fresh state; pure, so it can be traced for shapes or jitted with shardings."""
        _, params, rest = self._draw(key)
        return TrainState(
            params=params,
            rest=rest,
            opt_state=self.optimizer.init(params),
            window=jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), self._window),
            skipped=jnp.zeros((), jnp.int32),
            ema=jax.tree.map(jnp.copy, params) if self.optimizer.ema_decay else {},
        )

    @functools.cached_property
    def shapes(self) -> TrainState:
        """ShapeDtypeStructs of the state."""
        return jax.eval_shape(self.init, self.key)

    def shapes_under(self, optim_config: OptimConfig) -> TrainState:
        """`shapes` of a run whose optimizer was another's, as a checkpoint may hold them."""
        other = optim.make_optimizer(optim_config)
        opt_state = jax.eval_shape(other.init, self.shapes.params)
        return dataclasses.replace(self.shapes, opt_state=opt_state)

    @functools.cached_property
    def train_step(self) -> jax.stages.Wrapped:
        """(state, batch of `call_spec`) -> (state, objective), jitted, the old state donated."""
        several = self.config.micro_batches_per_call > 1
        make = step.make_update_step if several else step.make_train_step
        return make(self._total, self.optimizer)

    @functools.cached_property
    def eval_step(self) -> jax.stages.Wrapped:
        """(params, rest, batch) -> metric states, jitted."""
        return step.make_eval_step(self.graphdef, self.task.loss)

    def eval_spec(self, mesh: Mesh) -> Batch:
        """Shapes and types of a batch of evaluation on all devices."""
        size = sharding.rounded_up(self.config.eval.batch_size, mesh)
        return self.task.batch_spec(size, train=False)

    def shardings(self, mesh: Mesh, state: TrainState | None = None) -> TrainState:
        """Of every leaf of the state, or of one of other shapes."""
        state, split = state or self.shapes, self.config.memory.shard == "fsdp"
        whole = sharding.shardings_for(state, mesh)
        params, opt_state, ema = (
            sharding.shardings_for(tree, mesh, split)
            for tree in (state.params, state.opt_state, state.ema)
        )
        return dataclasses.replace(whole, params=params, opt_state=opt_state, ema=ema)

    def state_bytes(self, mesh: Mesh) -> "StateBytes":
        """What one device holds of the state between steps."""
        state, places = self.shapes, self.shardings(mesh)
        params, rest, opt_state, window, ema = (
            sharding.bytes_on_each(getattr(state, name), getattr(places, name))
            for name in ("params", "rest", "opt_state", "window", "ema")
        )
        sums = 0
        if self.config.optim.accumulate > 1:
            sums = sharding.bytes_on_each(state.opt_state.acc_grads, places.opt_state.acc_grads)
        whole = sharding.shardings_for(state.weights, mesh)
        fetched = sharding.bytes_on_each(state.weights, whole) - (ema or params)
        other = rest + window + state.skipped.dtype.itemsize
        return StateBytes(params + ema, opt_state - sums, sums, other, fetched)

    def abstract_state(self, mesh: Mesh, state: TrainState | None = None) -> TrainState:
        """The state's shapes, or those of one of other shapes, with `shardings`."""
        return sharding.abstract(state or self.shapes, mesh, self.shardings(mesh, state))

    def trace_step(self, mesh: Mesh) -> jax.stages.Traced:
        """The training step: `.jaxpr` to look at, `.lower().compile()` to run."""
        state = self.abstract_state(mesh)
        several = self.config.micro_batches_per_call > 1
        batch = sharding.abstract_batch(self.call_spec, mesh, several)
        return self._on_several(mesh).trace(state, batch)

    def _on_several(self, mesh: Mesh) -> jax.stages.Wrapped:
        """`train_step` whose state stays where it is; of one device there is nothing to say."""
        if mesh.size == 1:
            return self.train_step
        total, whole = self._total, sharding.replicated(mesh)

        def gathered(params: dict[str, Any], rest: dict[str, Any], batch: Batch) -> Any:
            return total(jax.lax.with_sharding_constraint(params, whole), rest, batch)

        several = self.config.micro_batches_per_call > 1
        make = step.make_update_step if several else step.make_train_step
        split = self.config.memory.shard == "fsdp"
        return make(gathered if split else total, self.optimizer, (self.shardings(mesh), whole))

    def trace_evaluation(self, mesh: Mesh) -> jax.stages.Traced:
        """The evaluation step."""
        # Whole on every device for as long as an evaluation lasts, however they are kept.
        state = sharding.abstract(self.shapes, mesh)
        spec = sharding.abstract_batch(self.eval_spec(mesh), mesh)
        return self.eval_step.trace(state.params, state.rest, spec)
