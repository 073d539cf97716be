"""Batches come in the loader's order whatever is given up meanwhile; waiting is what found the
devices idle."""

import itertools
import os

import jax
import numpy as np
import pytest

from tds_jax.budget import host
from tds_jax.engine import feed as feeding
from tds_jax.engine import sharding
from tds_jax.engine.feed import Feed
from tests.data.test_pipeline import workers_of
from tests.engine import toy


@pytest.fixture
def opened():
    """Makes feeds of the toy task and closes them."""
    made = []

    def make(**changes):
        config = toy.config(**changes)
        made.append(Feed(toy.ToyTask(), config, sharding.make_mesh(config.optim.micro_batch)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def always():
    return True


def drawn(feed, position, count):
    """So many batches from a position on, on the host."""
    return [jax.device_get(b) for b in itertools.islice(feed.train(position, always), count)]


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize("working", [True, False])
def test_fetching_counts_only_while_the_devices_are_idle(opened, working):
    feed = opened()
    batches = feed.train(0, busy=lambda: working)
    for _ in range(3):
        next(batches)
    assert (feed.waited == 0) == working


def test_a_position_is_as_good_as_the_batches_before_it(opened):
    """20 examples in micro-batches of 2: the ninth on, over the end of the first epoch."""
    assert_same(drawn(opened(), 16, 6), drawn(opened(), 0, 14)[8:])


def test_examples_lie_on_all_devices_in_equal_parts(opened):
    batch = next(opened().train(0, always))
    for leaf in batch.values():
        assert len(leaf.sharding.device_set) == jax.device_count()
        assert leaf.addressable_shards[0].data.shape[0] == len(leaf) // jax.device_count()


def test_releasing_workers_between_batches_changes_no_batch(opened):
    feed = opened()
    batches = feed.train(0, always)
    found = []
    for _ in range(5):
        found.append(jax.device_get(next(batches)))
        feed.release_workers()
    assert_same(found, drawn(opened(), 0, 5))


def test_a_host_without_memory_is_relieved_and_the_batches_stay(opened, monkeypatch):
    feed = opened(data__prefetch=4)
    batches = feed.train(0, always)
    found = [jax.device_get(next(batches))]
    monkeypatch.setattr(host, "available", lambda: feeding.HOST_RESERVE - 2**20)
    words = feed.relieve()
    assert words.startswith("the host has 255")
    assert words.endswith("data.workers=0, data.prefetch=2")
    found += [jax.device_get(next(batches)) for _ in range(3)]
    assert_same(found, drawn(opened(), 0, 4))


def test_when_workers_are_killed_fewer_read_on_and_the_batches_stay(opened):
    feed = opened(data__workers=1, data__prefetch=1)
    batches = feed.train(0, always)
    found = [jax.device_get(next(batches))]
    (worker,) = workers_of(os.getpid())
    worker.kill()
    found += [jax.device_get(next(batches)) for _ in range(9)]
    assert_same(found, drawn(opened(), 0, 10))
    assert feed.relieve() == (
        "a data worker has been killed; reading on with data.workers=0, data.prefetch=1"
    )
    assert feed.relieve() is None


def test_relief_is_looked_for_once_a_second_and_not_until_it_shows(opened, monkeypatch):
    feed, looks, clock = opened(data__prefetch=4), [], [0.0]
    monkeypatch.setattr(feeding.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(host, "available", lambda: looks.append(clock[0]) or 2**40)
    for now in (0.0, 0.5, 1.0, 1.9, 2.0):
        clock[0] = now
        assert feed.relieve() is None
    assert looks == [0.0, 1.0, 2.0]
    monkeypatch.setattr(host, "available", lambda: looks.append(clock[0]) or 0)
    for now in (3.0, 4.0, 12.9, 13.0):
        clock[0] = now
        feed.relieve()
    assert looks[3:] == [3.0, 13.0]


def test_there_is_relief_until_nothing_is_left_to_give_up(opened, monkeypatch):
    feed, clock = opened(data__prefetch=4), itertools.count(0.0, 100.0)
    monkeypatch.setattr(feeding.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(host, "available", lambda: 0)
    assert len(list(iter(feed.relieve, None))) == 2  # prefetch 4 -> 2 -> 1
