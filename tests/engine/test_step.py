"""The step is pure, reuses its state's memory, is compiled once, and does not see the devices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.engine import metrics, sharding, step
from tests.engine import toy

SIZE = 16


class Counting(toy.Net):
    """The toy network with a Variable that every forward pass changes."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        super().__init__(rngs)
        self.seen = nnx.BatchStat(jnp.zeros(()))
        self.drawn = nnx.BatchStat(jnp.zeros((), jnp.int32))

    def __call__(self, x):
        self.seen.set_value(self.seen.get_value() + x.shape[0])
        self.drawn.set_value(self.drawn.get_value() + x.shape[0])
        return super().__call__(x)


def make(devices=None, net=toy.Net, **changes):
    """(state, train_step, mesh) on the given devices; on all of them if None."""
    blueprint = toy.blueprint(net, size=SIZE, batch_size=SIZE, **changes)
    mesh = (
        jax.make_mesh((len(devices),), ("data",), devices=devices)
        if devices
        else sharding.make_mesh(SIZE)
    )
    shardings = sharding.shardings_for(blueprint.shapes, mesh)
    state = jax.jit(blueprint.init, out_shardings=shardings)(jax.random.key(0))
    return state, blueprint.train_step, mesh


def run(state, train_step, mesh, count, seed=0):
    examples = toy.data(count * SIZE, seed)
    for start in range(0, count * SIZE, SIZE):
        part = {name: value[start : start + SIZE] for name, value in examples.items()}
        state, _ = train_step(state, sharding.put_batch(part, mesh))
    return state


def test_two_devices_train_as_one():
    assert len(jax.devices()) == 2
    one = run(*make(jax.devices()[:1], learning_rate=0.05), count=5)
    two = run(*make(learning_rate=0.05), count=5)
    assert all(len(leaf.sharding.device_set) == 2 for leaf in jax.tree.leaves(two.params))
    assert toy.relative(two.params, one.params) < 1e-6  # f32 sums in another order, 5 updates
    for a, b in zip(jax.tree.leaves(two.window), jax.tree.leaves(one.window), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_state_is_donated():
    state, train_step, mesh = make(optimizer="adamw", accumulate=4)
    run(state, train_step, mesh, count=1)
    large = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
    assert len(large) > 4 * len(jax.tree.leaves(state.params))  # two moments, the accumulator
    assert all(leaf.is_deleted() for leaf in large)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_nothing_is_compiled_after_the_first_step(accumulate):
    state, train_step, mesh = make(accumulate=accumulate)
    state = run(state, train_step, mesh, count=1)
    run(state, train_step, mesh, count=6, seed=1)
    assert train_step._cache_size() == 1


def test_variables_that_are_not_parameters_are_carried_along_untrained():
    state = run(*make(net=Counting), count=3)
    # toy.loss looks at the model twice
    assert float(state.rest["seen"]) == 3 * 2 * SIZE
    assert "seen" not in state.params


def test_a_skipped_micro_batch_leaves_the_other_variables_alone():
    state, train_step, mesh = make(net=Counting)
    batch = toy.data(SIZE)
    batch["x"][0] = np.nan
    state, _ = train_step(state, sharding.put_batch(batch, mesh))
    assert float(state.rest["seen"]) == 0
    assert int(state.rest["drawn"]) == 2 * SIZE  # counts go on, so that updates stay in step
    assert int(state.skipped) == 1


def test_calls_of_an_update_carry_the_other_variables_from_one_micro_batch_to_the_next():
    blueprint = toy.blueprint(Counting, size=4, many=4, batch_size=16, accumulate=4)
    state = jax.jit(blueprint.init)(jax.random.key(0))
    batch = toy.data(16)
    batch["x"][4] = np.nan
    (call,) = toy.calls(batch, 4, 4)
    state, _ = blueprint.train_step(state, call)
    assert (float(state.rest["seen"]), int(state.rest["drawn"])) == (2 * 12, 2 * 16)
    (call,) = toy.calls(toy.data(16), 4, 4)
    begun = state.opt_state._replace(mini_step=jnp.asarray(3, jnp.int32))
    state, _ = blueprint.train_step(dataclasses.replace(state, opt_state=begun), call)
    assert (float(state.rest["seen"]), int(state.rest["drawn"])) == (2 * 16, 2 * 20)


def test_the_window_holds_the_metrics_of_every_micro_batch():
    state, train_step, mesh = make(learning_rate=0.0)
    params = jax.tree.map(np.array, state.params)
    found = metrics.compute(metrics.to_host(run(state, train_step, mesh, count=3).window))
    whole = {name: jnp.asarray(value) for name, value in toy.data(3 * SIZE).items()}
    expected = toy.blueprint().eval_step(params, {}, whole)
    assert found == pytest.approx(metrics.compute(metrics.to_host(expected)), rel=1e-5)


def test_evaluation_changes_nothing_and_is_repeatable():
    state, _, mesh = make(net=Counting)
    evaluate = toy.blueprint(Counting).eval_step
    batch = sharding.put_batch(toy.data(SIZE), mesh)
    first, second = (evaluate(state.params, state.rest, batch) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert float(state.rest["seen"]) == 0


def test_replaced_leaves_keep_their_type_and_leave_the_others():
    rest = {"a": {"b": jnp.zeros(2), "c": jnp.ones(3)}, "d": jnp.ones(())}
    found = step.replace_leaves(rest, {"a": {"b": np.array([1.0, 2.0])}})
    np.testing.assert_array_equal(found["a"]["b"], [1, 2])
    assert found["a"]["b"].dtype == jnp.float32
    assert found["a"]["c"] is rest["a"]["c"]
    assert found["d"] is rest["d"]
    np.testing.assert_array_equal(rest["a"]["b"], [0, 0])
