"""What a run compiles is traced once, however often it is asked for."""

import collections

import jax
import numpy as np

from tds_jax.budget import targets
from tds_jax.budget.planner import Planner
from tds_jax.engine import metrics, sharding
from tds_jax.engine.blueprint import Blueprint
from tds_jax.engine.program import Program
from tests.engine import toy


class Counted(toy.ToyTask):
    """The toy task; `calls` counts what is traced."""

    def __init__(self):
        super().__init__()
        self.calls = collections.Counter()

    def init(self, rngs):
        self.calls["init"] += 1
        return super().init(rngs)

    def loss(self, model, batch, train):
        self.calls["train" if train else "eval"] += 1
        return super().loss(model, batch, train)


def test_a_run_traces_its_model_and_its_loss_once():
    task = Counted()
    program = Program(Blueprint(task, toy.config()))
    program.metric_names()
    state = program.fresh({})
    batch = sharding.put_batch(next(toy.host_batches(task, 2)), program.mesh)
    state, _ = program.train_step(state, batch)
    program.evaluate(state, task.source("val"))
    assert task.calls == {"init": 1, "train": 1, "eval": 1}


def test_a_plan_and_the_run_it_chooses_share_one_trace():
    task, config = Counted(), toy.config(optim__accumulate=1)
    blueprint = Blueprint(task, config)
    planner = Planner(lambda config: blueprint, config, targets.find("here"), lambda words: None)
    planner.needs.measure(config)
    Program(blueprint)
    assert (task.calls["init"], task.calls["train"]) == (1, 1)


def test_the_shapes_are_those_of_a_fresh_state_and_of_its_metrics():
    blueprint = Blueprint(toy.ToyTask(), toy.config())
    program = Program(blueprint)
    state = program.fresh({})
    found, made = (
        jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
        for tree in (blueprint.shapes, state)
    )
    assert found == made
    values = metrics.compute(jax.tree.map(np.asarray, state.window))
    assert set(values) == set(program.metric_names())


def test_shapes_of_a_run_with_another_split_differ_in_its_optimizer_alone():
    one, four = (Blueprint(toy.ToyTask(), toy.config(optim__accumulate=k)) for k in (1, 4))
    assert one.shapes.opt_state != four.shapes.opt_state
    assert one.shapes_under(four.config.optim) == four.shapes
