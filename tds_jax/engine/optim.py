"""Schedules, update rules, and accumulation that equals the large batch exactly.

The objective of a batch is Σ weight·loss / Σ weight. Its gradient is Σ∇ / Σ weight, so the
micro-batches hand over the *sum* of gradients and the *sum* of weights; both accumulate in
`optax.MultiSteps`, and one division happens when the window is full. Averaging per-micro-batch
means instead, as MultiSteps does by default, is wrong as soon as masks are ragged.

A micro-batch whose gradient is not finite counts as one without weight: its update is that of the
others. So an update always stands for batch_size examples drawn, and ends where the host knows.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tds_jax.config import OptimConfig
from tds_jax.engine.frozen import learnt, merged, require_some
from tds_jax.errors import UserError

Params = Any


class Sums(NamedTuple):
    """What a micro-batch contributes: gradient of the summed loss, and the summed weight."""

    grad: Params
    weight: jax.Array


class MeanState(NamedTuple):
    """State of `divide_by_weight`. grad_norm: of the last applied mean gradient, before clipping.
    weight: the Σ weight that update stood for."""

    inner: optax.OptState
    grad_norm: jax.Array
    weight: jax.Array


class SingleState(NamedTuple):
    """What remains of MultiStepsState when every micro-batch is a whole batch."""

    gradient_step: jax.Array
    inner_opt_state: MeanState
    skip_state: dict[str, jax.Array]


def make_schedule(config: OptimConfig) -> optax.Schedule:
    """Learning rate of update t = 0 … steps-1.

    constant: learning_rate. warmup_cosine: learning_rate·(t+1)/warmup_steps while t < warmup_steps,
    so the first update already moves; then a half cosine whose last update, t = steps-1, has
    exactly learning_rate·end_factor. (PyTorch's warm-up recipes often start at 0 and never arrive.)
    """
    peak, warmup = config.learning_rate, config.warmup_steps
    if config.schedule == "constant":
        return optax.constant_schedule(peak)
    top = max(warmup - 1, 0)
    span = max(config.steps - 1 - top, 1)

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        t = jnp.asarray(count, jnp.float32)
        rise = (t + 1) / max(warmup, 1)
        progress = jnp.clip((t - top) / span, 0, 1)
        fall = config.end_factor + (1 - config.end_factor) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
        return peak * jnp.where(t < warmup, rise, fall)

    return schedule


def moved_end(config: OptimConfig, before: int, done: int) -> str:
    """What other optim.steps, once `before`, do to the learning rate after `done`; '' if nothing.

    A schedule with an end is another one when its end moves, also in what lies behind.
    """
    if config.schedule == "constant" or config.steps == before or not 0 < done < config.steps:
        return ""
    old = make_schedule(dataclasses.replace(config, steps=before))
    new = make_schedule(config)
    was, now, end = (float(rate) for rate in (old(done - 1), new(done), new(config.steps - 1)))
    rises = "; the loss may rise at first" if now > was else ""
    return (
        f"optim.steps={before} is now {config.steps}, and the schedule with it: the learning rate "
        f"goes from {was:.3g} to {now:.3g} at once, and to {end:.3g} at the end{rises}"
    )


def _decays(params: Params) -> Params:
    """True for matrices and kernels; norm gains, biases and learned poses are vectors."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def make_update_rule(config: OptimConfig) -> optax.GradientTransformation:
    """Clipping, then the optimizer; both see the mean gradient of the whole batch.

    adam: weight_decay is added to the gradient (L2, as PyTorch's Adam). adamw: decoupled and
    multiplied by the learning rate (as PyTorch's AdamW); neither decays norms and biases.
    sgd: plain, for equality tests and baselines.
    """
    schedule = make_schedule(config)
    decay = optax.add_decayed_weights(config.weight_decay, mask=_decays)
    rules = {
        "sgd": lambda: [optax.sgd(schedule)],
        "adam": lambda: [decay, optax.adam(schedule)],
        "adamw": lambda: [optax.adamw(schedule, weight_decay=config.weight_decay, mask=_decays)],
    }
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    return _mixing(optax.chain(*clip, *rules[config.optimizer]()))


def _mixing(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """A rule of optax's, which mixes counts and floats, where nothing else may mix types."""

    def update(grad: Params, state: Any, params: Params = None) -> tuple[Params, Any]:
        with jax.numpy_dtype_promotion("standard"):
            return rule.update(grad, state, params)

    return optax.GradientTransformation(rule.init, update)


def divide_by_weight(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Sums -> mean gradient -> inner. A window without any weight changes nothing."""

    def init(params: Sums) -> MeanState:
        zero = jnp.zeros((), jnp.float32)
        return MeanState(inner.init(params.grad), zero, zero)

    def update(sums: Sums, state: MeanState, params: Sums | None = None) -> tuple[Sums, MeanState]:
        assert params is not None
        counts = sums.weight > 0
        divisor = jnp.where(counts, sums.weight, 1)
        mean = jax.tree.map(lambda g: g / divisor, sums.grad)
        updates, inner_state = inner.update(mean, state.inner, params.grad)
        after = MeanState(inner_state, optax.tree.norm(mean), sums.weight)
        updates = jax.tree.map(lambda u: jnp.where(counts, u, 0), updates)
        return Sums(updates, jnp.zeros_like(sums.weight)), select(counts, after, state)

    return optax.GradientTransformation(init, update)


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """init, update and close of an accumulating optimizer; all pure.

    init(params) -> opt_state; `gradient_step` counts applied updates.
    update(sums, opt_state, params) -> (params, opt_state): adds a micro-batch; applies the update
      when it is the last of the window's.
    close(sums, opt_state, params) -> (params, opt_state): applies the update of a whole window's
      sums, those that opt_state holds included.
    frozen: patterns of parameters that stay, see `frozen.learnt`; sums are of the others.
    """

    init: Callable[[Params], Any]
    update: Callable[[Sums, Any, Params], tuple[Params, Any]]
    close: Callable[[Sums, Any, Params], tuple[Params, Any]]
    ema_decay: float
    frozen: tuple[str, ...] = ()

    def learnt(self, grad: Params) -> Params:
        """What of a gradient is used: `update` and `close` take sums of that."""
        return learnt(grad, self.frozen)

    def average(self, ema: Params, params: Params, after: Any, before: Any) -> Params:
        """ema moved towards params if an update was applied between opt_states before and after.

        Update t (1, 2 …) keeps min(ema_decay, (1 + t) / (10 + t)) of the average, so that the
        first parameters are soon forgotten. {} stays {}.
        """
        t = after.gradient_step.astype(jnp.float32)
        keep = jnp.minimum(self.ema_decay, (1 + t) / (10 + t))
        applied = after.gradient_step > before.gradient_step

        def move(e: jax.Array, p: jax.Array) -> jax.Array:
            return jnp.where(applied, keep * e + (1 - keep) * p, e)

        if not self.ema_decay:
            return {}
        moved = (learnt(tree, self.frozen) for tree in (ema, params))
        return merged(ema, jax.tree.map(move, *moved))


def reaccumulate(opt_state: Any, params: Params, before: int, after: int) -> Any:
    """opt_state of a run with `accumulate` = before, for one that goes on with `after`.

    params: those that are learnt.
    Micro-batches change by before / after in size. Sums of a partly filled window stay as they are;
    only their count changes. Raises UserError if that would not be a whole number.
    """
    if before == after:
        return opt_state
    filled = 0 if before == 1 else int(opt_state.mini_step)
    if filled * after % before:
        raise UserError(
            f"the checkpoint is {filled} of {before} micro-batches into an update, which is no "
            f"whole number of optim.accumulate={after}; use a multiple of {before}"
        )
    if after == 1:
        return SingleState(opt_state.gradient_step, opt_state.inner_opt_state, opt_state.skip_state)
    sums = jax.tree.map(jnp.zeros_like, _as_sums(params)) if before == 1 else opt_state.acc_grads
    return optax.MultiStepsState(
        mini_step=jnp.asarray(filled * after // before, jnp.int32),
        gradient_step=opt_state.gradient_step,
        inner_opt_state=opt_state.inner_opt_state,
        acc_grads=sums,
        skip_state=opt_state.skip_state,
    )


def make_optimizer(config: OptimConfig) -> Optimizer:
    """The optimizer of a run; without an accumulator when accumulate = 1."""
    rule = divide_by_weight(make_update_rule(config))
    whole = (
        _single(rule, config.ema_decay)
        if config.accumulate == 1
        else _accumulating(rule, config.accumulate, config.ema_decay)
    )
    return _partly(whole, config.frozen) if config.frozen else whole


def _partly(whole: Optimizer, frozen: tuple[str, ...]) -> Optimizer:
    """The optimizer of what is not frozen; the other parameters stay as they are, bit for bit.

    Clipping, moments and accumulation are those of a model that has only what is learnt.
    """

    def init(params: Params) -> Any:
        require_some(params, frozen)
        return whole.init(learnt(params, frozen))

    def update(sums: Sums, state: Any, params: Params) -> tuple[Params, Any]:
        new, state = whole.update(sums, state, learnt(params, frozen))
        return merged(params, new), state

    def close(sums: Sums, state: Any, params: Params) -> tuple[Params, Any]:
        new, state = whole.close(sums, state, learnt(params, frozen))
        return merged(params, new), state

    return Optimizer(init, update, close, whole.ema_decay, frozen)


def _as_sums(params: Params) -> Sums:
    return Sums(params, jnp.zeros((), jnp.float32))


def select(condition: jax.Array, new: Any, old: Any) -> Any:
    """A tree's leaves where the condition () holds, else the other's."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def finite(sums: Sums) -> tuple[jax.Array, Sums, dict[str, jax.Array]]:
    """Whether a micro-batch's sums are finite, the sums or else zeros, and optax's `skip_state`.

    As `optax.skip_not_finite`, but for a card, where each leaf would be counted by kernels of its
    own; a CPU, which loses by joining them, counts as optax does.
    """
    leaves = jax.tree.leaves(sums)
    count = jax.lax.platform_dependent(*leaves, cuda=_count_joined, default=_count_each)
    skip = count > 0
    skip_state = {"should_skip": skip, "num_not_finite": count}
    return ~skip, jax.tree.map(lambda s: jnp.where(skip, 0, s), sums), skip_state


def _count_joined(*leaves: jax.Array) -> jax.Array:
    bad = jnp.concatenate([~jnp.isfinite(leaf).ravel() for leaf in leaves])
    return jnp.sum(bad, dtype=jnp.int32)


def _count_each(*leaves: jax.Array) -> jax.Array:
    counts = (jnp.sum(~jnp.isfinite(leaf), dtype=jnp.int32) for leaf in leaves)
    return functools.reduce(operator.add, counts)


def _single(rule: optax.GradientTransformation, ema_decay: float) -> Optimizer:
    def init(params: Params) -> SingleState:
        sums = _as_sums(params)
        *_, skip_state = finite(sums)
        return SingleState(jnp.zeros((), jnp.int32), rule.init(sums), skip_state)

    def update(sums: Sums, state: SingleState, params: Params) -> tuple[Params, SingleState]:
        _, sums, skip_state = finite(sums)
        updates, inner = rule.update(sums, state.inner_opt_state, _as_sums(params))
        count = state.gradient_step + (sums.weight > 0).astype(jnp.int32)
        return optax.apply_updates(params, updates.grad), SingleState(count, inner, skip_state)

    return Optimizer(init, update, update, ema_decay)


def _accumulating(rule: optax.GradientTransformation, every: int, ema_decay: float) -> Optimizer:
    multi = optax.MultiSteps(rule, every, use_grad_mean=False)

    def init(params: Params) -> optax.MultiStepsState:
        *_, skip_state = finite(_as_sums(params))
        return multi.init(_as_sums(params))._replace(skip_state=skip_state)

    def update(
        sums: Sums, state: optax.MultiStepsState, params: Params
    ) -> tuple[Params, optax.MultiStepsState]:
        _, sums, skip_state = finite(sums)
        weight = state.acc_grads.weight + sums.weight
        with jax.numpy_dtype_promotion("standard"):  # see `_mixing`
            updates, after = multi.update(sums, state, _as_sums(params))
        applied = jnp.where(weight > 0, after.gradient_step, state.gradient_step)
        after = after._replace(gradient_step=applied, skip_state=skip_state)
        return optax.apply_updates(params, updates.grad), after

    def close(
        sums: Sums, state: optax.MultiStepsState, params: Params
    ) -> tuple[Params, optax.MultiStepsState]:
        empty = jax.tree.map(jnp.zeros_like, sums)
        last = jnp.full_like(state.mini_step, every - 1)
        return update(sums, state._replace(acc_grads=empty, mini_step=last), params)

    return Optimizer(init, update, close, ema_decay)
