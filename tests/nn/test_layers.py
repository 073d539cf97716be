"""Laws of the shared layers: convolution, normalisation, dropout, resampling, LSTM."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.nn.conv import banded, native, width_conv1d
from tds_jax.nn.dropout import dropout, keep_scale
from tds_jax.nn.linear import matmul
from tds_jax.nn.lstm import LSTM, update_cell
from tds_jax.nn.noise import key_of
from tds_jax.nn.norm import LayerNorm, _normalize
from tds_jax.nn.normalizer import Normalizer, Statistic
from tds_jax.nn.resample import interpolate, upsample

F32 = jnp.float32


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), F32)


def direct_width_conv(x, kernel, width):
    """The definition, by loops, in f64."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    size, groups, out = kernel.shape
    x = x.reshape(*x.shape[:2], groups, width)
    y = np.zeros((x.shape[0], x.shape[1] - size + 1, out, width))
    for k in range(size):
        y += np.einsum("btgw,gh->bthw", x[:, k : k + y.shape[1]], kernel[k])
    return y.reshape(*y.shape[:2], -1)


# T below, at and above multiples of the block of 16, kernels shorter and longer than it.
@pytest.mark.parametrize(("length", "size"), [(7, 7), (36, 21), (37, 21), (38, 21), (100, 5)])
@pytest.mark.parametrize("form", [width_conv1d, banded, native])
def test_every_form_of_the_width_convolution_is_its_definition(form, length, size):
    x, kernel = normal(2, length, 12), normal(size, 3, 5, seed=1)
    # sums of at most 63 products of order 1 in f32: 63 * 6e-8 * a few
    np.testing.assert_allclose(form(x, kernel), direct_width_conv(x, kernel, 4), atol=3e-5)


@pytest.mark.parametrize("form", [width_conv1d, banded])
def test_width_convolution_has_the_gradients_of_thenative_one(form):
    x, kernel, g = normal(3, 50, 12), normal(21, 3, 3, seed=1), normal(3, 30, 12, seed=2)
    ours = jax.jit(lambda: jax.vjp(form, x, kernel)[1](g))()
    theirs = jax.vjp(native, x, kernel)[1](g)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)  # 3 * 30 * 4 products of order 1


def test_a_product_has_the_gradients_of_autodiff():
    x, matrix, g = normal(2, 7, 3), normal(3, 5, seed=1), normal(2, 7, 5, seed=2)
    ours = jax.vjp(matmul, x, matrix)
    theirs = jax.vjp(jnp.matmul, x, matrix)
    np.testing.assert_array_equal(ours[0], theirs[0])
    for a, b in zip(ours[1](g), theirs[1](g), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)  # sums of at most 14 products of order 1


def test_layer_norm_uses_the_biased_variance_and_torch_eps():
    x = 1e-2 * normal(4, 8) + 3
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(np.var(x, -1, keepdims=True) + 1e-5)
    # the mean of 3 is good to 2 ulp of 2.4e-7, over deviations of 1e-2
    np.testing.assert_allclose(LayerNorm(8, dtype=F32)(x), expected, atol=5e-5)


def test_layer_norm_of_bf16_takes_its_statistics_in_f32():
    x = (normal(4, 512) * 0.25 + 64).astype(jnp.bfloat16)
    y = LayerNorm(512, dtype=jnp.bfloat16)(x)
    assert y.dtype == jnp.bfloat16
    exact = LayerNorm(512, dtype=F32)(x.astype(F32))
    np.testing.assert_allclose(y.astype(F32), exact, rtol=2**-8)  # one rounding to 8 bits


@pytest.mark.parametrize("shape", [(4, 8), (3, 4, 8)])
def test_gradients_of_layer_norm_are_those_of_its_formula(shape):
    def formula(x, scale, bias):
        x = x - jnp.mean(x, axis=-1, keepdims=True)
        x = x / jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-5)
        rows = (1,) * (x.ndim - 1)
        return x * scale.reshape(*rows, -1) + bias.reshape(*rows, -1)

    with jax.enable_x64(True):
        draws = (normal(*shape), normal(8, seed=1), normal(8, seed=2), normal(*shape, seed=3))
        *arrays, g = (a.astype(jnp.float64) for a in draws)
        forms = (formula, functools.partial(_normalize, 1e-5))
        for a, b in zip(*(jax.vjp(f, *arrays)[1](g) for f in forms), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-12)


