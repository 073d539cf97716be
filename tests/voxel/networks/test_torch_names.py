"""Checkpoints fill every leaf exactly once, or say which does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.engine.step import split
from tds_jax.errors import UserError
from tds_jax.voxel.networks.torch_names import import_params
from tds_jax.voxel.networks.vae import VAE3D
from tds_jax.voxel.networks.vqvae import VQVAE3D
from tests.voxel import original

SETTINGS = {
    "base": 4, "multipliers": (1, 2), "blocks": 1, "attention": True, "span": "block",
    "remat": "none", "tile": 0, "dtype": jnp.float32,
}  # fmt: skip
CODEBOOK = {"codes": 8, "decay": 0.9, "window": 1, "restart_below": 0.0, "commitment": 0.25}


def states(build):
    _, params, rest = split(nnx.eval_shape(build))
    return params, rest


def vae():
    return states(lambda: VAE3D(4, 4, 4, **SETTINGS, rngs=nnx.Rngs(0)))


def tensors(shapes):
    """Every number of every tensor is its own."""
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
    return {
        name: np.arange(end - np.prod(shape), end, dtype=np.float64).reshape(shape)
        for (name, shape), end in zip(shapes.items(), ends, strict=True)
    }


def test_every_number_of_a_checkpoint_arrives_once():
    given = tensors(original.vae(4, (1, 2), attended=True))
    params, _ = import_params(*vae(), given)
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])
    np.testing.assert_array_equal(np.sort(flat), np.arange(flat.size))


def test_kernels_are_turned_to_channels_last():
    given = tensors(original.vae(4, (1, 2), attended=True))
    params, _ = import_params(*vae(), given)
    theirs = given["encoder.down_blocks.1.0.conv1.weight"]  # (out, in, d, h, w)
    ours = params["encoder"]["down_1_0"]["conv_1"]["kernel"]
    assert ours[0, 1, 2, 3, 4] == theirs[4, 3, 0, 1, 2]


def test_the_prefix_of_parallel_training_does_not_matter():
    given = tensors(original.vae(4, (1, 2), attended=True))
    bare = import_params(*vae(), given)[0]
    other = import_params(*vae(), {f"module.{k}": v for k, v in given.items()})[0]
    jax.tree.map(np.testing.assert_array_equal, bare, other)


def test_codes_that_are_followed_are_imported_and_their_counts_left():
    params, rest = states(lambda: VQVAE3D(4, 4, 4, **SETTINGS, **CODEBOOK, rngs=nnx.Rngs(0)))
    given = tensors(original.vqvae(4, (1, 2), 8))
    filled = import_params(params, rest, given)[1]["codebook"]
    np.testing.assert_array_equal(filled["codes"], given["quantizer.embedding.weight"])
    assert filled["sizes"] is rest["codebook"]["sizes"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("decoder.conv_out.bias"), r"nothing .*'decoder out conv bias'.*\(4,\)"),
        (lambda t: t.update(extra=np.zeros(3)), r"'extra' of shape \(3,\)"),
        (
            lambda t: t.update({"quant_conv.bias": np.zeros(5)}),
            r"'quant_conv.bias'.*\(5,\).*\(4,\)",
        ),
        (
            lambda t: t.update({"encoder.mid_block.2.skip.bias": np.zeros(8)}),
            r"skip.bias' is 'encoder mid_2 skip bias' of shape \(8,\)",
        ),
        (
            lambda t: t.update({"module.quant_conv.bias": np.zeros(4)}),
            r"'quant_conv.bias' and 'module.quant_conv.bias'",
        ),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    given = tensors(original.vae(4, (1, 2), attended=True))
    change(given)
    with pytest.raises(UserError, match=message):
        import_params(*vae(), given)
