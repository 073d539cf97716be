"""What is frozen stays bit for bit and costs no moments; the rest is learnt as if it were alone."""

import jax
import numpy as np
import pytest

from tds_jax.engine import frozen, sharding
from tds_jax.errors import UserError
from tests.engine import toy

TREE = {"up": {"bias": 1, "kernel": 2}, "norm": {"scale": 3}, "down": {"bias": 4, "kernel": 5}}


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        ((), ["up/bias", "up/kernel", "norm/scale", "down/bias", "down/kernel"]),
        (("up",), ["norm/scale", "down/bias", "down/kernel"]),
        (("*/bias", "norm"), ["up/kernel", "down/kernel"]),
        (("u?/k*",), ["up/bias", "norm/scale", "down/bias", "down/kernel"]),
        (("*",), []),
    ],
)
def test_patterns_are_of_paths_or_of_parts(patterns, left):
    part = frozen.learnt(TREE, patterns)
    assert frozen.paths(part) == left
    doubled = frozen.merged(TREE, jax.tree.map(lambda x: 2 * x, part))
    assert frozen.paths(doubled) == frozen.paths(TREE)
    for path in frozen.paths(TREE):
        group, name = path.split("/")
        assert doubled[group][name] == TREE[group][name] * (2 if path in left else 1)


def trained(size, **changes):
    """(parameters before, state after 64 examples in micro-batches of `size`, blueprint)."""
    blueprint = toy.blueprint(size=size, accumulate=64 // size, optimizer="adamw", **changes)
    state = jax.jit(blueprint.init)(jax.random.key(0))
    before = jax.device_get(state.params)
    for batch in toy.batches(toy.data(64), size):
        state, _ = blueprint.train_step(state, batch)
    return before, state, blueprint


def test_accumulation_stays_exact_and_frozen_parameters_stay_bit_for_bit():
    changes = {"frozen": ("up", "*/bias"), "clip_norm": 0.1, "ema_decay": 0.9}
    before, split, _ = trained(16, **changes)
    _, whole, _ = trained(64, **changes)
    # As for whole models: f32 sums in another order, amplified by Adam's division.
    assert toy.relative(split.params, whole.params) < 1e-5
    for state in (split, whole):
        for tree in (state.params, state.ema):
            for group, leaves in before.items():
                for name, old in leaves.items():
                    stays = group == "up" or name == "bias"
                    assert np.array_equal(old, tree[group][name]) == stays, (group, name)


def test_clipping_and_the_gradients_norm_are_of_what_is_learnt():
    """A frozen part counts for nothing: the update is that of SGD on the rest, clipped alone."""
    changes = {"frozen": ("up", "norm"), "clip_norm": 1e-3}
    blueprint = toy.blueprint(size=64, optimizer="sgd", **changes)
    state = jax.jit(blueprint.init)(jax.random.key(0))
    before = jax.device_get(state.params)
    (batch,) = toy.batches(toy.data(64), 64)
    state, _ = blueprint.train_step(state, batch)
    moved = jax.tree.map(lambda a, b: np.asarray(a) - b, state.params["down"], before["down"])
    length = np.sqrt(sum((x.astype(np.float64) ** 2).sum() for x in jax.tree.leaves(moved)))
    # learning_rate * clip_norm, from differences of parameters near 0.3: eps 3e-8 each, 51 of them.
    np.testing.assert_allclose(length, 0.05 * 1e-3, rtol=1e-2)
    assert float(state.opt_state.inner_opt_state.grad_norm) > 1e-3


def test_the_optimizer_keeps_nothing_for_what_is_frozen():
    def kept(*patterns):
        optimizer = toy.blueprint(size=16, accumulate=4, optimizer="adamw", frozen=patterns)
        return sum(leaf.size for leaf in jax.tree.leaves(optimizer.shapes.opt_state))

    net = jax.tree.leaves(toy.blueprint(frozen=("down", "norm")).shapes.params)
    up = 4 * 16 + 16
    assert sum(leaf.size for leaf in net) > up
    # Two moments and the accumulator: three numbers for each that is learnt.
    assert kept() - kept("up") == 3 * up


@pytest.mark.long
def test_the_compiled_step_has_no_gradient_of_what_is_frozen():
    def operations(*patterns):
        blueprint = toy.blueprint(size=16, frozen=patterns)
        return (
            blueprint.trace_step(sharding.make_mesh(16)).lower().compile().cost_analysis()["flops"]
        )

    assert operations("up", "norm") < 0.8 * operations()


@pytest.mark.parametrize(
    ("patterns", "text"),
    [
        (("encoder",), "optim.frozen has 'encoder', which matches no parameter; they are .*up/ker"),
        (("*",), r"optim.frozen=\('\*',\) leaves nothing to learn"),
    ],
)
def test_patterns_that_cannot_be_meant_are_one_line(patterns, text):
    with pytest.raises(UserError, match=text):
        _ = toy.blueprint(frozen=patterns).shapes
