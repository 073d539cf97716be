"""Forecast networks against the originals on weights of realistic scale, and what that sees.

Both sides are f64: eps 1e-16 times some hundred products per sum and twenty steps.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.engine.step import split
from tds_jax.forecast.torch_names import import_params
from tds_jax.nn import batch_norm
from tests.forecast.published import NETWORKS, build, shapes_of
from tests.parity import recorded

SAME = 1e-12
SEEN = 1e-7  # the least wrong variant is an epsilon of 1e-6, not 1e-5, beside variances of 1


@functools.cache
def compiled(name):
    """(run, params, rest): run(params, rest, x) is the first lead's map (B, H, W)."""
    graphdef, params, rest = split(build(name, dtype=jnp.float64))
    run = jax.jit(lambda params, rest, x: nnx.merge(graphdef, params, rest)(x, train=False)[:, 0])
    return run, params, rest


def error(name, tensors=None, run=None):
    """Of our network with these tensors, else with the rule's."""
    with jax.enable_x64(True):
        ours, params, rest = compiled(name)
        tensors = tensors or recorded.weights(shapes_of(name))
        wide = {key: value.astype(np.float64) for key, value in tensors.items()}
        params, rest = jax.tree.map(jnp.asarray, import_params(params, rest, wide))
        x = jnp.asarray(np.moveaxis(recorded.inputs(2, 20, 4, 5, 7), 2, -1), jnp.float64)
        maps = (run or ours)(params, rest, x)
    return recorded.error(maps, recorded.outputs(f"forecast/{NETWORKS[name][0]}")["eval"])


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_the_originals(name):
    assert error(name) <= SAME


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("order", [(1, 0, 2, 3), (0, 1, 3, 2), (0, 2, 1, 3)])
def test_another_order_of_gates_is_seen(name, order):
    tensors = recorded.weights(shapes_of(name))
    wrong = recorded.with_gates(tensors, order, lambda key: key.startswith(("lstm.", "cell.conv.")))
    assert error(name, wrong) > SEEN


@pytest.mark.long  # of the arrays, not of the code: they tell wrong networks apart
@pytest.mark.parametrize("name", NETWORKS)
def test_every_bias_and_statistic_is_seen(name):
    tensors = recorded.weights(shapes_of(name))
    for key, value in tensors.items():
        if "bias" in key or "running" in key:
            neutral = np.ones_like(value) if key.endswith("var") else np.zeros_like(value)
            assert error(name, tensors | {key: neutral}) > SEEN, key


@pytest.mark.long  # of the arrays, not of the code: they tell wrong networks apart
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "convlstm"])
def test_another_epsilon_is_seen(name, monkeypatch):
    graphdef = split(build(name, dtype=jnp.float64))[0]
    monkeypatch.setattr(batch_norm, "EPS", 1e-6)
    run = jax.jit(lambda p, r, x: nnx.merge(graphdef, p, r)(x, train=False)[:, 0])
    assert error(name, run=run) > SEEN
