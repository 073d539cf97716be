"""Accumulation equals the large batch; schedules arrive; bad micro-batches leave no trace."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from tds_jax.engine import metrics, optim, step
from tds_jax.errors import UserError
from tests.engine import toy

pytestmark = pytest.mark.optimised

# f32 sums of a few hundred terms in another order: eps = 6e-8 times a small factor.
GRADIENT_TOLERANCE = 1e-6
# Adam divides by sqrt(v): where a gradient is near zero its relative rounding error is amplified.
ADAM_TOLERANCE = 1e-5


def train(examples, *, size, loss=toy.loss, many=1, **changes):
    """The state after all examples, in micro-batches of `size`, `many` to a call."""
    accumulate = 64 // size
    blueprint = toy.blueprint(loss=loss, size=size, many=many, accumulate=accumulate, **changes)
    state = jax.jit(blueprint.init)(jax.random.key(0))
    for batch in toy.calls(examples, size, many):
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


@pytest.mark.parametrize("size", [16, pytest.param(8, marks=pytest.mark.long)])
def test_accumulated_gradient_equals_the_large_batch_with_ragged_masks(size):
    examples = toy.data(64)
    error = toy.relative(summed_gradient(examples, size), summed_gradient(examples, 64))
    assert error < GRADIENT_TOLERANCE


@pytest.mark.parametrize("size", [16, pytest.param(8, marks=pytest.mark.long)])
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


def spoilt(examples, rows):
    """Examples of which some are NaN and would count; and the same with those of no weight."""
    bad = {name: value.copy() for name, value in examples.items()}
    bad["x"][rows], bad["weight"][rows] = np.nan, 1
    none = {name: value.copy() for name, value in examples.items()}
    none["weight"][rows] = 0
    return bad, none


@pytest.mark.parametrize(("size", "many"), [(64, 1), (16, 1), (16, 4)])
def test_a_micro_batch_that_is_not_finite_counts_as_one_without_weight(size, many):
    """Its update is that of the others; bit for bit, the metrics too, for it adds zeros."""
    bad, none = spoilt(toy.data(3 * 64), slice(64, 64 + size))
    found, _ = train(bad, size=size, many=many, optimizer="adamw")
    expected, _ = train(none, size=size, many=many, optimizer="adamw")
    assert int(found.skipped) == 1
    assert int(expected.skipped) == 0
    assert int(found.opt_state.gradient_step) == (2 if size == 64 else 3)
    for a, b in zip(jax.tree.leaves(found.params), jax.tree.leaves(expected.params), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(jax.tree.leaves(found.window), jax.tree.leaves(expected.window), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("size", "many"), [(64, 1), (16, 1), (16, 4)])
def test_an_update_without_any_weight_changes_nothing(size, many):
    """Neither by momentum nor by decay; the next one is as if it had not been."""
    examples = toy.data(3 * 64)
    bad, _ = spoilt(examples, slice(64, 128))
    others = {name: np.delete(value, slice(64, 128), 0) for name, value in examples.items()}
    settings = {"size": size, "many": many, "optimizer": "adamw", "weight_decay": 0.1}
    found, _ = train(bad, ema_decay=0.5, **settings)
    expected, _ = train(others, ema_decay=0.5, **settings)
    assert int(found.skipped) == 64 // size
    for name in ("params", "ema", "opt_state"):
        leaves = (jax.tree.leaves(getattr(state, name)) for state in (found, expected))
        for a, b in zip(*leaves, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("size", [16, pytest.param(8, marks=pytest.mark.long)])
def test_an_update_in_one_call_is_that_of_a_call_for_each_micro_batch(size):
    """Ragged masks, a micro-batch that is not finite, averages: f32 gradients of programs that are
    compiled apart, after five updates."""
    bad, _ = spoilt(toy.data(5 * 64), slice(64, 64 + size))
    settings = {"size": size, "optimizer": "sgd", "clip_norm": 0.5, "ema_decay": 0.3}
    one, _ = train(bad, many=64 // size, **settings)
    several, _ = train(bad, **settings)
    assert int(one.skipped) == int(several.skipped) == 1
    assert int(one.opt_state.gradient_step) == int(several.opt_state.gradient_step) == 5
    assert int(one.opt_state.mini_step) == int(several.opt_state.mini_step) == 0
    for name in ("params", "ema"):
        assert toy.relative(getattr(one, name), getattr(several, name)) < GRADIENT_TOLERANCE
    values = [metrics.compute(metrics.to_host(state.window)) for state in (one, several)]
    assert values[0] == pytest.approx(values[1], rel=1e-5)  # sums of 3,000 terms in f32


def test_accumulation_is_that_of_optax_multi_steps():
    """Fed with the same sums, as it stands."""
    config = toy.optim_config(optimizer="adamw", accumulate=4, weight_decay=0.1)
    ours = optim.make_optimizer(config)
    theirs = optax.MultiSteps(
        optim.divide_by_weight(optim.make_update_rule(config)), 4, use_grad_mean=False
    )
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}
    plain, state, found = params, theirs.init(optim.Sums(params, jnp.zeros(()))), params
    opt_state = ours.init(params)
    for seed in range(8):
        keys = iter(jax.random.split(jax.random.key(seed), 3))
        grad = jax.tree.map(lambda p: jax.random.normal(next(keys), p.shape), params)  # noqa: B023
        sums = optim.Sums(grad, jax.random.uniform(next(keys)))
        found, opt_state = ours.update(sums, opt_state, found)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = theirs.update(sums, state, optim.Sums(plain, jnp.zeros(())))
        plain = optax.apply_updates(plain, updates.grad)
    jax.tree.map(np.testing.assert_array_equal, found, plain)
    assert toy.relative(found, params) > 1e-4


@pytest.mark.parametrize("done", [1, 3])
def test_an_update_begun_in_calls_of_micro_batches_is_ended_by_one_call(done):
    """The call's first micro-batches, whose sums it finds, are passed over: bit for bit, whatever
    they hold."""
    examples = toy.data(64)
    whole, blueprint = train(examples, size=16, many=4)
    begun, _ = train({name: value[: 16 * done] for name, value in examples.items()}, size=16)
    other = {name: value.copy() for name, value in examples.items()}
    other["x"][: 16 * done] = np.nan
    (batch,) = toy.calls(other, 16, 4)
    ended, _ = blueprint.train_step(begun, batch)
    assert int(ended.skipped) == 0
    assert int(ended.opt_state.gradient_step) == 1
    # The begun sums come of the other program.
    assert toy.relative(ended.params, whole.params) < GRADIENT_TOLERANCE
    values = [metrics.compute(metrics.to_host(state.window)) for state in (ended, whole)]
    assert values[0] == pytest.approx(values[1], rel=1e-5)


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
