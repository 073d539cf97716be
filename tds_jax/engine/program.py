"""Everything that is compiled for one run: initialisation, training step, evaluation, flush."""

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tds_jax.budget import heap, memory
from tds_jax.data.pipeline import Source
from tds_jax.engine import evaluation, metrics, optim, sharding, step
from tds_jax.engine.blueprint import Blueprint
from tds_jax.engine.step import Batch, TrainState

# Compiling the draw of a weight takes 0.25 s of CPU each, like this 0.05 s; a U-Net has 200.
RUNS_ONCE = {"xla_backend_optimization_level": 0}


class Program:
    """The compiled side of a run on all devices; holds no state that training changes.

    train_step(state, batch) -> (state, objective), compiled ahead of time, the old state donated.
    predicted: its bytes on each device. compile_seconds: how long that took.
    """

    def __init__(self, blueprint: Blueprint) -> None:
        self.blueprint, config = blueprint, blueprint.config
        self.mesh = sharding.make_mesh(config.optim.micro_batch)
        self.abstract_state = sharding.abstract(blueprint.shapes, self.mesh)
        self._init = jax.jit(
            blueprint.init,
            out_shardings=sharding.shardings_for(blueprint.shapes, self.mesh),
            compiler_options=RUNS_ONCE,
        )
        heap.trim()  # whatever reading the index has left: compiling is the host's peak
        traced = blueprint.trace_step(self.mesh)
        started = time.perf_counter()
        self.train_step = traced.lower().compile()
        self.compile_seconds = time.perf_counter() - started
        self.predicted = memory.predict(self.train_step)
        heap.trim()
        self.gauges = jax.jit(_make_gauges(optim.make_schedule(config.optim)))
        window = blueprint.shapes.window
        self.emptied = jax.jit(
            lambda window: jax.tree.map(jnp.zeros_like, window),
            out_shardings=sharding.shardings_for(window, self.mesh),
        )
        self._eval_step = blueprint.eval_step

    def metric_names(self) -> tuple[str, ...]:
        """What `evaluate` will return; traced, not run."""
        traced = self.blueprint.trace_evaluation(self.mesh)
        states = jax.tree.map(lambda s: np.zeros(s.shape), traced.out_info)
        return tuple(metrics.compute(states))

    def fresh(self, statistics: dict[str, Any]) -> TrainState:
        """A new state on the mesh, its `rest` filled with the train split's statistics."""
        state = self._init(self.blueprint.key)
        rest = step.replace_leaves(state.rest, statistics)
        rest = jax.device_put(rest, sharding.shardings_for(rest, self.mesh))
        return dataclasses.replace(state, rest=rest)

    def evaluate(self, state: TrainState, source: Source) -> dict[str, float]:
        """Values over all examples of a source, merged on the host in float64."""

        def run(batch: Batch) -> dict[str, Any]:
            return self._eval_step(state.weights, state.rest, batch)

        config = self.blueprint.config
        states = (found for _, found in evaluation.over(source, run, config, self.mesh, False))
        return metrics.compute(metrics.merge_all(states))


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
