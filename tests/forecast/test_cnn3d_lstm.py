"""3D-CNN-LSTM: its time axis, its chunks, its land, and statistics of whole batches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.engine.step import split
from tds_jax.errors import UserError
from tds_jax.forecast.cnn3d_lstm import CNN3DLSTM, bin_days, sequences, structure, unchanged
from tds_jax.forecast.conv_block import ConvBlock, divisor
from tds_jax.forecast.pixel_lstm import Direction, PixelLSTM
from tds_jax.nn.batch_norm import MOMENTUM

SMALL = {
    "num_channels": 2,
    "leads": 3,
    "widths": (3, 4),
    "bins": 3,
    "lstm_hidden": 4,
    "bidirectional": True,
    "head_width": 0,
    "head": "leads",
    "layout": "pixels",
    "norm": "batch",
    "groups": 1,
    "dropout": 0.0,
    "cells": 0,
    "remat": "none",
    "example_chunk": 0,
    "pixel_chunk": 0,
    "dtype": jnp.float32,
}
BLOCK = {"norm": "batch", "groups": 1, "dropout": 0.5, "example_chunk": 0, "dtype": jnp.float32}


def build(**changes):
    return CNN3DLSTM(**SMALL | changes, rngs=nnx.Rngs(0))


def fields(days=6, height=5, width=6, batch=4):
    draw = np.random.default_rng(0).normal(size=(batch, days, height, width, 2))
    return jnp.asarray(draw, jnp.float32)


def keys(batch=4):
    return jnp.arange(2 * batch, dtype=jnp.uint32).reshape(batch, 2)


def trained(x, keys=None, **changes):
    """Loss, gradients by the parameters and running statistics of one step."""
    graphdef, params, rest = split(build(**changes))

    def loss(params):
        network = nnx.merge(graphdef, params, rest)
        return jnp.sum(jnp.sin(network(x, True, keys))), split(network)[2]

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)


def close(ours, wanted):
    """Entries agree to 1e-5 of the largest of the tree: sums over all positions, in f32.

    A bias before BatchNorm has no gradient of its own to compare with.
    """
    ours, wanted = jax.tree.leaves(ours), jax.tree.leaves(wanted)
    largest = max(np.abs(leaf).max() for leaf in wanted)
    for a, b in zip(ours, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * largest)


@functools.cache
def plain(norm):
    return trained(fields(), keys(), norm=norm, widths=(3,), head_width=2, dropout=0.5)


@pytest.mark.parametrize(
    ("norm", "remat", "example_chunk", "pixel_chunk"),
    [
        pytest.param("batch", "names", 1, 7, marks=pytest.mark.long),
        ("batch", "full", 2, 60),
        ("group", "full", 1, 50),
    ],
)
def test_chunks_and_recomputation_change_neither_loss_nor_gradients_nor_statistics(
    norm, remat, example_chunk, pixel_chunk
):
    changes = {"remat": remat, "example_chunk": example_chunk, "pixel_chunk": pixel_chunk}
    changes |= {"norm": norm, "widths": (3,), "head_width": 2, "dropout": 0.5}
    ((loss, rest), gradients) = trained(fields(), keys(), **changes)
    ((plain_loss, plain_rest), plain_gradients) = plain(norm)
    np.testing.assert_allclose(loss, plain_loss, rtol=1e-5)
    close(gradients, plain_gradients)
    close(rest or {"none": 1.0}, plain_rest or {"none": 1.0})


def block_by_autodiff(block, x, keys):
    """A training pass of a block written down once more, all at once, for autodiff."""
    y, _ = block.norm(block.conv(x), train=True)
    scales = block._scales(keys, 3)
    return jax.nn.relu(y) * scales[:, None, None]


@pytest.mark.parametrize(
    ("remat", "example_chunk"), [("none", 0), ("dots", 1), ("names", 2), ("full", 1), ("full", 0)]
)
def test_gradients_of_a_block_are_those_of_autodiff(remat, example_chunk):
    own = BLOCK | {"remat": remat, "example_chunk": example_chunk}
    block = ConvBlock(2, 3, (3, 3), **own, rngs=nnx.Rngs(0))
    graphdef, params, rest = split(block)
    x = 3 + 2 * fields()[:, 0]

    def run(f):
        def loss(params, x):
            return jnp.sum(jnp.sin(f(nnx.merge(graphdef, params, rest), x)))

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(params, x)

    ours = run(lambda block, x: block(x, True, keys(), 3, unchanged))
    close(ours, run(lambda block, x: block_by_autodiff(block, x, keys())))


def test_running_statistics_are_of_the_whole_batch_as_pytorch_counts_them():
    own = BLOCK | {"remat": "full", "example_chunk": 1}
    block = ConvBlock(2, 3, (3, 3), **own, rngs=nnx.Rngs(0))
    x = 300 + fields()[:, 0]  # far from 0: differences of squares would lose digits
    block(x, True, None, 0, unchanged)
    z = np.asarray(block.conv(x), np.float64).reshape(-1, 3)
    np.testing.assert_allclose(block.norm.mean[...], MOMENTUM * z.mean(0), rtol=1e-5)
    wanted = (1 - MOMENTUM) + MOMENTUM * z.var(0, ddof=1)
    np.testing.assert_allclose(block.norm.var[...], wanted, rtol=1e-4)


def footprint(row, column, **changes):
    """(T, H, W): what the maps at one pixel depend on, in any of 6 examples (a ReLU may be 0)."""
    x, network = fields(days=12, height=9, width=9, batch=6), build(**changes)
    at_pixel = lambda x: jnp.sum(network(x, False)[:, :, row, column] ** 2)  # noqa: E731
    return np.abs(jax.jit(jax.grad(at_pixel))(x)).max((0, 4)) > 0


@pytest.mark.parametrize(("head_width", "reach"), [(0, 2), (8, 3)])
def test_a_pixel_sees_its_neighbours_on_all_days_and_no_other_pixel(head_width, reach):
    rows = np.abs(np.arange(9) - 4)
    near = np.maximum(rows[:, None], rows) <= reach
    seen = footprint(4, 4, head_width=head_width)
    np.testing.assert_array_equal(seen, np.broadcast_to(near, (12, 9, 9)))


def test_the_published_layout_reads_other_pixels_on_few_days():
    """Entries 54 to 56 of 3 x 81 for pixel 18: three neighbours, four rows below, oldest days."""
    seen = footprint(2, 0, layout="reference")
    assert seen[:6, 4:, :5].all()
    assert not seen[6:].any()  # bin 0 is days 0 to 3, and the convolutions reach two further
    assert not seen[:, :4].any()  # its own row among them


@pytest.mark.parametrize(
    ("days", "bins", "expected"),
    [
        (20, 8, [(0, 3), (2, 5), (5, 8), (7, 10), (10, 13), (12, 15), (15, 18), (17, 20)]),
        (20, 4, [(0, 5), (5, 10), (10, 15), (15, 20)]),
        (15, 2, [(0, 8), (7, 15)]),
        (10, 4, [(0, 3), (2, 5), (5, 8), (7, 10)]),
        (3, 4, [(0, 1), (0, 2), (1, 3), (2, 3)]),
    ],
)
def test_bins_of_days_are_pytorchs(days, bins, expected):
    assert bin_days(days, bins) == expected


def test_sequences_are_means_of_days_of_one_pixel_or_the_published_scramble():
    maps = fields()
    parts = [np.asarray(maps[:, a:b], np.float64) for a, b in ((0, 2), (1, 3), (3, 5), (4, 6))]
    means = np.stack([part.mean(1) for part in parts], axis=1)
    found = sequences(maps, None, bins=4, layout="pixels")
    wanted = means.transpose(0, 2, 3, 1, 4).reshape(4, 30, 4, 2)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    cells = jnp.asarray([1, 7, 29])
    found = sequences(maps, cells, bins=4, layout="pixels")
    np.testing.assert_allclose(found, wanted[:, [1, 7, 29]], atol=1e-6)
    scrambled = sequences(maps, None, bins=4, layout="reference").reshape(-1, 4, 2)
    np.testing.assert_allclose(scrambled, means.reshape(120, 4, 2), atol=1e-6)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def last_output(direction, x):
    """All steps of a direction in NumPy; x (N, O, F)."""
    wx, wh, bias = (np.asarray(w[...]) for w in (direction.wx, direction.wh, direction.bias))
    second = 0 if direction.bias_h is None else np.asarray(direction.bias_h[...])
    cell = hidden = np.zeros((len(x), len(wh)))
    outputs = []
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ wx + hidden @ wh + bias + second, 4, axis=1)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(cell)
        outputs.append(hidden)
    return np.stack(outputs, axis=1)


def test_one_reverse_step_is_what_a_bidirectional_layer_gives_at_its_last_element():
    x = np.random.default_rng(0).normal(size=(7, 5, 3)).astype(np.float32)
    own = {"bidirectional": True, "published": True, "pixel_chunk": 0, "dtype": jnp.float32}
    lstm = PixelLSTM(3, 4, 5, **own, rngs=nnx.Rngs(0))
    forward = last_output(lstm.forward, x)
    backward = last_output(lstm.reverse, x[:, ::-1])[:, ::-1]
    wanted = np.concatenate([forward, backward], axis=-1)[:, -1]
    np.testing.assert_allclose(lstm(jnp.asarray(x)), wanted, atol=1e-6)


def test_parameters_without_effect_are_only_in_the_published_layout():
    repaired = Direction(3, 4, 1, published=False, rngs=nnx.Rngs(0))
    assert repaired.wh is None
    assert repaired.bias_h is None
    assert sorted(split(build(layout="reference"))[1]["lstm"]["reverse"]) == [
        "bias",
        "bias_h",
        "wh",
        "wx",
    ]


def test_bytes_of_an_lstm_in_chunks_do_not_grow_with_the_map_but_for_its_sequences():
    own = {"bidirectional": True, "published": False, "dtype": jnp.float32}

    def bytes_of(pixels, pixel_chunk):
        lstm = PixelLSTM(4, 8, 4, **own, pixel_chunk=pixel_chunk, rngs=nnx.Rngs(0))
        graphdef, params, _ = split(lstm)
        loss = lambda p, x: jnp.sum(nnx.merge(graphdef, p)(x) ** 2)  # noqa: E731
        x = jax.ShapeDtypeStruct((pixels, 4, 4), jnp.float32)
        step = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(params, x).compile()
        return step.memory_analysis().temp_size_in_bytes

    read = 4 * 4 * 4 + 2 * 4 * 16  # bytes per pixel: its sequence once more, outputs, cotangents
    assert bytes_of(4096, 256) - bytes_of(1024, 256) <= 3072 * read * 1.05
    assert bytes_of(4096, 256) < bytes_of(4096, 0) / 3


@pytest.mark.parametrize("total", [97, 96])
def test_an_lstm_in_chunks_covers_every_sequence_once(total):
    """97 is prime: the last chunk is smaller."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(total, 3, 2)), jnp.float32)
    own = {"bidirectional": True, "published": False, "dtype": jnp.float32}
    nets = [PixelLSTM(2, 4, 3, **own, pixel_chunk=n, rngs=nnx.Rngs(0)) for n in (0, 16, 200)]
    found = [jax.jit(lambda x, net=net: net(x))(x) for net in nets]
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)
    np.testing.assert_allclose(found[2], found[0], atol=1e-6)
    assert [divisor(96, limit) for limit in (0, 16, 17, 200)] == [96, 16, 16, 96]


