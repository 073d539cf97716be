"""Checkpoints fill every leaf exactly once, whatever their prefixes, or say which does not fit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.engine.step import split
from tds_jax.errors import UserError
from tds_jax.pose.models import PoseModel
from tds_jax.pose.neuropose import NeuroPose
from tds_jax.pose.torch_names import convert, import_params, inputs_of

SETTINGS = {
    "num_channels": 3, "num_joints": 2, "sample_rate": 2000.0, "conv_kernels": (4, 3),
    "conv_strides": (2, 2), "groups": (2, 2), "widths": (3, 2), "tds_kernels": (1, 2),
    "tds_blocks": (0, 1), "dropout": 0.0, "decoder": "lstm", "hidden": 5, "layers": 2,
    "mlp_hidden": (6, 7), "rollout_freq": 50.0, "output": "position", "output_scale": 1.0,
    "initial_pose": "zeros", "reference_rate": False, "decoder_chunk": 0, "remat": "none",
    "dtype": jnp.float32, "norm_order": "relu_norm", "conv_bias": True, "out_features": 4,
    "alignment": "reference",
}  # fmt: skip
ENCODER = {
    "layers.0.conv.0.weight": (6, 3, 4), "layers.0.conv.0.bias": (6,),
    "layers.0.norm.weight": (6,), "layers.0.norm.bias": (6,),
    "layers.1.layers.conv1dblock.conv.0.weight": (4, 6, 3),
    "layers.1.layers.conv1dblock.conv.0.bias": (4,),
    "layers.1.layers.conv1dblock.norm.weight": (4,),
    "layers.1.layers.conv1dblock.norm.bias": (4,),
    "layers.1.layers.tds_block.tds_conv_blocks.0.conv2d.weight": (2, 2, 1, 2),
    "layers.1.layers.tds_block.tds_conv_blocks.0.conv2d.bias": (2,),
    "layers.1.layers.tds_block.tds_conv_blocks.0.layer_norm.weight": (4,),
    "layers.1.layers.tds_block.tds_conv_blocks.0.layer_norm.bias": (4,),
    "layers.1.layers.tds_block.tds_conv_blocks.1.fc_block.0.weight": (4, 4),
    "layers.1.layers.tds_block.tds_conv_blocks.1.fc_block.0.bias": (4,),
    "layers.1.layers.tds_block.tds_conv_blocks.1.fc_block.2.weight": (4, 4),
    "layers.1.layers.tds_block.tds_conv_blocks.1.fc_block.2.bias": (4,),
    "layers.1.layers.tds_block.tds_conv_blocks.1.layer_norm.weight": (4,),
    "layers.1.layers.tds_block.tds_conv_blocks.1.layer_norm.bias": (4,),
    "layers.1.linear_layer.weight": (4, 4), "layers.1.linear_layer.bias": (4,),
}  # fmt: skip
LSTM = {
    "lstm.weight_ih_l0": (20, 6), "lstm.weight_hh_l0": (20, 5), "lstm.bias_ih_l0": (20,),
    "lstm.bias_hh_l0": (20,), "lstm.weight_ih_l1": (20, 5), "lstm.weight_hh_l1": (20, 5),
    "lstm.bias_ih_l1": (20,), "lstm.bias_hh_l1": (20,), "mlp_out.1.weight": (2, 5),
    "mlp_out.1.bias": (2,),
}  # fmt: skip
MLP = {
    "mlp.0.weight": (6, 6), "mlp.0.bias": (6,), "mlp.1.weight": (6,), "mlp.1.bias": (6,),
    "mlp.3.weight": (7, 6), "mlp.3.bias": (7,), "mlp.4.weight": (7,), "mlp.4.bias": (7,),
    "mlp.6.weight": (2, 7), "mlp.6.bias": (2,),
}  # fmt: skip
DECODERS = {"lstm": LSTM, "mlp": MLP}


def tensors(decoder="lstm", network="network.", head="decoder.", before="model."):
    """Every value different from every other."""
    shapes = {before + network + name: shape for name, shape in ENCODER.items()}
    shapes |= {before + head + name: shape for name, shape in DECODERS[decoder].items()}
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


@functools.cache
def state(**changes):
    return split(PoseModel(**SETTINGS | changes, rngs=nnx.Rngs(0)))[1:]


def refused(given, **changes):
    with pytest.raises(UserError) as caught:
        import_params(*state(**changes), given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_leaf_is_filled_with_a_value_of_the_file(decoder):
    given = tensors(decoder)
    before, _ = state(decoder=decoder)
    params, rest = import_params(*state(decoder=decoder), given)
    jax.tree.map(lambda a, b: np.testing.assert_equal(a.shape, b.shape), params, before)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    summed = 2 * 20 if decoder == "lstm" else 0  # two biases per layer become one
    assert count == sum(value.size for value in given.values()) - summed
    values = {round(float(v), 9) for leaf in jax.tree.leaves(params) for v in np.ravel(leaf)}
    assert len(values) == count
    np.testing.assert_array_equal(rest["normalizer"]["scale"], np.ones(3))


def test_layouts_are_turned_and_biases_are_summed():
    given = tensors()
    params, _ = import_params(*state(), given)
    stage = params["encoder"]["stage_1"]
    name = "model.network.layers.1.layers."
    conv = given[name + "conv1dblock.conv.0.weight"]
    np.testing.assert_array_equal(stage["conv"]["kernel"][2, 5, 3], conv[3, 5, 2])
    conv = given[name + "tds_block.tds_conv_blocks.0.conv2d.weight"]
    np.testing.assert_array_equal(stage["block_0"]["kernel"][1, 0, 1], conv[1, 0, 0, 1])
    layer = params["decoder"]["core"]["lstm"]["layer_1"]
    bias = given["model.decoder.lstm.bias_ih_l1"] + given["model.decoder.lstm.bias_hh_l1"]
    np.testing.assert_array_equal(layer["bias"], bias)


@pytest.mark.parametrize(
    "names",
    [
        {"before": ""},
        {"before": "module.model."},
        {"network": "featurizer.", "before": ""},
        {"network": "backbone.tds.", "head": "rnn.", "before": "_orig_mod."},
        {"network": "", "head": "", "before": ""},
    ],
)
def test_renamed_prefixes_are_recognised(names):
    expected = import_params(*state(), tensors())
    found = import_params(*state(), tensors(**names))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_two_models_in_one_file_are_ambiguous():
    text = refused(tensors() | tensors(before="ema."))
    assert "'model.network.layers.0.conv.0.weight' and 'ema.network.layers.0.conv.0.weight'" in text


def test_what_is_missing_too_much_or_misshapen_is_named_with_its_shapes():
    name = "model.network.layers.0.norm.bias"
    without = {k: v for k, v in tensors().items() if k != name}
    assert "nothing for parameter 'encoder stage_0 norm bias' of shape (6,)" in refused(without)
    wrong = tensors() | {name: np.zeros(7)}
    assert f"{name!r} gives 'encoder stage_0 norm bias' the shape (7,) but" in refused(wrong)
    assert "the model has (6,)" in refused(wrong)
    more = "model.network.layers.5.norm.bias"
    text = refused(tensors() | {more: np.zeros(6)})
    assert f"{more!r} is 'encoder stage_5 norm bias' of shape (6,), which the model does" in text
    text = refused(tensors() | {"model.fc.weight": np.zeros((6, 2))})
    assert "'model.fc.weight' of shape (6, 2) is not one of a pose model" in text


def test_another_decoder_and_another_size_are_refused():
    text = refused(tensors("lstm"), decoder="mlp")
    assert "nothing for parameter 'decoder core linear_0 bias' of shape (6,)" in text
    assert "the shape (2,) but the model has (4,)" in refused(tensors(), output="hybrid")


def test_a_learned_initial_pose_begins_at_zero_as_the_originals_do():
    params, _ = import_params(*state(initial_pose="learned"), tensors())
    np.testing.assert_array_equal(params["start"], np.zeros(2))


@pytest.mark.parametrize("decoder", DECODERS)
def test_shapes_tell_the_recordings(decoder):
    wanted = {"num_channels": 3, "num_joints": 2, "sample_rate": 2000.0}
    assert inputs_of(tensors(decoder)) == wanted


def test_without_a_last_layer_the_features_are_the_last_stages():
    given = {k: v for k, v in tensors().items() if "linear_layer" not in k}
    assert inputs_of(given)["num_joints"] == 2


def neuropose_tensors():
    """Names as PyTorch numbers them: convolution, norm, activation, dropout."""
    rng, given = np.random.default_rng(0), {}

    def conv(name, n, inputs, outputs):
        given[f"{name}.{n}.weight"] = rng.normal(size=(outputs, inputs, 3, 2))
        for leaf in (f"{n}.bias", f"{n + 1}.weight", f"{n + 1}.bias"):
            given[f"{name}.{leaf}"] = rng.normal(size=outputs)
        for leaf in ("running_mean", "running_var"):
            given[f"{name}.{n + 1}.{leaf}"] = rng.uniform(size=outputs)
        given[f"{name}.{n + 1}.num_batches_tracked"] = np.array(7)

    ends = [(1, 2), (2, 3), (3, 4), None, (4, 3), (3, 2), (2, 1)]
    for n, pair in enumerate(ends):
        for m in (0,) if pair else (0, 4, 8):
            conv(f"network.network.{n}.network", m, *(pair or (4, 4)))
    given["network.linear.weight"] = rng.normal(size=(5, 32))
    given["network.linear.bias"] = rng.normal(size=5)
    return given


def test_neuroposes_parameters_and_statistics_all_come_from_the_file():
    model = NeuroPose(
        num_channels=4, num_joints=5, channels=(2, 3, 4), pools=(2, 2, 2),
        electrode_pools=(2, 2, 1), residual_blocks=1, dropout=0.0, remat="none",
        dtype=jnp.float32, rngs=nnx.Rngs(0),
    )  # fmt: skip
    _, params, rest = split(model)
    given = neuropose_tensors()
    params, rest = import_params(params, rest, given)
    name = "network.network.3.network.8.weight"
    kernel = params["block_3"]["conv_2"]["kernel"]
    assert kernel[2, 1, 0, 3] == given[name][3, 0, 2, 1]
    norm = rest["block_3"]["conv_2"]["norm"]
    np.testing.assert_array_equal(norm["var"], given["network.network.3.network.9.running_var"])
    scale = params["block_6"]["conv_0"]["norm"]["scale"]
    np.testing.assert_array_equal(scale, given["network.network.6.network.1.weight"])
    assert inputs_of(given) == {"num_channels": 16, "num_joints": 5, "sample_rate": 2000.0}
    del given["network.network.3.network.9.running_var"]
    with pytest.raises(UserError, match="nothing for parameter 'block_3 conv_2 norm var'"):
        import_params(*split(model)[1:], given)


def test_students_names_are_known_too():
    path, _ = convert("encoder.stages.1.tds_encoder.tds_blocks.3.layer_norm.weight", np.ones(4))
    assert path == "encoder stage_1 block_1 fc_norm scale"
    path, _ = convert("decoder.output_layer.1.weight", np.ones((2, 5)))
    assert path == "decoder core head kernel"
