"""Files of any format give the model's parameters or their average, and say which."""

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from tds_jax.errors import UserError
from tds_jax.forecast import torch_names as forecast_names
from tds_jax.interchange import checkpoint, torch_fill
from tds_jax.pose import torch_names as pose_names
from tds_jax.voxel.networks import torch_names as volume_names
from tds_jax.voxel.networks import unet_names
from tests.interchange.torch_files import Tensor, write_zip


def draw(seed):
    return np.random.default_rng(seed).normal(size=(2, 3)).astype(np.float32)


def state(seed, prefix=""):
    return {f"{prefix}a.weight": Tensor.of(draw(seed))}


def test_safetensors_come_out_with_their_values_and_types(tmp_path):
    wanted = {"a": draw(0), "b": draw(1).astype("f2"), "c": np.arange(3), "d": np.float64([2.5])}
    path = tmp_path / "a.safetensors"
    save_file(wanted, path)
    found = checkpoint.read(path).tensors
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, strict=True)


def raw(path, dtype, data):
    about = {"a": {"dtype": dtype, "shape": [2], "data_offsets": [0, len(data)]}}
    header = json.dumps(about).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def test_safetensors_of_bfloat16_are_wide_and_of_other_types_refused(tmp_path):
    # bfloat16 is the upper half of a float32: 3FC0 is 1.5, C120 is -10; no ending tells the format
    found = checkpoint.read(raw(tmp_path / "a.bin", "BF16", b"\xc0\x3f\x20\xc1")).tensors["a"]
    np.testing.assert_array_equal(found, np.float32([1.5, -10]), strict=True)
    with pytest.raises(UserError, match=r"tensor 'a' is of type F8_E4M3, known are BF16, .*F32$"):
        checkpoint.read(raw(tmp_path / "b.safetensors", "F8_E4M3", b"\x00\x00"))


def test_a_cut_safetensors_file_is_called_what_it_is(tmp_path):
    whole = raw(tmp_path / "a.safetensors", "F32", bytes(8)).read_bytes()
    for size in (0, 5, 30, len(whole) - 1):
        (tmp_path / "a.safetensors").write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"is no whole safetensors file \(.*\); fetch or save"):
            checkpoint.read(tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="cannot be read"):
        checkpoint.read(tmp_path / "none.safetensors")


PLACES = {
    "beside": {"state_dict": state(0), "ema_state_dict": state(1)},
    "wrapped": {"model": state(0), "ema": {"module": state(1)}},
    "prefix": {"state_dict": state(0, "model.") | state(1, "ema_model.")},
    "online": state(0, "online_model.") | state(1, "ema_model.") | {"initted": Tensor.of([True])},
}


@pytest.mark.parametrize("content", PLACES.values(), ids=PLACES)
def test_of_both_the_model_is_taken_and_the_average_said_or_asked_for(tmp_path, content):
    path = write_zip(tmp_path / "a.pt", content)
    found = {kind: checkpoint.read(path, kind) for kind in ("model", "ema")}
    for seed, archive in enumerate(found.values()):
        ((name, tensor),) = archive.tensors.items()
        assert torch_fill.bare(name) == "a.weight"
        np.testing.assert_array_equal(tensor, draw(seed))
    assert len(found["model"].averages) == 1
    assert found["ema"].averages == ()


def test_an_average_alone_is_taken_and_one_that_is_not_there_refused(tmp_path):
    alone = checkpoint.read(write_zip(tmp_path / "a.pt", {"ema": state(1), "step": 3}))
    assert (alone.source, list(alone.tensors)) == ("ema", ["a.weight"])
    averaged = {"n_averaged": Tensor.of(7)} | state(1, "module.")
    found = checkpoint.read(write_zip(tmp_path / "b.pt", averaged))
    assert (list(found.tensors), found.others) == (["module.a.weight"], ("n_averaged",))
    with pytest.raises(UserError, match=r"holds no averaged weights \(none of ema, .* leave --w"):
        checkpoint.read(write_zip(tmp_path / "c.pt", state(0)), "ema")


def test_words_of_wrappers_do_not_count_wherever_they_stand():
    for name in (
        "module.decoder._checkpoint_wrapped_module.up.0.conv",
        "_orig_mod.model.decoder.up._orig_mod.0.conv",
        "decoder.up.0._fsdp_wrapped_module.conv",
    ):
        assert torch_fill.bare(name) == "decoder.up.0.conv"


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (pose_names, "network.layers.1.layers.tds_block.tds_conv_blocks.0.conv2d.bias"),
        (pose_names, "decoder.lstm.weight_ih_l1"),
        (forecast_names, "cell.conv.bias"),
        (forecast_names, "lstm.weight_ih_l0"),
        (volume_names, "encoder.down_blocks.1.0.conv1.bias"),
        (unet_names, "input_blocks.1.0.in_layers.0.bias"),
    ],
)
def test_every_domain_knows_its_layers_in_wrappers(names, name):
    plain, tensor = names.convert(name, np.ones(4, np.float32)), np.ones(4, np.float32)
    words = name.split(".")
    wrapped = [*words[:-2], "_checkpoint_wrapped_module", words[-2], "_orig_mod", words[-1]]
    for other in (f"module._orig_mod.{name}", f"model.{name}", ".".join(wrapped)):
        assert names.convert(other, tensor)[0] == plain[0]


def test_weights_that_are_no_numbers_are_refused_by_name():
    tensors = {"a": draw(0), "b": np.float32([1, np.nan, np.inf])}
    with pytest.raises(UserError, match="tensor 'b' has NaN or Inf in 2 of 3 values"):
        torch_fill.converted(tensors, lambda name, tensor: (name, tensor))
