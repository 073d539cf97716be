"""Everything that is compiled for one run: initialisation, training step, evaluation, flush."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tds_jax.budget import heap, memory, needs
from tds_jax.data.pipeline import Source
from tds_jax.engine import evaluation, metrics, optim, sharding, step
from tds_jax.engine.blueprint import Blueprint
from tds_jax.engine.feed import DEVICE_PREFETCH
from tds_jax.engine.step import Batch, TrainState

# Compiling the draw of a weight takes 0.25 s of CPU each, like this 0.05 s; a U-Net has 200.
RUNS_ONCE = {"xla_backend_optimization_level": 0}


class Program:
    """The compiled side of a run on all devices; holds no state that training changes.

    train_step(state, batch) -> (state, objective), compiled ahead of time, the old state donated.
    predicted: its bytes on each device. compile_seconds: how long that took. device: what was
    measured there. evaluation: bytes of its program; None before the first.
    """

    def __init__(self, blueprint: Blueprint) -> None:
        self.blueprint, config = blueprint, blueprint.config
        self.device = memory.DeviceMeter()
        self.evaluation: memory.DeviceBytes | None = None
        self.mesh = sharding.make_mesh(config.optim.micro_batch)
        self.abstract_state = blueprint.abstract_state(self.mesh)
        self._init = jax.jit(
            blueprint.init,
            out_shardings=blueprint.shardings(self.mesh),
            compiler_options=RUNS_ONCE,
        )
        heap.trim()  # whatever reading the index has left: compiling is the host's peak
        traced = blueprint.trace_step(self.mesh)
        started = time.perf_counter()
        self.train_step = traced.lower().compile()
        self.compile_seconds = time.perf_counter() - started
        self.predicted = memory.predict(self.train_step)
        heap.trim()
        self.device.note(memory.COMPILING)
        self.gauges = jax.jit(_make_gauges(optim.make_schedule(config.optim)))
        window = blueprint.shapes.window
        self.emptied = jax.jit(
            lambda window: jax.tree.map(jnp.zeros_like, window),
            out_shardings=sharding.shardings_for(window, self.mesh),
        )

    @functools.cached_property
    def eval_step(self) -> jax.stages.Compiled:
        """(params, rest, batch) -> metric states, compiled when first asked for."""
        self.device.note(memory.STEPPING)
        compiled = self.blueprint.trace_evaluation(self.mesh).lower().compile()
        self.evaluation = memory.predict(compiled)
        self.device.note(memory.COMPILING)
        return compiled

    def _evaluating(self, batch: Batch) -> Callable[..., dict[str, Any]]:
        """`eval_step`, or one of the batch's own shapes: recordings may be shorter than windows."""
        spec = self.blueprint.eval_spec(self.mesh)
        fits = jax.tree.map(jnp.shape, batch) == jax.tree.map(lambda leaf: leaf.shape, spec)
        return self.eval_step if fits else self.blueprint.eval_step

    def needs(self) -> dict[str, int]:
        """Predicted device bytes of stepping, and of evaluating once that has been done: with all
        that stays on the device meanwhile, and the batches that wait."""
        made = self.blueprint
        waiting = DEVICE_PREFETCH * needs.tree_bytes(made.call_spec) // self.mesh.size
        found = {memory.STEPPING: self.predicted.total + waiting}
        if self.evaluation:
            held = made.state_bytes(self.mesh).held_evaluating + waiting
            batch = needs.tree_bytes(made.eval_spec(self.mesh)) // self.mesh.size
            found[memory.EVALUATING] = needs.evaluating(self.evaluation, held, batch)
        return found

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
        self.device.note(memory.BEGINNING)
        return dataclasses.replace(state, rest=rest)

    def evaluate(self, state: TrainState, source: Source) -> dict[str, float]:
        """Values over all examples of a source, merged on the host in float64."""

        self.device.note(memory.STEPPING)

        weights = state.weights
        if self.blueprint.config.memory.shard != "none":
            weights = sharding.everywhere(weights, self.mesh)

        def run(batch: Batch) -> dict[str, Any]:
            return self._evaluating(batch)(weights, state.rest, batch)

        config = self.blueprint.config
        states = (found for _, found in evaluation.over(source, run, config, self.mesh, False))
        values = metrics.compute(metrics.merge_all(states))
        self.device.note(memory.EVALUATING)
        return values


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
