"""Losses against the original's numbers, by their definitions, and additive over examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.engine.step import split
from tds_jax.voxel.methods import losses
from tds_jax.voxel.networks.perceptual import FeatureNet, perceptual
from tests.voxel import golden

RTOL = 1e-5  # sums of f32 over 32,768 cells in another order
HEAD = {
    "occupied_weight": 8.0,
    "channel_weights": (4.0, 0.2, 0.5, 0.2),
    "false_positive_weight": 4.0,
    "mass_weight": 1.0,
}


@pytest.fixture(scope="module")
def pair():
    """(output, truth) of the original's check of its losses."""
    wave = golden.wave(1, 4, 16, 32, 32)
    # The sine is of the f32 wave: sin(7 x) of an f64 one differs in the last place.
    return wave + np.float32(0.1) * np.sin(7 * wave), np.where(wave > 0.6, wave, 0)


@pytest.fixture(scope="module")
def net():
    names = [f"{n}.{half}.{leaf}" for n in range(4) for half in (0, 3) for leaf in ("w", "bias")]
    net = FeatureNet(4, dtype=jnp.dtype("float32"), rngs=nnx.Rngs(0))
    convs = [getattr(net, f"stage_{n}_{half}") for n in range(4) for half in range(2)]
    leaves = [leaf for conv in convs for leaf in (conv.kernel, conv.bias)]
    torch = [np.moveaxis(leaf[...], (3, 4), (1, 0)) if leaf.ndim > 1 else leaf for leaf in leaves]
    shapes = {name.replace(".w", ".weight"): t.shape for name, t in zip(names, torch, strict=True)}
    for leaf, value in zip(leaves, golden.fill(shapes).values(), strict=True):
        leaf[...] = jnp.asarray(np.moveaxis(value, (1, 0), (3, 4)) if value.ndim > 1 else value)
    return net


def test_perceptual_structure_and_occupancy_are_the_originals(pair, net):
    want, (output, target) = golden.numbers(), pair
    full = losses.occupied(target)
    free, masked = jax.jit(lambda net: (
        perceptual(net, output, target, None), perceptual(net, output, target, full)
    ))(net)  # fmt: skip
    # The last stage normalises four cells that hardly differ: f64 gives 0.773584, the original's
    # f32 0.773528, ours 0.773645.
    np.testing.assert_allclose(free, want["perceptual(pt,tt) no mask"], rtol=3e-4)
    np.testing.assert_allclose(masked, want["perceptual mask"], rtol=3e-4)
    edges = losses.structure(output, target)
    np.testing.assert_allclose(edges, want["structure"], rtol=RTOL)
    aware = losses.occupancy_aware(output, target)
    np.testing.assert_allclose(aware, want["occupancy"], rtol=RTOL)
    total = aware + 0.1 * masked + 0.05 * edges
    np.testing.assert_allclose(total, want["composite"]["total"], rtol=RTOL)


def test_reconstruction_losses_are_the_originals():
    want, stored = golden.numbers(), golden.arrays()
    _, plain, _ = want["same input, 54adebe loss"]
    _, head, _ = want["ultra loss@HEAD (x zeroed where x<=0.5)"]
    output, target = stored["xo_recon"], stored["xo"]
    np.testing.assert_allclose(losses.mse(output, target), plain, rtol=RTOL)
    np.testing.assert_allclose(losses.weighted(output, target, **HEAD), head, rtol=RTOL)


def test_the_feature_net_is_drawn_not_trained():
    net = nnx.eval_shape(lambda: FeatureNet(4, dtype=jnp.dtype("float32"), rngs=nnx.Rngs(0)))
    _, params, rest = split(net)
    assert not params
    assert sum(leaf.size for leaf in jax.tree.leaves(rest)) == 1_745_984


def volumes(batch=3):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(batch, 4, 6, 5, 4)).astype(np.float32)
    truth[..., 0] = rng.uniform(size=truth.shape[:-1]) < [[[[0.1]]], [[[0.5]]], [[[0.0]]]]
    return rng.normal(size=truth.shape).astype(np.float32), truth, np.ones(truth.shape[:-1], "f4")


