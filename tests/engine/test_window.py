"""One line per window: a step late, of that window alone, in the time that was training."""

import types

import numpy as np
import pytest

from tds_jax.engine import sharding, window
from tds_jax.engine.blueprint import Blueprint
from tds_jax.engine.program import Program
from tds_jax.engine.window import WindowLog
from tests.engine import toy

EVERY = {"log__every": 2, "optim__steps": 3, "optim__accumulate": 2, "optim__batch_size": 4}


@pytest.fixture(scope="module")
def program():
    return Program(Blueprint(toy.ToyTask(), toy.config(**EVERY)))


class Trained:
    """Micro-batches of 2 through a program and a `WindowLog`; keeps what is written and said."""

    def __init__(self, program):
        self.lines, self.words = [], []
        self.feed = types.SimpleNamespace(waited=0.0)
        log = types.SimpleNamespace(write=self.lines.append, say=self.words.append)
        self.program, config = program, program.blueprint.config
        self.log = WindowLog(config, program, log, self.feed)
        self.state, self.position = program.fresh({}), 0
        self.batches = toy.host_batches(toy.ToyTask(), 2)
        self.log.start(self.state, 0)

    def step(self, bad=False):
        batch = next(self.batches)
        if bad:
            batch = batch | {"x": np.full_like(batch["x"], np.nan), "weight": batch["weight"] + 1}
        batch = sharding.put_batch(batch, self.program.mesh)
        self.state, _ = self.program.train_step(self.state, batch)
        self.position += 2
        self.state = self.log.step(self.state, self.position)

    def counted(self):
        """Σ weight in the state's window."""
        return float(self.state.window["loss"].weight)


def test_a_line_is_written_at_the_step_after_its_window(program):
    run = Trained(program)
    for _ in range(4):
        run.step()
    assert run.lines == []
    run.step()
    told = [(line["step"], line["examples"], line["split"]) for line in run.lines]
    assert told == [(2, 8, "train")]


def test_flushing_writes_what_is_waiting_once(program):
    run = Trained(program)
    for _ in range(4):
        run.step()
    run.log.flush()
    run.log.flush()
    assert len(run.lines) == 1


def test_the_last_step_has_a_line_whatever_the_interval(program):
    run = Trained(program)
    for _ in range(6):
        run.step()
    run.log.flush()
    assert [line["step"] for line in run.lines] == [2, 3]


def test_a_window_is_emptied_where_it_ends_and_only_there(program):
    run = Trained(program)
    counts = []
    for _ in range(5):
        run.step()
        counts.append(run.counted())
    assert counts[3] == 0
    assert 0 < counts[0] < counts[1] < counts[2]
    assert counts[4] > 0


def test_speed_is_of_the_examples_since_the_last_line_without_pauses(program, monkeypatch):
    clock = types.SimpleNamespace(now=100.0)
    monkeypatch.setattr(window.time, "perf_counter", lambda: clock.now)
    run = Trained(program)
    for n in range(4):
        clock.now += 1
        run.feed.waited += 0.5
        run.step()
        if n < 3:
            with run.log.paused():
                clock.now += 50
    run.log.flush()
    assert run.lines[0]["perf/samples_per_s"] == pytest.approx(8 / 4)
    assert run.lines[0]["perf/input_wait"] == pytest.approx(0.5)


def test_micro_batches_left_out_are_told_once(program):
    run = Trained(program)
    run.step(bad=True)
    for _ in range(5):
        run.step()
    run.log.flush()
    assert len(run.words) == 1
    assert run.words[0].startswith("1 micro-batch(es) left out")
    assert [line["skipped"] for line in run.lines] == [1, 1]


def test_a_run_that_goes_on_tells_only_of_what_it_left_out_itself(program):
    before, after = Trained(program), Trained(program)
    before.step(bad=True)
    after.state = before.state
    after.log.start(after.state, 0)
    for _ in range(4):
        after.step()
    after.log.flush()
    assert after.words == []
    assert after.lines[0]["skipped"] == 1
