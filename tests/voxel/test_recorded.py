"""Volume networks against the originals on weights of a trained network's scale; what that sees.

Both sides are f64: eps 1e-16 times some thousand products per sum and forty layers, whose
normalisations divide by what is left of their input.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.engine.step import split
from tds_jax.nn.conv_nd import ConvNd
from tds_jax.nn.group_norm import GroupNorm
from tds_jax.voxel.networks import blocks, torch_names, unet_names
from tds_jax.voxel.networks.unet import LinearAttention, UNet
from tds_jax.voxel.networks.vae import VAE3D
from tds_jax.voxel.networks.vqvae import VQVAE3D
from tests.parity import recorded
from tests.voxel import original
from tests.voxel.presets import PRESETS

SAME = 1e-11
SEEN = 1e-6  # what the least of the wrong variants must exceed: an epsilon, by 10 of its size
F64 = jnp.dtype("float64")
RUN = {"span": "block", "remat": "none", "tile": 0, "dtype": F64}
SMALL = {"multipliers": (1, 2, 2), "blocks": 1, "attention": True}
CODEBOOK = {"codes": 64, "decay": 0.0, "window": 1, "restart_below": 0.0, "commitment": 0.25}
VOLUME, LATENT = (1, 4, 4, 16, 16), (2, 8, 4, 8, 8)


def ultra():
    return VAE3D(4, 4, 4, **PRESETS["ultra"], **RUN, rngs=nnx.Rngs(0))


def attention():
    return VAE3D(4, 4, 4, **SMALL, base=32, **RUN, rngs=nnx.Rngs(0))


def vq():
    return VQVAE3D(4, 4, 4, **SMALL, **CODEBOOK, base=16, **RUN, rngs=nnx.Rngs(0))


def unet():
    sizes = {"width": 32, "multipliers": (1, 2, 3), "heads": 4, "remat": "none", "dtype": F64}
    return UNet(8, 4, **sizes, rngs=nnx.Rngs(0))


def coded(model, x):
    """Means, logarithms of variances, and the volume of the means, not yet through quant_conv."""
    mean, logvar = model.encode(x)
    return {"mean": mean, "logvar": logvar, "recon": model.decode(mean)}


def quantized(model, x):
    again, found = model(x)
    return {"latent": model.encode(x), "codes": found.indices, "recon": again}


def denoised(model, x):
    return {"out": model(x, jnp.asarray([0.5, 20.0], x.dtype))}


@dataclasses.dataclass(frozen=True)
class Network:
    """build() -> ours; shapes() -> {tensor: shape} of the original; outputs(model, x)."""

    build: object
    shapes: object
    outputs: object
    volume: tuple = VOLUME

    def weights(self):
        return recorded.weights(self.shapes())


NETWORKS = {
    "ultra": Network(ultra, lambda: original.vae(16, (1, 2, 2), attended=False), coded),
    "attention": Network(attention, lambda: original.vae(32, (1, 2, 2), attended=True), coded),
    "vq": Network(vq, lambda: original.vqvae(16, (1, 2, 2), 64), quantized),
    "unet": Network(unet, original.unet, denoised, LATENT),
}
FIRST = {"ultra": "mean", "attention": "mean", "vq": "latent", "unet": "out"}


def changed(model, kind, change):
    """The model after `change` of every part of a kind."""
    for _, part in nnx.iter_graph(model):
        if isinstance(part, kind):
            change(part)
    return model


def set_to(name, value):
    return lambda part: setattr(part, name, value)


def prepared(name, wrong=lambda model: model):
    """(graphdef, params of the original's weights) of a network, changed by `wrong`."""
    network = NETWORKS[name]
    graphdef, params, rest = split(nnx.eval_shape(lambda: wrong(network.build())))
    if name == "unet":
        params = unet_names.import_params(params, network.weights())
    else:
        params, _ = torch_names.import_params(params, rest, network.weights())
    return graphdef, jax.tree.map(lambda leaf: jnp.asarray(leaf, F64), params)


def errors(name):
    """{output: error} of a network."""
    with jax.enable_x64(True):
        return measured(name, *prepared(name))


def first_error(name, wrong):
    """Error of a changed network's first output; nothing behind it is compiled."""
    with jax.enable_x64(True):
        return measured(name, *prepared(name, wrong), only=FIRST[name])[FIRST[name]]


def measured(name, graphdef, params, only=None):
    network, expected = NETWORKS[name], recorded.outputs(f"voxel/{name}")
    x = jnp.asarray(np.moveaxis(recorded.inputs(*network.volume), 1, -1), F64)
    found = run(network.outputs, graphdef, only)(params, x)
    ours = {key: np.moveaxis(value, -1, 1) if value.ndim == 5 else np.asarray(value)
            for key, value in found.items()}  # fmt: skip
    return {key: recorded.error(ours[key], expected[key]) for key in set(found) & set(expected)}


@functools.cache
def run(outputs, graphdef, only):
    def chosen(params, x):
        found = outputs(nnx.merge(graphdef, params), x)
        return {only: found[only]} if only else found

    return jax.jit(chosen)


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_the_originals(name):
    assert max(errors(name).values()) <= SAME


def strided(part):
    return part.stride not in (1, (1, 1, 1))


def zeros_after(part):
    """As Flax's "SAME" puts them where the stride is 2."""
    if strided(part):
        strides = (part.stride,) * 3 if isinstance(part.stride, int) else part.stride
        part.padding = tuple((0, 1) if stride == 2 else (1, 1) for stride in strides)


def zeros_before(part):
    if part.kernel.shape[0] > 1 and not strided(part):
        part.padding = ((2, 0),) * 3


WRONG = {
    "epsilon": lambda model: changed(model, GroupNorm, set_to("eps", 1e-6)),
    "padding of strides": lambda model: changed(model, ConvNd, zeros_after),
    "padding": lambda model: changed(model, ConvNd, zeros_before),
}


@pytest.mark.long  # of the arrays, not of the code: they tell wrong networks apart
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("variant", WRONG)
def test_a_wrong_variant_is_seen(name, variant):
    assert first_error(name, WRONG[variant]) > SEEN


@pytest.mark.parametrize("heads", [pytest.param(n, marks=pytest.mark.long) for n in (1, 8)])
def test_another_number_of_heads_is_seen_in_the_u_net(heads):
    def wrong(model):
        return changed(model, LinearAttention, set_to("heads", heads))

    assert first_error("unet", wrong) > SEEN


@pytest.mark.long
@pytest.mark.parametrize("name", ["attention", "vq"])
def test_another_number_of_heads_is_seen_in_the_coders(name, monkeypatch):
    monkeypatch.setattr(blocks, "ATTENTION_HEADS", 1)
    run.cache_clear()  # the number is no part of what it is called with
    assert first_error(name, lambda model: model) > SEEN
    run.cache_clear()


@pytest.mark.long
def test_every_bias_of_the_u_net_that_has_an_effect_is_seen():
    """Change of the outputs, in some direction, were each left out alone.

    Without effect: those before 32 groups of one channel each, which take every constant away.
    """
    name, direction = "unet", np.random.default_rng(1)
    network = NETWORKS[name]
    with jax.enable_x64(True):
        graphdef, params = prepared(name)
        x = jnp.asarray(np.moveaxis(recorded.inputs(*network.volume), 1, -1), F64)

        def along(params):
            found = network.outputs(nnx.merge(graphdef, params), x)
            return sum(jnp.sum(v * direction.normal(size=v.shape)) for v in found.values())

        gradient = jax.jit(jax.grad(along))(params)
        changes = jax.tree.map(lambda g, leaf: float(jnp.max(jnp.abs(g * leaf))), gradient, params)
    unseen = set()
    for path, change in jax.tree_util.tree_leaves_with_path(changes):
        if path[-1].key == "bias" and change <= SEEN:
            unseen.add("/".join(key.key for key in path[:-1]))
    assert unseen == {
        "down_0/conv_in",
        "up_4/conv_in",
        "up_5/conv_in",
        "up_5/conv_out",
        "up_5/skip",
    }
