"""In bfloat16, everything that is summed is summed in f32, forward and backward."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.engine.step import split
from tds_jax.nn.batch_norm import BatchNorm
from tds_jax.nn.conv import Conv1d
from tds_jax.nn.conv_nd import ConvNd
from tds_jax.nn.group_norm import GroupNorm
from tds_jax.nn.linear import Linear, spread
from tds_jax.nn.norm import LayerNorm
from tds_jax.pose.models import PoseModel
from tds_jax.voxel.networks.unet import UNet
from tds_jax.voxel.networks.vae import VAE3D
from tds_jax.voxel.networks.vqvae import VQVAE3D
from tests.forecast import published
from tests.pose.test_parity import STUDENT, build

BF16 = jnp.dtype("bfloat16")
SUMS = ("reduce_sum", "cumsum", "scatter-add", "reduce_window_sum")
CODER = {"multipliers": (1, 2, 2), "blocks": 1, "span": "block", "remat": "none", "tile": 0}


def equations(jaxpr):
    """Every equation, those of inner programs included."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program):
            if _is_program(value):
                yield from equations(getattr(value, "jaxpr", value))


def _is_program(value):
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


def narrow(variable):
    return getattr(getattr(variable, "aval", None), "dtype", None) == BF16


def narrow_sums(function, *arguments):
    """What a program adds up in bfloat16: sums of more than one number, and totals of scans."""
    found = []
    for equation in equations(jax.make_jaxpr(function)(*arguments).jaxpr):
        name, inputs = equation.primitive.name, equation.invars
        if name in SUMS and narrow(inputs[0]):
            summed = math.prod(inputs[0].aval.shape[axis] for axis in equation.params["axes"]) if (
                "axes" in equation.params
            ) else 2  # fmt: skip
            found += [f"{name} {inputs[0].aval}"] * (summed > 1)
        if name == "scan":
            body = equation.params["jaxpr"].jaxpr
            carried = set(body.outvars[: equation.params["num_carry"]])
            for inner in body.eqns:
                total = inner.primitive.name == "add_any" and carried & set(inner.outvars)
                found += [f"total of a scan {inner.outvars[0].aval}"] * bool(
                    total and narrow(inner.outvars[0])
                )
    return found


def gradient(make, run):
    """params -> gradient of the sum of squares of run(model)."""
    graphdef, params, rest = split(nnx.eval_shape(make))

    def loss(params, rest):
        return jnp.sum(jnp.square(run(nnx.merge(graphdef, params, rest)).astype(jnp.float32)))

    return jax.grad(loss), params, rest


def student(**changes):
    return PoseModel(**STUDENT | changes, dtype=BF16, rngs=nnx.Rngs(0))


def unet():
    sizes = {"width": 32, "multipliers": (1, 2, 3), "heads": 4, "remat": "none", "dtype": BF16}
    return UNet(8, 4, **sizes, rngs=nnx.Rngs(0))


def vae():
    return VAE3D(4, 4, 4, **CODER, base=32, attention=True, dtype=BF16, rngs=nnx.Rngs(0))


def vqvae():
    book = {"codes": 64, "decay": 0.0, "window": 1, "restart_below": 0.0, "commitment": 0.25}
    options = CODER | book | {"base": 16, "attention": True}
    return VQVAE3D(4, 4, 4, **options, dtype=BF16, rngs=nnx.Rngs(0))


def zeros(*shape):
    return jnp.zeros(shape, jnp.float32)


def forecast(name, **chunks):
    def run(network):
        return network(zeros(2, 20, 8, 8, 4), train=True)

    return lambda: published.build(name, dtype=BF16, **chunks), run


