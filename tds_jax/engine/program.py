"""Everything that is compiled for one run: initialisation, training step, evaluation, flush."""

import dataclasses
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from tds_jax.budget import heap, memory
from tds_jax.config import Config
from tds_jax.engine import metrics, optim, sharding, step
from tds_jax.engine.step import Batch, TrainState
from tds_jax.tasks import Task

# Compiling the draw of a weight takes 0.25 s of CPU each, like this 0.05 s; a U-Net has 200.
RUNS_ONCE = {"xla_backend_optimization_level": 0}


def make_init(task: Task, config: Config) -> Callable[[jax.Array], TrainState]:
    """key -> fresh TrainState for this task and config."""
    optimizer = optim.make_optimizer(config.optim)
    return step.make_init(
        task.init, optimizer, task.loss, task.batch_spec(config.optim.micro_batch)
    )


def trace_step(task: Task, config: Config, mesh: Mesh) -> jax.stages.Traced:
    """The training step on shapes alone: `.jaxpr` to look at, `.lower().compile()` to run."""
    shapes = jax.eval_shape(make_init(task, config), jax.random.key(config.seed))
    train_step = step.make_train_step(
        step.graphdef_of(task.init), optim.make_optimizer(config.optim), task.loss
    )
    spec = task.batch_spec(config.optim.micro_batch)
    return train_step.trace(sharding.abstract(shapes, mesh), sharding.abstract_batch(spec, mesh))


def trace_evaluation(task: Task, config: Config, mesh: Mesh) -> jax.stages.Traced:
    """The evaluation step on shapes alone."""
    shapes = jax.eval_shape(make_init(task, config), jax.random.key(config.seed))
    state = sharding.abstract(shapes, mesh)
    eval_step = step.make_eval_step(step.graphdef_of(task.init), task.loss)
    spec = task.batch_spec(sharding.rounded_up(config.eval.batch_size, mesh), train=False)
    return eval_step.trace(state.params, state.rest, sharding.abstract_batch(spec, mesh))


class Program:
    """The compiled side of a run on all devices; holds no state that training changes.

    train_step(state, batch) -> (state, objective), compiled ahead of time, the old state donated.
    predicted: its bytes on each device. compile_seconds: how long that took.
    """

    def __init__(self, task: Task, config: Config) -> None:
        self.mesh = sharding.make_mesh(config.optim.micro_batch)
        self._key = jax.random.key(config.seed)
        self._spec = task.batch_spec(config.optim.micro_batch)
        optimizer = optim.make_optimizer(config.optim)
        init = make_init(task, config)
        shapes = jax.eval_shape(init, self._key)
        self.abstract_state = sharding.abstract(shapes, self.mesh)
        self._init = jax.jit(
            init,
            out_shardings=sharding.shardings_for(shapes, self.mesh),
            compiler_options=RUNS_ONCE,
        )
        graphdef = step.graphdef_of(task.init)
        heap.trim()  # whatever reading the index has left: compiling is the host's peak
        started = time.perf_counter()
        self.train_step = trace_step(task, config, self.mesh).lower().compile()
        self.compile_seconds = time.perf_counter() - started
        self.predicted = memory.predict(self.train_step)
        heap.trim()
        self.gauges = jax.jit(_make_gauges(optim.make_schedule(config.optim)))
        self._eval_step = step.make_eval_step(graphdef, task.loss)
        self._flush = jax.jit(_make_flush(optimizer), donate_argnums=(0, 1, 2))

    def metric_names(self) -> tuple[str, ...]:
        """What `evaluate` will return; traced, not run."""
        state = self.abstract_state
        shapes = jax.eval_shape(self._eval_step, state.params, state.rest, self._spec)
        return tuple(metrics.compute(jax.tree.map(lambda s: np.zeros(s.shape), shapes)))

    def fresh(self, statistics: dict[str, Any]) -> TrainState:
        """A new state on the mesh, its `rest` filled with the train split's statistics."""
        state = self._init(self._key)
        rest = step.replace_leaves(state.rest, statistics)
        rest = jax.device_put(rest, sharding.shardings_for(rest, self.mesh))
        return dataclasses.replace(state, rest=rest)

    def flush(self, state: TrainState) -> TrainState:
        """The state after a partly filled accumulation window is applied with its true weight."""
        params, opt_state, ema = self._flush(state.opt_state, state.params, state.ema)
        return dataclasses.replace(state, params=params, opt_state=opt_state, ema=ema)

    def evaluate(self, state: TrainState, batches: Iterable[Batch]) -> dict[str, float]:
        """Values over all batches, merged on the host in float64."""
        states = (self._eval_step(state.weights, state.rest, batch) for batch in batches)
        return metrics.compute(metrics.merge_all(states))


def _make_flush(optimizer: optim.Optimizer) -> Any:
    def flush(opt_state: Any, params: Any, ema: Any) -> tuple[Any, Any, Any]:
        params, after = optimizer.flush(opt_state, params)
        return params, after, optimizer.average(ema, params, after, opt_state)

    return flush


def _make_gauges(schedule: optax.Schedule) -> Any:
    def gauges(state: TrainState) -> dict[str, jax.Array]:
        updates = state.opt_state.gradient_step
        return {
            "updates": updates,
            "learning_rate": jnp.asarray(schedule(jnp.maximum(updates - 1, 0)), jnp.float32),
            "grad_norm": state.opt_state.inner_opt_state.grad_norm,
            "param_norm": optax.tree.norm(state.params),
            "skipped": state.skipped,
        }

    return gauges
