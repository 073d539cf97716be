"""What is compiled does what the run says it does."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tds_jax.budget import needs
from tds_jax.engine import sharding
from tds_jax.engine.blueprint import Blueprint
from tds_jax.engine.program import Program
from tds_jax.nn.normalizer import Normalizer
from tests.engine import toy


class Scaled(toy.Net):
    """The toy network behind statistics of its inputs."""

    def __init__(self, rngs):
        super().__init__(rngs)
        self.inputs = Normalizer(toy.FEATURES)

    def __call__(self, x):
        return super().__call__(self.inputs(x))


class ScaledTask(toy.ToyTask):
    def init(self, rngs):
        return Scaled(rngs)


def made(task=None, **changes):
    return Program(Blueprint(task or toy.ToyTask(), toy.config(**changes)))


def batches_of(program, size):
    for batch in toy.host_batches(toy.ToyTask(), size):
        yield sharding.put_batch(batch, program.mesh)


def taken(program, count, size):
    """The state after so many micro-batches."""
    state = program.fresh({})
    for batch, _ in zip(batches_of(program, size), range(count), strict=False):
        state, _ = program.train_step(state, batch)
    return state


def test_a_fresh_state_is_the_seeds_and_carries_the_statistics():
    program = made(ScaledTask())
    statistics = {"inputs": {"mean": np.arange(4.0), "scale": np.arange(1.0, 5.0)}}
    state, bare = program.fresh(statistics), program.fresh({})
    np.testing.assert_array_equal(state.rest["inputs"]["mean"], np.arange(4.0))
    np.testing.assert_array_equal(state.rest["inputs"]["scale"], np.arange(1.0, 5.0))
    assert toy.relative(state.params, bare.params) == 0
    assert toy.relative(state.params, made(ScaledTask(), seed=4).fresh({}).params) > 0.1
    for leaf in jax.tree.leaves(state):
        assert leaf.sharding.device_set == set(program.mesh.devices.flat)


def test_a_step_takes_its_state_with_it():
    program = made()
    state = program.fresh({})
    program.train_step(state, next(batches_of(program, 2)))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


def test_names_of_metrics_are_known_before_anything_is_evaluated():
    program = made()
    values = program.evaluate(program.fresh({}), toy.ToyTask().source("val"))
    assert program.metric_names() == tuple(values)


def test_what_is_evaluated_does_not_depend_on_the_batch_or_its_padding():
    """7 examples: in batches of 2, of 4 with one of padding, all at once; f32 sums, 1e-6."""
    source = toy.ToyTask().source("val")
    found = []
    for size in (2, 4, 8):
        program = made(eval__batch_size=size)
        found.append(program.evaluate(program.fresh({}), source))
    for values in found[1:]:
        assert values == pytest.approx(found[0], rel=1e-6)


def test_what_is_evaluated_is_the_average_where_there_is_one():
    program = made(optim__ema_decay=0.5)
    state = program.fresh({})
    zeros = jax.tree.map(jnp.zeros_like, state.params)
    source = toy.ToyTask().source("val")
    moved = program.evaluate(dataclasses.replace(state, ema=zeros), source)
    same = program.evaluate(dataclasses.replace(state, params=zeros), source)
    assert moved["loss"] != pytest.approx(same["loss"], rel=1e-3)
    assert same == program.evaluate(state, source)


def test_predicted_bytes_grow_with_the_batch_on_a_line():
    """Exactly so here; below 128 examples XLA on CPU forms other loops and other temporaries."""
    totals = [
        made(optim__batch_size=n, optim__accumulate=1).predicted.total for n in (128, 256, 384)
    ]
    first, second = np.diff(totals)
    assert first > 0
    assert abs(second - first) < 0.01 * first, totals


def test_gauges_are_those_of_the_last_update():
    program = made(optim__learning_rate=0.1, optim__schedule="constant")
    state = taken(program, 4, 2)
    gauges = program.gauges(state)
    norm = np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(state.params)))
    assert gauges["updates"] == 1
    assert gauges["learning_rate"] == pytest.approx(0.1)
    assert gauges["param_norm"] == pytest.approx(norm, rel=1e-6)
    assert gauges["skipped"] == 0


def test_an_emptied_window_is_zero_and_where_the_step_wants_it():
    program = made()
    state = taken(program, 1, 2)
    emptied = program.emptied(state.window)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(emptied))
    program.train_step(dataclasses.replace(state, window=emptied), next(batches_of(program, 2)))


def test_windows_shorter_than_those_evaluation_was_compiled_for_give_what_they_give_padded():
    """All recordings of a split may be shorter than windows; sums of 100 f32 numbers at most."""
    program, whole = made(), toy.data(7, seed=1)
    rows = toy.TIME // 2
    short = {name: value[:, :rows] for name, value in whole.items()}
    padded = whole | {"weight": np.where(np.arange(toy.TIME) < rows, whole["weight"], 0)}
    state = program.fresh({})
    found, expected = (program.evaluate(state, toy.Examples(v)) for v in (short, padded))
    assert found == pytest.approx(expected, rel=1e-5)
    assert found != pytest.approx(program.evaluate(state, toy.Examples(whole)), rel=1e-2)


def test_predictions_are_of_all_that_is_on_the_device_at_a_time():
    program = made()
    batch = needs.tree_bytes(program.blueprint.call_spec) // program.mesh.size
    assert program.needs() == {"stepping": program.predicted.total + 2 * batch}
    assert program.eval_step  # compiled when asked for
    found, step = program.needs()["evaluating"], program.evaluation
    state = needs.tree_bytes(program.blueprint.shapes)
    examples = needs.tree_bytes(program.blueprint.eval_spec(program.mesh)) // program.mesh.size
    own = step.temporaries + step.scratch + step.outputs
    assert found == state + 2 * batch + 2 * examples + own
