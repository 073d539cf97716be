"""Devices: a batch is split over them, a state is on all of them, leftovers are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tds_jax.engine import sharding
from tds_jax.engine.blueprint import Blueprint
from tds_jax.errors import UserError
from tests.engine import toy


def test_a_batch_is_split_and_a_state_replicated():
    mesh = sharding.make_mesh(4)
    batch = sharding.put_batch({"x": np.arange(8.0, dtype=np.float32).reshape(4, 2)}, mesh)["x"]
    assert [shard.data.shape for shard in batch.addressable_shards] == [(2, 2), (2, 2)]
    np.testing.assert_array_equal(batch, np.arange(8.0).reshape(4, 2))
    leaf = jax.device_put(jnp.ones(3), sharding.shardings_for({"w": jnp.ones(3)}, mesh)["w"])
    assert [shard.data.shape for shard in leaf.addressable_shards] == [(3,), (3,)]


def test_a_micro_batch_that_devices_cannot_share_is_refused():
    with pytest.raises(UserError, match=r"=5 examples .* 2 devices; .* a multiple of 2"):
        sharding.make_mesh(5)


@pytest.mark.parametrize(("examples", "expected"), [(1, 2), (2, 2), (3, 4), (4, 4)])
def test_evaluation_batches_are_rounded_up_to_the_devices(examples, expected):
    assert sharding.rounded_up(examples, sharding.make_mesh(2)) == expected


def test_abstract_trees_match_what_will_be_put():
    mesh = sharding.make_mesh(2)
    spec = toy.spec(2)
    batch = sharding.put_batch(toy.data(2), mesh)
    abstract = sharding.abstract_batch(spec, mesh)
    for name in spec:
        assert abstract[name].shape == batch[name].shape
        assert abstract[name].dtype == batch[name].dtype
        assert abstract[name].sharding == batch[name].sharding


@pytest.mark.parametrize("call", ["micro_batch", "update"])
def test_a_state_split_over_two_devices_trains_as_a_whole_one_in_half_the_bytes(monkeypatch, call):
    monkeypatch.setattr(sharding, "SPLIT", 1)
    mesh, ends, held = sharding.make_mesh(2), {}, {}
    for shard in ("none", "fsdp"):
        config = toy.config(memory__shard=shard, memory__call=call)
        blueprint = Blueprint(toy.ToyTask(), config)
        held[shard] = blueprint.state_bytes(mesh)
        state = jax.jit(blueprint.init, out_shardings=blueprint.shardings(mesh))(blueprint.key)
        step = blueprint.trace_step(mesh).lower().compile()
        many = config.micro_batches_per_call
        for batch in toy.host_batches(toy.ToyTask(), 2 * many):
            state, _ = step(state, sharding.put_batch(batch, mesh, many))
        ends[shard] = jax.device_get(state.params)
        leaves = jax.tree.leaves(state)
        assert held[shard].held == sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves)
    whole, split = held["none"], held["fsdp"]
    odd = 4 * toy.JOINTS  # the last layer's biases, of which there are three
    assert split.parameters == (whole.parameters - odd) / 2 + odd
    assert whole.accumulator - split.accumulator == split.fetched == (whole.parameters - odd) / 2
    assert split.optimizer < 0.55 * whole.optimizer
    # The same sums, of which each device updates its part: f32 rounding of a few updates.
    assert toy.relative(ends["fsdp"], ends["none"]) < 1e-6