def every_loss(output, truth, cells):
    """name -> (B,)."""
    full, logit = losses.occupied(truth), output[..., 0]
    each = jnp.broadcast_to((cells * full)[..., None], (*cells.shape, 3))
    pair = output[..., 1:], truth[..., 1:], each
    return {
        "mse": losses.mse(output, truth),
        "weighted": losses.weighted(output, truth, **HEAD),
        "occupancy_aware": losses.occupancy_aware(output, truth),
        "structure": losses.structure(output, truth),
        "bce": losses.cross_entropy(logit, full, cells, occupied_weight=5.0, gamma=0.0),
        "focal": losses.cross_entropy(logit, full, cells, occupied_weight=1.0, gamma=2.0),
        "dice": losses.dice(jax.nn.sigmoid(logit), full, cells),
        "absolute": losses.features(*pair, squared=False),
        "squares": losses.features(*pair, squared=True),
    }


def test_an_example_is_charged_alike_alone_and_in_a_batch():
    whole = every_loss(*volumes())
    for i in range(3):
        alone = every_loss(*(array[i : i + 1] for array in volumes()))
        for name, value in whole.items():
            # f32 sums over 120 cells in the same order
            np.testing.assert_allclose(alone[name][0], value[i], rtol=1e-6, err_msg=name)


def test_cells_that_do_not_count_change_nothing():
    output, truth, cells = volumes()
    cells[:, 2:] = 0
    first = every_loss(output, truth, cells)
    output[:, 2:], truth[:, 2:, ..., 1:] = 9.0, -9.0
    second = every_loss(output, truth, cells)
    for name in ("bce", "focal", "dice", "absolute", "squares"):
        np.testing.assert_array_equal(first[name], second[name])


def test_cross_entropy_and_dice_by_their_definitions():
    output, truth, cells = volumes()
    full, p = truth[..., 0], 1 / (1 + np.exp(-output[..., 0].astype(np.float64)))
    right = np.where(full > 0, p, 1 - p)
    weight = np.where(full > 0, 5.0, 1.0)
    axes = (1, 2, 3)
    found = every_loss(output, truth, cells)
    want = (weight * -np.log(right)).sum(axes) / weight.sum(axes)
    np.testing.assert_allclose(found["bce"], want, rtol=1e-5)
    np.testing.assert_allclose(found["focal"], ((1 - right) ** 2 * -np.log(right)).mean(axes),
                               rtol=1e-5)  # fmt: skip
    dice = (2 * (p * full).sum(axes) + 1) / (p.sum(axes) + full.sum(axes) + 1)
    np.testing.assert_allclose(found["dice"], 1 - dice, rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_confident_logits_give_finite_gradients(gamma):
    _, truth, cells = volumes()
    full = losses.occupied(truth)

    def total(logit):
        bce = losses.cross_entropy(logit, full, cells, occupied_weight=3.0, gamma=gamma)
        return jnp.sum(bce + losses.dice(jax.nn.sigmoid(logit), full, cells))

    wrong = jnp.where(full > 0, -100.0, 100.0)
    gradient, of_right = (jax.grad(total)(logit) for logit in (wrong, -wrong))
    assert np.isfinite(gradient).all()
    assert np.isfinite(of_right).all()
    assert np.abs(gradient).max() > 1e-3  # wrong and sure: the charge still pulls
    assert np.abs(of_right).max() < 1e-3


def test_an_example_without_occupied_cells_has_no_feature_error():
    found = every_loss(*volumes())
    assert found["absolute"][2] == found["squares"][2] == 0
    assert found["absolute"][1] > 0


def test_occupancy_aware_weighs_inside_border_and_surroundings():
    truth = np.zeros((1, 7, 7, 7, 1), np.float32)
    truth[0, 2:5, 2:5, 2:5] = 1

    def weight(*cell):
        output = truth.copy()
        output[(0, *cell, 0)] += 1
        return float(losses.occupancy_aware(output, truth)[0]) * 7**3

    cells = {(3, 3, 3): 5, (2, 3, 3): 7, (1, 3, 3): 3, (0, 0, 0): 1}
    assert {cell: round(weight(*cell), 3) for cell in cells} == cells
