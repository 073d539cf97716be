"""Autoencoders against arrays and numbers of the original, from weights filled by a rule.

The original's numbers are f32: 1e-5 of the largest, and some 5e-5 behind the decoder, is the error
of its sums, whose terms mostly cancel with these weights. Ours are f64.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.engine.step import split
from tds_jax.voxel.networks.torch_names import convert, import_params
from tds_jax.voxel.networks.vae import VAE3D, kl_divergence
from tds_jax.voxel.networks.vqvae import VQVAE3D
from tests.voxel import golden, original
from tests.voxel.presets import PRESETS

RUN = {"span": "block", "remat": "none", "tile": 0, "dtype": jnp.float64}
SMALL = {"multipliers": (1, 2, 2), "blocks": 1, "attention": True}
CODEBOOK = {"codes": 64, "decay": 0.0, "window": 1, "restart_below": 0.0, "commitment": 0.25}


def filled(kind, options, tensors, run=RUN):
    """(graphdef, params) of a model with imported weights, in the type of `run`."""

    def build():
        return kind(4, 4, 4, **options, **run, rngs=nnx.Rngs(0))

    graphdef, params, rest = split(nnx.eval_shape(build))
    params, _ = import_params(params, rest, tensors)
    return graphdef, jax.tree.map(lambda leaf: jnp.asarray(leaf, run["dtype"]), params)


def error(ours, theirs):
    ours = np.asarray(ours)
    assert ours.shape == theirs.shape
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


@functools.cache
def ultra():
    """({output: array}, (loss, kl), {tensor: norm of its gradient}) of the original's check."""
    tensors = golden.fill(golden.shapes("ultra"))
    with jax.enable_x64(True):
        graphdef, params = filled(VAE3D, PRESETS["ultra"], tensors)

        def loss(params, x):
            model = nnx.merge(graphdef, params)
            mean, logvar = model.encode(x)
            z = model.quantize(mean, logvar)
            again = model.decode(z)
            kl = jnp.mean(kl_divergence(mean, logvar))
            outputs = {"mu": mean, "logvar": logvar, "z": z, "recon": again}
            total = jnp.mean((again - x) ** 2) + 1e-6 * kl
            return total, (outputs, kl)

        x = jnp.asarray(golden.arrays()["x"], jnp.float64)
        f = jax.jit(jax.value_and_grad(loss, has_aux=True))
        (total, (outputs, kl)), gradient = f(params, x)
        norms = jax.tree.map(lambda g: float(jnp.linalg.norm(g)), gradient)
        paths = {name: convert(name, tensor)[0] for name, tensor in tensors.items()}
        found = {n: functools.reduce(dict.get, p.split(), norms) for n, p in paths.items()}
        return jax.tree.map(np.asarray, outputs), (float(total), float(kl)), found


@pytest.mark.parametrize(
    ("name", "key", "bound"),
    [
        ("mu", "enc mean", 2e-5),
        ("logvar", "enc logvar", 2e-5),
        ("z", "z", 2e-5),
        ("recon", "recon", 1e-4),
    ],
)
def test_ultra_has_the_originals_latents_and_reconstruction(name, key, bound):
    """Single elements differ by the original's rounding, their norm hardly does."""
    ours, expected = ultra()[0][name], golden.numbers()[f"ultra {key}"]
    assert error(ours, golden.arrays()[name]) <= bound
    assert np.linalg.norm(ours) == pytest.approx(expected["l2"], rel=1e-5)


def test_ultra_has_the_originals_loss_and_gradients():
    _, (total, kl), norms = ultra()
    expected = golden.numbers()
    assert total == pytest.approx(expected["ultra loss@54adebe"][0], rel=1e-5)
    assert kl == pytest.approx(expected["ultra loss@54adebe"][2], rel=1e-5)
    for name, norm in expected["ultra grad"].items():
        assert norms[name] == pytest.approx(norm, rel=1e-4)  # f32 through 40 layers
    whole = np.linalg.norm(list(norms.values()))
    assert whole == pytest.approx(expected["ultra grad total"], rel=1e-5)


def test_attention_is_the_originals():
    tensors = golden.fill(original.vae(32, (1, 2, 2), attended=True))
    arrays = golden.arrays()
    with jax.enable_x64(True):
        graphdef, params = filled(VAE3D, SMALL | {"base": 32}, tensors)
        x = jnp.asarray(arrays["xs"], jnp.float64)
        again, mean, _ = jax.jit(lambda params, x: nnx.merge(graphdef, params)(x))(params, x)
        assert error(mean, arrays["attn_mu"]) <= 1e-5
        assert error(again, arrays["attn_recon"]) <= 2e-5


def test_vq_vae_is_the_originals_with_codes_as_parameters():
    tensors = golden.fill(original.vqvae(16, (1, 2, 2), 64))
    expected = golden.numbers()
    with jax.enable_x64(True):
        graphdef, params = filled(VQVAE3D, SMALL | CODEBOOK | {"base": 16}, tensors)
        x = jnp.asarray(golden.arrays()["xs"], jnp.float64)

        def f(params, x):
            model = nnx.merge(graphdef, params)
            again, quantized = model(x)
            return again, quantized, model.quantization_loss(quantized)

        again, quantized, loss = jax.jit(f)(params, x)
        assert float(loss[0]) == pytest.approx(expected["vq loss"], rel=1e-5)
        norm = float(jnp.linalg.norm(again))
        assert norm == pytest.approx(expected["vq(64 codes) recon"]["l2"], rel=1e-5)
        indices = np.ravel(quantized.indices)
        np.testing.assert_array_equal(indices[:16], expected["vq idx first16"])
        assert len(set(indices.tolist())) == expected["vq idx unique"]


@pytest.mark.parametrize(("base", "multipliers"), [(16, (1, 2, 2)), (32, (1, 2, 4))])
def test_the_description_of_state_dicts_has_the_published_counts(base, multipliers):
    shapes = original.vae(base, multipliers, attended=False)
    count = sum(int(np.prod(shape)) for shape in shapes.values())
    assert count == {16: 694_788, 32: 7_652_628}[base]
    if base == 16:
        assert shapes == golden.shapes("ultra")
        assert list(shapes) == list(golden.shapes("ultra"))
