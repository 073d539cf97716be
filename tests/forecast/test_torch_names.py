"""Published weights fill every parameter of our networks once, or say what does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tds_jax.engine.step import split
from tds_jax.errors import UserError
from tds_jax.forecast.torch_names import import_params, inputs_of
from tests.forecast.published import NETWORKS, SIZES, build, filled, weights_by_rule


def imported(network, tensors):
    _, params, rest = split(network)
    return import_params(params, rest, tensors)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_tensor_is_used_once_whatever_stands_before_its_name(name):
    tensors = weights_by_rule(name)
    params, rest = imported(build(name), {f"module.{k}": v for k, v in tensors.items()})
    ours = [np.asarray(leaf) for leaf in jax.tree.leaves((params, rest))]
    floats = [v for k, v in tensors.items() if not k.endswith("tracked")]
    assert sorted(v.sum() for v in ours) == pytest.approx(sorted(v.sum() for v in floats))
    assert sum(leaf.size for leaf in ours) == sum(v.size for v in floats)


@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_tell_the_network(name):
    hidden, lstm_hidden = SIZES.get(name, (16, 0))
    assert inputs_of(weights_by_rule(name)) == {
        "name": name,
        "num_channels": 4,
        "hidden": hidden,
        "lstm_hidden": lstm_hidden,
    }


def test_both_shipped_checkpoints_fit():
    """4 channels with 16 hidden, and 1 with 32, which the original itself can no longer run."""
    for channels, hidden in ((4, 16), (1, 32)):
        tensors = weights_by_rule("convlstm", channels=channels, hidden=hidden)
        found = inputs_of(tensors)
        assert (found["num_channels"], found["hidden"]) == (channels, hidden)
        network = build("convlstm", num_channels=channels, hidden=hidden)
        maps = filled(network, tensors, np.float32)(jnp.ones((1, 3, 4, 5, channels)), False)
        assert np.isfinite(maps).all()


@pytest.mark.long
def test_both_layouts_read_the_same_weights():
    """On a map of one cell there is nothing to scramble."""
    tensors = weights_by_rule("cnn3d_lstm")
    nets = [
        filled(build("cnn3d_lstm", layout=layout), tensors, np.float32)
        for layout in ("reference", "pixels")
    ]
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 10, 1, 1, 4)), jnp.float32)
    first, second = (net(x, False) for net in nets)
    np.testing.assert_allclose(first, second, atol=1e-6)
    x = jnp.broadcast_to(x, (2, 10, 3, 3, 4)) * jnp.arange(9.0).reshape(1, 1, 3, 3, 1)
    assert np.abs(nets[0](x, False) - nets[1](x, False)).max() > 1e-3


def test_what_does_not_fit_is_named_with_both_shapes():
    tensors = weights_by_rule("convlstm")
    message = (
        r"'out.bias' gives 'out linear bias' the shape \(1,\) but.*\(10,\); set model.head='repeat'"
    )
    with pytest.raises(UserError, match=message):
        imported(build("convlstm", head="leads"), tensors)
    message = r"'cell.conv.bias' gives 'cell bias' the shape \(64,\) but the model has \(32,\)"
    with pytest.raises(UserError, match=message):
        imported(build("convlstm", hidden=8), tensors)


def test_missing_and_strange_tensors_are_named():
    tensors = weights_by_rule("cnn3d_lstm_micro")
    network = build("cnn3d_lstm_micro")
    with pytest.raises(UserError, match=r"nothing for parameter 'block_0 norm var' of shape \(16,"):
        imported(network, {k: v for k, v in tensors.items() if k != "bn1.running_var"})
    extra = {"bn2.weight": np.ones(16, np.float32)}
    with pytest.raises(UserError, match=r"'bn2.weight' is 'block_1 norm scale' of shape \(16,\)"):
        imported(network, tensors | extra)
    with pytest.raises(UserError, match=r"'bn1.weight' and 'ema.bn1.weight' both give"):
        imported(network, tensors | {"ema.bn1.weight": tensors["bn1.weight"]})
    with pytest.raises(UserError, match=r"'embedding.table' of shape \(2,\) is not one of"):
        imported(network, {"embedding.table": np.ones(2)})
    with pytest.raises(UserError, match=r"neither 'cell.conv.weight'"):
        inputs_of({"out.bias": np.ones(1)})


def test_land_cells_are_ours_and_stay():
    network = build("cnn3d_lstm_lite", layout="pixels", cells=3)
    _, rest = imported(network, weights_by_rule("cnn3d_lstm_lite"))
    np.testing.assert_array_equal(rest["cells"], [0, 1, 2])