LAND = np.asarray([0, 3, 11, 12, 28])


def on_land(network):
    graphdef, params, rest = split(network)
    return nnx.merge(graphdef, params, rest | {"cells": jnp.asarray(LAND, jnp.int32)})


def test_land_cells_have_the_maps_of_the_whole_grid_and_the_sea_has_zeros():
    x = fields()
    whole = build(pixel_chunk=7)(x, False).reshape(4, 3, 30)
    maps = on_land(build(cells=5))(x, False).reshape(4, 3, 30)
    np.testing.assert_allclose(maps[:, :, LAND], whole[:, :, LAND], atol=1e-6)
    assert not np.any(np.delete(maps, LAND, axis=2))


def test_a_head_of_several_pixels_sees_land_only():
    x, network = fields(), on_land(build(cells=5, head_width=2))
    maps = network(x, False).reshape(4, 3, 30)
    assert not np.any(np.delete(maps, LAND, axis=2))
    assert np.all(maps[:, :, LAND] != 0)
    sea = int(np.setdiff1d(np.arange(30), LAND)[20])
    values = jnp.ones((4, 5, 8))
    assert np.any(network._placed(values, 30)[:, LAND])
    assert not np.any(network._placed(values, 30)[:, sea])


def test_land_cells_need_the_repaired_layout():
    with pytest.raises(UserError, match=r"model.layout='reference' mixes land and sea"):
        build(cells=5, layout="reference")