KEYS = np.zeros((2, 2), np.uint32)
NETWORKS = {
    "student": (student, lambda m: m(zeros(2, 600, 16))),
    "student in chunks": (lambda: student(decoder_chunk=4), lambda m: m(zeros(2, 600, 16))),
    "tracking": (
        lambda: build("tracking_vemg2pose", BF16),
        lambda m: m(zeros(2, 2790, 16), zeros(2, 20)),
    ),
    "regression": (lambda: build("regression_emg2pose", BF16), lambda m: m(zeros(2, 2790, 16))),
    "neuropose": (
        lambda: build("regression_neuropose", BF16),
        lambda m: m(zeros(2, 1000, 16), None, jnp.asarray(KEYS)),
    ),
    "convlstm": forecast("convlstm"),
    "convlstm in chunks": forecast("convlstm", day_chunk=4),
    "cnn3d_lstm": forecast("cnn3d_lstm"),
    "cnn3d_lstm in chunks": forecast("cnn3d_lstm", example_chunk=1, pixel_chunk=16),
    "unet": (unet, lambda m: m(zeros(1, 4, 8, 8, 8), zeros(1))),
    "vae": (vae, lambda m: m(zeros(1, 8, 64, 64, 4))[0]),  # its attention in chunks of queries
    "vqvae": (vqvae, lambda m: m(zeros(1, 4, 16, 16, 4))[0]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_no_network_adds_up_in_bfloat16(name):
    make, run = NETWORKS[name]
    assert narrow_sums(*gradient(make, run)) == []


def test_sums_in_bfloat16_are_found():
    def lost(bias):
        return jnp.sum(jnp.broadcast_to(bias.astype(BF16), (8, 4)).astype(jnp.float32))

    def carried(w):
        w = w.astype(BF16)
        step = jax.checkpoint(lambda total, x: (total + jnp.sum(w * x), None))
        return jax.lax.scan(step, jnp.float32(0).astype(BF16), zeros(5, 4).astype(BF16))[0].astype(
            jnp.float32
        )

    assert narrow_sums(jax.grad(lost), zeros(4)) == ["reduce_sum bfloat16[8,4]"]
    assert any(
        found.startswith("total of a scan") for found in narrow_sums(jax.grad(carried), zeros(4))
    )


LAYERS = {
    "linear": lambda dtype: Linear(4, 4, dtype=dtype, rngs=nnx.Rngs(0)),
    "conv1d": lambda dtype: Conv1d(4, 4, 1, 1, bias=True, dtype=dtype, rngs=nnx.Rngs(0)),
    "conv": lambda dtype: ConvNd(4, 4, (3,), dtype=dtype, rngs=nnx.Rngs(0)),
    "layer norm": lambda dtype: LayerNorm(4, dtype=dtype),
    "group norm": lambda dtype: GroupNorm(4, 2, dtype=dtype),
    "batch norm": lambda dtype: BatchNorm(4),
}
ROWS = (64, 4096)  # 262,144 summands for each number
# f32 sums in order, 6e-8 each time, most of it cancelling: 512 of them in the worst walk of one
# deviation, times three; bfloat16 is 0.9 off here.
SAME = 3 * 512 * 6e-8


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_vectors_are_those_of_f64(name):
    rng = np.random.default_rng(0)
    shape = (*ROWS, 4)
    x = jnp.asarray(rng.normal(size=shape), BF16)
    g = jnp.asarray(1 + 0.5 * rng.normal(size=shape), BF16)  # mostly of one sign, as a bias has

    def gradients(dtype):
        graphdef, params, rest = split(LAYERS[name](dtype))

        def loss(params, x, g):
            y = nnx.merge(graphdef, params, rest)(*((x, True) if name == "batch norm" else (x,)))
            y = y[0] if name == "batch norm" else y
            wide = jnp.float64 if dtype == jnp.float64 else jnp.float32
            return jnp.sum(y.astype(wide) * g.astype(wide))

        given = (params, x, g) if dtype == BF16 else jax.tree.map(_f64, (params, x, g))
        found = jax.jit(jax.grad(loss))(*given)
        return {
            key: np.asarray(found[key], np.float64) for key in ("bias", "scale") if key in found
        }

    ours = gradients(BF16)
    with jax.enable_x64(True):
        exact = gradients(jnp.dtype("float64"))
    assert set(ours) == set(exact) >= {"bias"}
    for key in ours:
        scale = np.abs(exact[key]).max()
        np.testing.assert_allclose(ours[key] / scale, exact[key] / scale, atol=SAME)


def _f64(leaf):
    return jnp.asarray(leaf, jnp.float64)


def test_what_is_spread_is_the_same_as_cast_before():
    values = jnp.asarray(np.random.default_rng(0).normal(size=4), jnp.float32)
    like = zeros(3, 4).astype(BF16)
    np.testing.assert_array_equal(spread(values, like)[1], values.astype(BF16))
