"""What a step waited for: only what found the devices idle."""

import pytest

from tds_jax.engine.blueprint import Blueprint
from tds_jax.engine.feed import Feed
from tds_jax.engine.program import Program
from tests.engine import toy


@pytest.mark.parametrize("working", [True, False])
def test_fetching_counts_only_while_the_devices_are_idle(working):
    config = toy.config()
    feed = Feed(toy.ToyTask(), config, Program(Blueprint(toy.ToyTask(), config)).mesh)
    batches = feed.train(0, busy=lambda: working)
    for _ in range(3):
        next(batches)
    assert (feed.waited == 0) == working
    feed.close()
