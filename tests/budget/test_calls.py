"""An update becomes one call where a card holds the inputs of a whole batch easily."""

import dataclasses

import pytest

from tds_jax.budget import calls, targets
from tds_jax.engine.blueprint import Blueprint
from tds_jax.engine.feed import DEVICE_PREFETCH
from tests.engine import toy


def build(config):
    return Blueprint(toy.ToyTask(), config)


def asked(call):
    return toy.config(memory__call=call)


@pytest.fixture
def card():
    return dataclasses.replace(targets.find("here"), on_host=False)


def inputs(config):
    """Bytes of a whole batch: the one in use, and those that wait."""
    leaves = build(config).spec.values()
    one = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) * config.optim.accumulate
    return one // 2 * (1 + DEVICE_PREFETCH)  # on each of two devices


def test_auto_takes_a_whole_update_where_its_inputs_are_a_small_share(card):
    config = asked("auto")
    enough = int(inputs(config) / calls.SHARE)
    assert calls.decided(build, config, card, enough).memory.call == "update"
    assert calls.decided(build, config, card, enough - 16).memory.call == "micro_batch"


def test_on_cpu_auto_takes_micro_batches_and_what_was_asked_for_stays(card):
    here = targets.find("here")
    assert calls.decided(build, asked("auto"), here, 2**40).memory.call == "micro_batch"
    assert calls.decided(build, asked("update"), here, 1) == asked("update")
    assert calls.decided(build, asked("micro_batch"), card, 2**40) == asked("micro_batch")