def test_layer_norm_of_bf16_has_a_bf16_gradient():
    x = normal(4, 8).astype(jnp.bfloat16)
    exact = jax.grad(lambda x: jnp.sum(LayerNorm(8, dtype=F32)(x) ** 3))(x.astype(F32))
    narrow = jax.grad(lambda x: jnp.sum(LayerNorm(8, dtype=F32)(x) ** 3))(x)
    assert narrow.dtype == jnp.bfloat16
    np.testing.assert_allclose(narrow.astype(F32), exact, rtol=2**-8)  # rounded once, at the end


def test_dropout_of_an_example_does_not_depend_on_its_batch():
    keys = jnp.arange(12, dtype=jnp.uint32).reshape(6, 2)
    x = jnp.ones((6, 50, 4))
    whole = dropout(x, 0.3, keys, 2)
    parts = [dropout(x[i : i + 2], 0.3, keys[i : i + 2], 2) for i in (0, 2, 4)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    assert not np.array_equal(whole[0], whole[1])
    assert not np.array_equal(whole, dropout(x, 0.3, keys, 3))


def test_dropout_is_what_an_examples_own_key_draws():
    keys = jnp.arange(4, dtype=jnp.uint32).reshape(2, 2)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 3)), F32)  # 15: no whole bytes
    own = [jax.random.bernoulli(key_of(key, 7), 0.7, (5, 3)) for key in keys]
    factors = jnp.stack(own).astype(F32) / 0.7
    np.testing.assert_array_equal(keep_scale(keys, 7, (5, 3), 0.3, F32), factors)
    value, pull = jax.vjp(lambda x: dropout(x, 0.3, keys, 7), x)
    np.testing.assert_array_equal(value, x * factors)
    np.testing.assert_array_equal(pull(x)[0], x * factors)


def test_dropout_keeps_bits_for_the_backward_pass():
    """Of the words that are drawn XLA would keep two for each number."""
    x, keys = jnp.ones((2, 256, 64)), jnp.ones((2, 2), jnp.uint32)

    def temporaries(layers):
        def loss(weights, x):
            for n, weight in enumerate(weights):
                x = dropout(jnp.sin(x @ weight), 0.1, keys, n)
            return jnp.sum(x)

        weights = [jnp.ones((64, 64)) for _ in range(layers)]
        compiled = jax.jit(jax.grad(loss)).lower(weights, x).compile()
        return compiled.memory_analysis().temp_size_in_bytes / (4 * x.size)

    assert temporaries(9) - temporaries(5) < 4 * 2.2  # what there is without dropout: 2


def test_dropout_keeps_the_mean_and_is_the_identity_without_keys():
    x = jnp.ones((4, 100, 50))
    keys = jnp.arange(8, dtype=jnp.uint32).reshape(4, 2)
    y = dropout(x, 0.1, keys, 0)
    assert abs(float(y.mean()) - 1) < 0.01  # 20 000 draws: standard error 0.0024
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.9], rtol=1e-6)
    assert dropout(x, 0.1, None, 0) is x
    assert dropout(x, 0.0, keys, 0) is x


def test_normalizer_statistics_are_no_parameters_and_standardise():
    norm = Normalizer(3)
    assert not nnx.to_pure_dict(nnx.state(norm, nnx.Param))
    assert set(nnx.to_pure_dict(nnx.state(norm, Statistic))) == {"mean", "scale"}
    x = normal(2, 5, 3)
    np.testing.assert_array_equal(norm(x), x)
    norm.mean[...], norm.scale[...] = jnp.array([1.0, 2, 3]), jnp.array([2.0, 4, 8])
    np.testing.assert_allclose(norm(x), (np.asarray(x) - [1, 2, 3]) / [2, 4, 8], rtol=1e-6)


def test_interpolation_with_aligned_corners_hits_both_ends_and_is_linear_between():
    x = normal(2, 4, 3)
    y = interpolate(x, 10, align_corners=True)
    np.testing.assert_allclose(y[:, ::3], x, atol=1e-6)
    np.testing.assert_allclose(y[:, 1], (2 * x[:, 0] + x[:, 1]) / 3, atol=1e-6)
    np.testing.assert_array_equal(interpolate(x, 1, align_corners=True), x[:, :1])


def test_interpolation_of_cells_holds_the_edges_and_keeps_cell_centres():
    x = normal(2, 4, 3)
    y = interpolate(x, 12, align_corners=False)
    np.testing.assert_allclose(y[:, 1::3], x, atol=1e-6)
    np.testing.assert_array_equal(y[:, 0], x[:, 0])
    np.testing.assert_array_equal(y[:, -1], x[:, -1])


