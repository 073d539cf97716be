"""A run within its budgets: the plan is kept, and memory that runs out costs no result."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from tds_jax.budget import giving_way, host, memory, settling
from tds_jax.budget.memory import Exhausted
from tds_jax.config import Config
from tds_jax.engine import loop, workdir
from tds_jax.engine.blueprint import Blueprint
from tds_jax.engine.feed import Feed
from tds_jax.engine.logs import read_lines
from tds_jax.engine.program import Program
from tds_jax.errors import UserError
from tests.engine import toy


def build(config: Config) -> Blueprint:
    return Blueprint(toy.ToyTask(), config)


def final_params(config, folder):
    checkpoints = workdir.open_checkpoints(folder, config)
    mesh = Program(Blueprint(toy.ToyTask(), config)).mesh
    position = checkpoints.latest()
    restored, _ = workdir.restore(checkpoints, position, build(config), mesh)
    checkpoints.close()
    return restored.state.params


@pytest.fixture
def crowded(monkeypatch):
    """A device that runs out of memory above a number of examples, from a step on."""

    def arrange(most, train_from=0, evaluate_most=100):
        original = Program.__init__
        count = {"steps": 0}

        def limited(self, blueprint):
            original(self, blueprint)
            train_step, evaluate = self.train_step, self.eval_step

            def step(state, batch):
                count["steps"] += 1
                if len(batch["x"]) > most and count["steps"] > train_from:
                    jax.tree.map(lambda leaf: leaf.delete(), state)  # as donation does
                    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
                return train_step(state, batch)

            def look(params, rest, batch):
                if len(batch["x"]) > evaluate_most:
                    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
                return evaluate(params, rest, batch)

            self.train_step, self.eval_step = step, look

        monkeypatch.setattr(Program, "__init__", limited)

    return arrange


def run(config, folder):
    """(finished, config at the end, settings given way)."""
    seen = []
    workdir.claim(folder, config, {}, "", {})
    finished, config = giving_way.within_memory(
        lambda c: loop.fit(build(c), folder), config, seen.append
    )
    return finished, config, seen


def test_running_out_of_memory_costs_no_step_of_the_run(crowded, tmp_path):
    config = toy.config(optim__accumulate=1, optim__optimizer="sgd", eval__every=0)
    run(config, tmp_path / "calm")
    crowded(most=4, train_from=3)
    finished, given, seen = run(config, tmp_path / "crowded")
    assert finished.complete
    assert finished.steps == config.optim.steps
    assert [c.optim.accumulate for c in seen] == [2]
    assert given.optim.batch_size == config.optim.batch_size
    expected = final_params(config, tmp_path / "calm")
    found = final_params(given, tmp_path / "crowded")
    # Six SGD updates summed in another order, f32.
    assert toy.relative(found, expected) < 1e-6
    lines = [line["step"] for line in read_lines(tmp_path / "crowded" / "metrics.jsonl")]
    assert lines == sorted(set(lines))


def test_it_gives_way_as_often_as_needed_and_then_says_so(crowded, tmp_path):
    crowded(most=1)
    with pytest.raises(UserError, match=r"ran out of memory with one example at a time"):
        run(toy.config(optim__accumulate=1), tmp_path)


def test_evaluation_gives_way_by_its_own_batch(crowded, tmp_path):
    crowded(most=100, evaluate_most=2)
    finished, given, _ = run(toy.config(), tmp_path)
    assert finished.complete
    assert given.eval.batch_size == 2
    assert given.optim == toy.config().optim


def test_other_errors_of_the_device_are_not_taken_for_it():
    with (
        pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"),
        memory.noticing("optim.accumulate"),
    ):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(2, 4, marks=pytest.mark.long),
        (4, 2),
        (1, 4),
        pytest.param(4, 1, marks=pytest.mark.long),
    ],
)
def test_a_run_may_go_on_with_another_split_of_its_batch(tmp_path, before, after):
    shared = {"optim__optimizer": "sgd", "eval__every": 0, "checkpoint__every": 1}
    whole = toy.config(optim__accumulate=before, **shared)
    run(whole, tmp_path / "whole")
    first = toy.config(optim__accumulate=before, **shared | {"optim__steps": 3})
    run(first, tmp_path / "parts")
    run(toy.config(optim__accumulate=after, **shared), tmp_path / "parts")
    found, expected = (final_params(whole, tmp_path / name) for name in ("parts", "whole"))
    # SGD, f32: only the order of sums differs.
    assert toy.relative(found, expected) < 1e-6


def test_a_plan_is_kept_while_the_question_stays_the_same(tmp_path):
    asked = toy.config(memory__budget="1GiB")
    config, plan = settling.settle(build, asked, tmp_path)
    assert plan is not None
    assert config.optim.accumulate == 1  # the batch fits whole
    settling.keep(tmp_path, asked, config, plan)
    assert settling.settle(build, asked, tmp_path) == (config, None)
    again = toy.config(memory__budget="2GiB")
    assert settling.settle(build, again, tmp_path)[1] is not None
    values = json.loads((tmp_path / settling.PLAN).read_text())
    assert values["changes"] == {"optim.accumulate": 1}
    assert values["chosen"]["micro_batch"] == asked.optim.batch_size
    assert {"remat", "dtype", "device_peak_bytes", "host_peak_bytes"} <= set(values["rows"][0])


def test_what_was_given_way_is_kept_for_the_next_start(tmp_path):
    asked = toy.config()
    given = giving_way.give_way(toy.config(optim__accumulate=2), "optim.accumulate")
    settling.keep(tmp_path, asked, given, None)
    assert settling.settle(build, asked, tmp_path) == (given, None)


def test_without_a_budget_there_is_no_plan(tmp_path):
    config = toy.config()
    assert settling.settle(build, config, tmp_path) == (config, None)
    settling.keep(tmp_path, config, config, None)
    assert not (tmp_path / settling.PLAN).exists()


@pytest.mark.parametrize(("size", "expected"), [(8, 4), (12, 6), (6, 2)])
def test_a_micro_batch_gives_way_to_a_divisor_the_devices_can_share(size, expected):
    assert jax.device_count() == 2
    config = toy.config(optim__batch_size=size, optim__accumulate=1)
    assert giving_way.give_way(config, "optim.accumulate").optim.micro_batch == expected


@pytest.mark.parametrize(("size", "expected"), [(8, 4), (7, 4), (4, 2), (3, 2)])
def test_an_evaluation_gives_way_to_less_on_each_device(size, expected):
    assert jax.device_count() == 2
    given = giving_way.give_way(toy.config(eval__batch_size=size), "eval.batch_size")
    assert given.eval.batch_size == expected


@pytest.mark.parametrize("size", [1, 2])
def test_one_example_on_each_device_is_the_least_of_an_evaluation(size):
    with pytest.raises(UserError, match="ran out of memory with one example at a time"):
        giving_way.give_way(toy.config(eval__batch_size=size), "eval.batch_size")


def test_a_host_short_of_memory_reads_with_less_and_the_same_batches(monkeypatch):
    config = toy.config()
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, prefetch=8))

    def take(feed, count):
        batches = feed.train(0, busy=lambda: False)
        found = []
        for _ in range(count):
            found.append({name: np.asarray(leaf) for name, leaf in next(batches).items()})
            feed.relieve()
        feed.close()
        return found

    mesh = Program(Blueprint(toy.ToyTask(), config)).mesh
    expected = take(Feed(toy.ToyTask(), config, mesh), 8)
    monkeypatch.setattr(host, "available", lambda: 100)
    monkeypatch.setattr("tds_jax.engine.feed.LOOK_SECONDS", 0.0)
    monkeypatch.setattr("tds_jax.engine.feed.SETTLE_SECONDS", 0.0)
    feed = Feed(toy.ToyTask(), config, mesh)
    found = take(feed, 8)
    assert feed._config.data.prefetch == 1
    for a, b in zip(found, expected, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_host_with_room_reads_on_as_it_was_told():
    config = toy.config()
    feed = Feed(toy.ToyTask(), config, Program(Blueprint(toy.ToyTask(), config)).mesh)
    assert feed.relieve() is None
    feed.close()


def test_running_out_names_the_setting_that_decides():
    with (
        pytest.raises(Exhausted) as caught,
        memory.noticing("eval.batch_size"),
    ):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 5 bytes")
    assert caught.value.setting == "eval.batch_size"


def test_a_plan_that_changes_nothing_is_kept_too(tmp_path):
    asked = toy.config(memory__budget="1GiB", optim__accumulate=1)
    config, plan = settling.settle(build, asked, tmp_path)
    assert config == asked
    for _ in range(2):
        settling.keep(tmp_path, asked, config, plan)
        config, plan = settling.settle(build, asked, tmp_path)
        assert plan is None


def test_a_plan_for_another_run_is_made_anew(tmp_path):
    asked = toy.config(memory__budget="1GiB")
    settling.keep(tmp_path, asked, *settling.settle(build, asked, tmp_path))
    other = toy.config(memory__budget="1GiB", optim__clip_norm=3.0)
    assert settling.settle(build, other, tmp_path)[1] is not None


def test_what_was_trained_before_an_evaluation_ran_out_is_not_lost(crowded, tmp_path):
    crowded(most=100, evaluate_most=2)
    config = toy.config(checkpoint__every=0, eval__every=3)
    workdir.claim(tmp_path, config, {}, "", {})
    with pytest.raises(Exhausted):
        loop.fit(Blueprint(toy.ToyTask(), config), tmp_path)
    checkpoints = workdir.open_checkpoints(tmp_path, config)
    assert checkpoints.latest() == 3 * config.optim.batch_size
    checkpoints.close()
