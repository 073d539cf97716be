"""Accumulation equals the large batch; schedules arrive; bad micro-batches leave no trace."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.engine import optim, step
from tds_jax.errors import UserError
from tests.engine import toy

pytestmark = pytest.mark.optimised

# f32 sums of a few hundred terms in another order: eps = 6e-8 times a small factor.
GRADIENT_TOLERANCE = 1e-6
# Adam divides by sqrt(v): where a gradient is near zero its relative rounding error is amplified.
ADAM_TOLERANCE = 1e-5


def train(examples, *, size, loss=toy.loss, **changes):
    """Parameters after all examples, in micro-batches of `size`."""
    accumulate = 64 // size
    blueprint = toy.blueprint(loss=loss, size=size, accumulate=accumulate, **changes)
    state = jax.jit(blueprint.init)(jax.random.key(0))
    for batch in toy.batches(examples, size):
        state, _ = blueprint.train_step(state, batch)
    return state, blueprint


def summed_gradient(examples, size):
    """Σ gradient / Σ weight over micro-batches, as the accumulator forms it."""
    graphdef, params, rest = step.split(toy.Net(nnx.Rngs(0)))

    def total(params, batch):
        objective, _ = toy.loss(nnx.merge(graphdef, params, rest), batch, train=True)
        return objective.sum, objective.weight

    gradient = jax.jit(jax.grad(total, has_aux=True))
    grad = jax.tree.map(jnp.zeros_like, params)
    weight = 0.0
    for batch in toy.batches(examples, size):
        part, w = gradient(params, batch)
        grad, weight = jax.tree.map(jnp.add, grad, part), weight + float(w)
    return jax.tree.map(lambda g: g / weight, grad)


@pytest.mark.parametrize("size", [16, 8])
def test_accumulated_gradient_equals_the_large_batch_with_ragged_masks(size):
    examples = toy.data(64)
    error = toy.relative(summed_gradient(examples, size), summed_gradient(examples, 64))
    assert error < GRADIENT_TOLERANCE


@pytest.mark.parametrize("size", [16, 8])
@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({"optimizer": "sgd"}, GRADIENT_TOLERANCE),
        ({"optimizer": "adamw", "weight_decay": 0.1, "clip_norm": 0.5}, ADAM_TOLERANCE),
    ],
)
def test_parameters_after_five_updates_equal_the_large_batch(size, changes, tolerance):
    examples = toy.data(5 * 64)
    whole, _ = train(examples, size=64, **changes)
    parts, _ = train(examples, size=size, **changes)
    assert int(parts.opt_state.gradient_step) == int(whole.opt_state.gradient_step) == 5
    assert toy.relative(parts.params, whole.params) < tolerance


def test_ignoring_the_weights_is_wrong_by_orders_of_magnitude():
    examples = toy.data(5 * 64)
    whole, _ = train(examples, size=64)
    parts, _ = train(examples, size=16, loss=toy.unweighted_loss)
    assert (
        toy.relative(parts.params, whole.params) > 100 * GRADIENT_TOLERANCE
    )  # measured: 576 times


@pytest.mark.parametrize("size", [64, 16])
def test_a_non_finite_micro_batch_is_left_out_and_counted(size):
    examples = toy.data(3 * 64)
    bad = {name: value[:size].copy() for name, value in examples.items()}
    bad["x"][0, 0, 0] = np.nan
    bad["weight"][0, 0] = 1
    mixed = {
        name: np.concatenate([value[:size], bad[name], value[size:]])
        for name, value in examples.items()
    }
    clean, _ = train(examples, size=size, optimizer="adamw")
    state, _ = train(mixed, size=size, optimizer="adamw")
    assert int(state.skipped) == 1
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(clean.params), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(jax.tree.leaves(state.window), jax.tree.leaves(clean.window), strict=True):
        np.testing.assert_array_equal(a, b)


def test_training_goes_on_after_a_non_finite_micro_batch():
    examples = toy.data(3 * 64)
    examples["x"][:16] = np.inf
    state, _ = train(examples, size=16)
    assert int(state.opt_state.gradient_step) == 2
    assert int(state.opt_state.mini_step) == 3
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.params))


def test_a_partial_last_window_is_applied_with_its_true_weight():
    examples = toy.data(64 + 24)
    state, blueprint = train(examples, size=8)
    assert int(state.opt_state.mini_step) == 3
    params, opt_state = jax.jit(blueprint.optimizer.flush)(state.opt_state, state.params)
    whole, other = train({k: v[:64] for k, v in examples.items()}, size=64)
    last = {k: jnp.asarray(v[64:]) for k, v in examples.items()}
    expected, _ = other.train_step(whole, last)
    assert int(opt_state.mini_step) == 0
    assert toy.relative(params, expected.params) < GRADIENT_TOLERANCE


def test_flushing_an_empty_window_changes_nothing():
    state, blueprint = train(toy.data(64), size=16, optimizer="adamw", weight_decay=0.1)
    params, opt_state = jax.jit(blueprint.optimizer.flush)(state.opt_state, state.params)
    jax.tree.map(np.testing.assert_array_equal, params, state.params)
    jax.tree.map(np.testing.assert_array_equal, opt_state, state.opt_state)


def test_no_accumulator_is_kept_without_accumulation():
    single, _ = train(toy.data(64), size=64)
    several, _ = train(toy.data(64), size=16)
    count = {n: len(jax.tree.leaves(s.opt_state)) for n, s in (("1", single), ("4", several))}
    assert count["4"] - count["1"] >= len(jax.tree.leaves(single.params))


def test_clipping_acts_on_the_mean_gradient_of_the_whole_batch():
    examples = toy.data(64)
    state, _ = train(examples, size=16, clip_norm=1e-3, learning_rate=1.0)
    start, _ = train({k: v[:0] for k, v in examples.items()}, size=64)
    moved = jax.tree.map(jnp.subtract, state.params, start.params)
    norm = float(np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(moved))))
    assert norm == pytest.approx(1e-3, rel=1e-3)  # parameters of size 1 round at 6e-8


def test_weight_decay_spares_norms_and_biases():
    rule = optim.make_update_rule(toy.optim_config(optimizer="adamw", weight_decay=1.0))
    params = {"kernel": jnp.ones((2, 2)), "scale": jnp.ones((2,))}
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = rule.update(zero, rule.init(params), params)
    assert float(jnp.abs(updates["kernel"]).min()) > 0
    assert float(jnp.abs(updates["scale"]).max()) == 0


def test_warmup_cosine_starts_moving_peaks_and_ends_where_it_says():
    config = toy.optim_config(
        schedule="warmup_cosine", warmup_steps=10, steps=100, learning_rate=2.0, end_factor=0.1
    )
    rate = [float(optim.make_schedule(config)(t)) for t in range(100)]
    assert rate[0] == pytest.approx(0.2)
    assert max(rate) == rate[9] == pytest.approx(2.0)
    assert rate[99] == pytest.approx(0.2, rel=1e-6)
    assert all(a > b for a, b in itertools.pairwise(rate[9:]))


def test_cosine_without_warmup_starts_at_its_peak():
    config = toy.optim_config(schedule="warmup_cosine", warmup_steps=0, steps=10, learning_rate=2.0)
    schedule = optim.make_schedule(config)
    assert float(schedule(0)) == pytest.approx(2.0)
    assert float(schedule(9)) == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize(("before", "after"), [(32, 8), (16, 32), (32, 32)])
def test_a_window_begun_with_one_split_is_finished_with_another(before, after):
    """Half of the batch in micro-batches of one size, the other half in those of another."""
    examples = toy.data(64)
    halves = [{k: v[part] for k, v in examples.items()} for part in (slice(32), slice(32, 64))]
    state, _ = train(halves[0], size=before)
    opt_state = optim.reaccumulate(state.opt_state, state.params, 64 // before, 64 // after)
    run = toy.blueprint(size=after, accumulate=64 // after).train_step
    state = dataclasses.replace(state, opt_state=opt_state)
    for batch in toy.batches(halves[1], after):
        state, _ = run(state, batch)
    whole, _ = train(examples, size=64)
    assert int(state.opt_state.gradient_step) == 1
    assert toy.relative(state.params, whole.params) < GRADIENT_TOLERANCE


def test_a_window_that_no_other_split_can_finish_is_refused():
    state, _ = train({k: v[:16] for k, v in toy.data(64).items()}, size=16)
    with pytest.raises(UserError, match=r"1 of 4 micro-batches into an update.* a multiple of 4"):
        optim.reaccumulate(state.opt_state, state.params, 4, 2)


def test_the_average_moves_once_per_update_by_its_rule():
    examples = toy.data(64 * 3)
    steps = [train({k: v[: 64 * n] for k, v in examples.items()}, size=64)[0] for n in range(4)]
    expected = steps[0].params
    for t, state in enumerate(steps[1:], start=1):
        keep = min(0.3, (1 + t) / (10 + t))
        expected = jax.tree.map(lambda e, p: keep * e + (1 - keep) * p, expected, state.params)  # noqa: B023
    for size in (64, 16):
        state, _ = train(examples, size=size, ema_decay=0.3)
        assert toy.relative(state.ema, expected) < GRADIENT_TOLERANCE
        assert state.weights is state.ema
    assert steps[1].ema == {}
    assert steps[1].weights is steps[1].params


def test_a_schedule_whose_end_moves_says_where_the_learning_rate_goes():
    config = toy.config(
        optim__schedule="warmup_cosine", optim__steps=700, optim__warmup_steps=10,
        optim__end_factor=0.0, optim__learning_rate=1.0,
    ).optim  # fmt: skip
    goes_on = float(optim.make_schedule(config)(300))
    goes = f"the learning rate goes from 0 to {goes_on:.3g} at once, and to 0 at the end; the loss"
    assert f"optim.steps=300 is now 700, and the schedule with it: {goes}" in (
        optim.moved_end(config, 300, 300)
    )
    shorter = optim.moved_end(dataclasses.replace(config, steps=200), 700, 100)
    assert "is now 200" in shorter
    assert "rise" not in shorter
    assert optim.moved_end(config, 700, 300) == ""
    assert optim.moved_end(config, 300, 0) == ""
    assert optim.moved_end(dataclasses.replace(config, schedule="constant"), 300, 300) == ""