@pytest.mark.parametrize("norm", ["group", "none"])
def test_noise_does_not_depend_on_the_micro_batch(norm):
    network = build(norm=norm, dropout=0.5)
    run = jax.jit(lambda x, keys: network(x, True, keys))
    x, together = fields(), run(fields(), keys())
    apart = [run(x[i : i + 2], keys()[i : i + 2]) for i in (0, 2)]
    np.testing.assert_allclose(np.concatenate(apart), together, atol=1e-5)
    assert np.abs(run(x, keys() + jnp.uint32(1)) - together).max() > 1e-3
    assert np.abs(network(x, True, None) - together).max() > 1e-3


def test_dropout_takes_whole_channels_of_an_example():
    block = ConvBlock(2, 40, (3, 3), **BLOCK, remat="none", rngs=nnx.Rngs(0))
    y = np.asarray(block(fields()[:, 0], True, keys(), 0, unchanged))
    dead = (y == 0).all((1, 2))  # (B, F)
    assert 0.3 < dead.mean() < 0.7
    assert len({tuple(row) for row in dead}) == 4
    kept = np.asarray(block(fields()[:, 0], True, None, 0, unchanged))
    np.testing.assert_allclose(y, np.where(dead[:, None, None], 0, 2 * kept), rtol=1e-6)


def test_bf16_gives_f32_maps_and_f32_statistics_close_to_those_of_f32():
    x = fields()
    half = build(dtype=jnp.bfloat16, head_width=2, example_chunk=1)
    maps = half(x.astype(jnp.bfloat16), True)
    assert maps.dtype == jnp.float32
    rest = split(half)[2]
    assert {leaf.dtype for leaf in jax.tree.leaves(rest)} == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(maps, build(head_width=2)(x, True), atol=0.05)  # 8 bits, 4 layers


def test_structures_are_the_published_ones():
    assert structure("cnn3d_lstm", 64, 32).widths == (16, 32, 64)
    assert structure("cnn3d_lstm_lite", 32, 16).widths == (8, 16)
    with pytest.raises(UserError, match=r"model.name='cnn' is not known"):
        structure("cnn", 64, 32)
    with pytest.raises(UserError, match=r"model.hidden=2 is too small for cnn3d_lstm"):
        structure("cnn3d_lstm", 2, 32)