def test_upsampling_passes_through_its_poses_and_holds_the_last():
    x = normal(2, 3, 4)
    y = upsample(x, 5, 14)
    np.testing.assert_allclose(y[:, [0, 5, 10]], x, atol=1e-6)
    np.testing.assert_allclose(y[:, 2], 0.6 * x[:, 0] + 0.4 * x[:, 1], atol=1e-6)
    np.testing.assert_array_equal(y[:, 11:], np.repeat(x[:, 2:], 3, axis=1))


def reference_lstm(lstm, xs):
    """PyTorch's documented equations in f64."""

    def squash(v):
        return 1 / (1 + np.exp(-v))

    hs = np.asarray(xs, np.float64)
    for n in range(lstm.layers):
        layer = getattr(lstm, f"layer_{n}")
        wx, wh, b = (np.asarray(p[...], np.float64) for p in (layer.wx, layer.wh, layer.bias))
        c = h = np.zeros((hs.shape[1], lstm.hidden))
        out = []
        for x in hs:
            i, f, g, o = np.split(x @ wx + h @ wh + b, 4, axis=-1)
            c = squash(f) * c + squash(i) * np.tanh(g)
            h = squash(o) * np.tanh(c)
            out.append(h)
        hs = np.stack(out)
    return hs


@pytest.mark.parametrize("split", [3, 5])
def test_lstm_steps_are_the_documented_equations_wherever_the_input_is_split(split):
    lstm = LSTM(5, 7, 2, dropout=0.0, dtype=F32, rngs=nnx.Rngs(0))
    xs = normal(6, 4, 5)
    carry, out = lstm.initial_carry(4), []
    for x in xs:
        feedback = x[:, split:] if split < 5 else None
        carry, h = lstm.step(carry, lstm.input_gates(x[:, :split]), feedback)
        out.append(h)
    np.testing.assert_allclose(np.stack(out), reference_lstm(lstm, xs), atol=1e-6)


def test_gradients_of_an_lstm_update_are_those_of_its_formula():
    def formula(gates, cell):
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        return cell, jax.nn.sigmoid(o) * jnp.tanh(cell)

    with jax.enable_x64(True):
        arrays = [a.astype(jnp.float64) for a in (normal(4, 28), normal(4, 7, seed=1))]
        cotangents = tuple(normal(4, 7, seed=n).astype(jnp.float64) for n in (2, 3))
        pulled = [jax.vjp(f, *arrays) for f in (formula, update_cell)]
        expected, ours = [(*out, *pull(cotangents)) for out, pull in pulled]
        for a, b in zip(expected, ours, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-13, atol=1e-14)


def test_lstm_carry_stays_f32_under_bf16_products():
    lstm = LSTM(5, 7, 1, dropout=0.0, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    carry, h = lstm.step(lstm.initial_carry(4), lstm.input_gates(normal(4, 5)))
    assert {x.dtype for x in jax.tree.leaves((carry, h))} == {jnp.dtype(F32)}


def test_lstm_masks_act_between_layers_only_and_belong_to_their_example():
    lstm = LSTM(5, 7, 3, dropout=0.5, dtype=F32, rngs=nnx.Rngs(0))
    keys = jnp.arange(8, dtype=jnp.uint32).reshape(4, 2)
    masks = lstm.masks(keys, 9, 100)
    assert [m.shape for m in masks] == [(9, 4, 7)] * 2
    assert not np.array_equal(masks[0], masks[1])
    np.testing.assert_array_equal(masks[0][:, 2:], lstm.masks(keys[2:], 9, 100)[0])
    assert lstm.masks(None, 9, 100) == []


@pytest.mark.parametrize("gap", [0, 1])
def test_each_gap_between_lstm_layers_has_its_own_mask(gap):
    lstm = LSTM(5, 7, 3, dropout=0.5, dtype=F32, rngs=nnx.Rngs(0))
    gates, carry = lstm.input_gates(normal(4, 5)), lstm.initial_carry(4)
    masks = [jnp.zeros((4, 7)) if n == gap else jnp.ones((4, 7)) for n in range(2)]
    plain, _ = lstm.step(carry, gates)
    masked, _ = lstm.step(carry, gates, masks=masks)
    same = [np.array_equal(a[1], b[1]) for a, b in zip(plain, masked, strict=True)]
    assert same == [n <= gap for n in range(3)]
