"""Devices: a batch is split over them, a state is on all of them, leftovers are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tds_jax.engine import sharding
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
