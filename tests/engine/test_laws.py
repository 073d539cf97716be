"""Laws of the engine: any micro-batches give the update of all; any parts the metrics of all."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tds_jax.engine import metrics
from tests.drawn import arrays
from tests.engine import toy

PARTS, SIZE = 4, 16
ROWS = 12
# Sums of up to 64 x 15 f32 terms in another order; a few times sqrt(960) of eps = 6e-8.
TOLERANCE = 1e-5


@functools.cache
def stepping(size):
    """(initial state, its step) of updates from 64 examples in micro-batches of `size`."""
    blueprint = toy.blueprint(size=size, accumulate=PARTS * SIZE // size)
    return jax.jit(blueprint.init)(jax.random.key(0)), blueprint.train_step


def updated(examples, size):
    state, step = stepping(size)
    state = jax.tree.map(jnp.copy, state)  # the step takes its state for itself
    for batch in toy.batches(examples, size):
        state, _ = step(state, batch)
    return state


@settings(max_examples=12)
@given(
    st.integers(0, 2**31),
    st.lists(st.sampled_from([0.0, 0.02, 0.5, 1.0]), min_size=PARTS, max_size=PARTS),
    st.floats(1e-3, 1e3),
)
def test_micro_batches_of_any_masks_and_weights_give_the_update_of_the_whole(seed, shares, scale):
    examples, rng = toy.data(PARTS * SIZE, seed), np.random.default_rng(seed)
    shape = examples["weight"].shape
    kept = rng.random(shape) < np.repeat(shares, SIZE)[:, None]
    examples["weight"] = (kept * scale * rng.random(shape)).astype(np.float32)
    parts, whole = updated(examples, SIZE), updated(examples, PARTS * SIZE)
    updates = int(kept.any())  # one without any weight changes nothing
    assert int(parts.opt_state.gradient_step) == int(whole.opt_state.gradient_step) == updates
    # Compiled apart, the two initialisations may differ by a rounding.
    starts = (stepping(size)[0].params for size in (SIZE, PARTS * SIZE))
    moved = [
        jax.tree.map(jnp.subtract, state.params, start)
        for state, start in zip((parts, whole), starts, strict=True)
    ]
    if not kept.any():
        assert all(float(jnp.abs(x).max()) == 0 for x in jax.tree.leaves(moved))
        return
    # Of parameters of size 1 a step is known to eps / step.
    assert toy.relative(*moved) < TOLERANCE + 1e-6 / float(jnp.abs(moved[1]["up"]["kernel"]).max())


@jax.jit
def pooled(prediction, target, weight):
    return metrics.Regression.of(prediction, target, weight).pool()


def regression(rows, weight):
    """State of predictions and targets in two columns, as one example with one output."""
    columns = (jnp.asarray(rows[None, :, i, None], jnp.float32) for i in (0, 1))
    return metrics.to_host(pooled(*columns, jnp.asarray(weight[None], jnp.float32)))


@given(arrays(ROWS, ROWS, largest=100.0), st.lists(st.sampled_from("abc-"), min_size=ROWS))
def test_metrics_of_parts_merge_in_any_order_to_those_of_the_whole(rows, owners):
    owner = np.array(owners[:ROWS])
    parts = [regression(rows, owner == name) for name in "abc"]
    whole = regression(rows, owner != "-")
    for order in itertools.permutations(parts):
        merged = functools.reduce(metrics.Regression.merge, order)
        for name, value in vars(whole).items():
            # f32 sums of 12 squares of numbers up to 200.
            np.testing.assert_allclose(getattr(merged, name), value, rtol=1e-5, atol=0.05)
