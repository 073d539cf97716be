"""A diffusion of folded cells as a run: what it learns, what its samples lie around, a student."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.engine.step import compiled, split
from tds_jax.errors import UserError
from tds_jax.voxel.methods import build, diffusion, generation, trained
from tds_jax.voxel.methods.distillation import Distillation
from tds_jax.voxel.methods.model import FoldedCells
from tests.begun import begun
from tests.voxel.small import batch_of, objective, silenced, small_config, small_task

FOLDED = {"model__name": "diffusion", "model__fold": (2, 2, 2)}
AROUND = FOLDED | {"model__anchored": True}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("folded")


@pytest.fixture(scope="module")
def direct(place):
    return begun(place / "direct", small_config(place, model__name="direct"))


@pytest.fixture(scope="module")
def folded(place, direct):
    given = AROUND | {"model__direct": str(place / "direct")}
    return begun(place / "diffusion", small_config(place, **given))


@pytest.fixture(scope="module")
def consistency(place, folded):
    given = AROUND | {"model__name": "consistency", "model__teacher": str(place / "diffusion")}
    given |= {"model__direct": str(place / "direct")}
    return begun(place / "consistency", small_config(place, **given))


@pytest.fixture(scope="module")
def cells():
    made = FoldedCells((1, 2, 4))
    made.target.mean[...] = jnp.array([0.0, 5.0, 1.0, 0.0])
    made.target.scale[...] = jnp.array([1.0, 2.0, 3.0, 1.0])
    return made


def volume():
    rng = np.random.default_rng(0)
    full = rng.random((2, 2, 4, 8, 1)) < 0.3
    values = full * rng.normal(3, 2, size=(2, 2, 4, 8, 3))
    return np.concatenate([full, values], axis=-1).astype(np.float32)


def test_cells_come_back_and_say_nothing_where_they_are_empty(cells):
    given = volume()
    latent = cells.latent(jnp.asarray(given))
    assert latent.shape == (2, 2, 2, 2, 32)
    made, full = np.asarray(cells.decode(latent)), given[..., 0] > 0
    np.testing.assert_array_equal(made[..., 0], full)
    np.testing.assert_allclose(made[full], given[full], rtol=1e-5, atol=1e-5)  # there and back
    inner = np.asarray(cells.network.decode(latent))
    np.testing.assert_array_equal(inner[~full], [-1, 0, 0, 0] * np.ones((np.sum(~full), 4)))
    assert inner[full].any(axis=0).all()


def test_what_a_probability_says_is_the_mean_of_what_it_may_be(cells):
    given = volume()
    full, empty = given.copy(), given.copy()
    full[..., 0], empty[..., 0], given[..., 0] = 1, 0, 0.25
    made = cells.expected(jnp.asarray(given))
    either = [np.asarray(cells.latent(jnp.asarray(one))) for one in (full, empty)]
    np.testing.assert_allclose(made, 0.25 * either[0] + 0.75 * either[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(cells.decode(made)[..., 0], 0.25)
    beyond = cells.decode(jnp.full((1, 1, 1, 1, 32), 3.0))
    np.testing.assert_array_equal(beyond[..., 0], 1)


def test_samples_lie_around_the_one_answers_own_probability(folded):
    task, model = folded
    assert set(split(model)[1]) == {"encoder", "unet"}
    radar = jnp.asarray(task.data.pairs("test").example(0, None)["radar"][None])
    run = compiled(
        model,
        lambda model, radar: (model.decode(model.anchor(radar)), model.direct.volume(radar)),
    )
    made, said = (np.asarray(one)[..., 0] for one in run(radar))
    assert said.std() > 0.01  # it says something
    np.testing.assert_allclose(made, said, atol=1e-5)  # there and back in f32, of size 3


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_temperature_scales_the_noise_that_samples_are_drawn_from(place, temperature):
    def drawn(method, temperature):
        config = small_config(place, **FOLDED | method, model__temperature=temperature)
        keys = jnp.array([[1, 2], [3, 4]], jnp.uint32)
        batch = {"radar": jnp.zeros((2, 4, 8, 8, 4)), "key": keys}
        if config.model.name == "consistency":
            stays = lambda x, sigma: x  # noqa: E731
            return Distillation(config)._sample(stays, batch, 2, jnp.int32(1))
        model = SimpleNamespace(
            condition=lambda radar: radar, guided=lambda condition: lambda x, sigma: x,
            anchor=lambda radar: 0.0,
        )  # fmt: skip
        return generation.sampler(config, model, batch)(1)

    for method in ({}, {"model__name": "consistency", "model__teacher": "x"}):
        whole = drawn(method, 1.0)
        assert whole.std() > 1
        part = drawn(method, temperature)
        np.testing.assert_allclose(part, temperature * whole, rtol=1e-5)


@pytest.mark.parametrize(
    "method", [{}, {"model__name": "consistency", "model__teacher": "x", "model__jumps": (1, 2)}]
)
def test_what_is_drawn_is_added_to_the_answer_it_lies_around(place, method):
    config = small_config(place, **FOLDED | method)
    keys = jnp.array([[1, 2], [3, 4]], jnp.uint32)
    batch = {"radar": jnp.zeros((2, 4, 8, 8, 4)), "key": keys}
    half = lambda condition: lambda x, sigma: x / 2  # noqa: E731

    def volumes(answer):
        model = SimpleNamespace(
            condition=lambda radar: radar, guided=half, network=half, direct=None,
            anchor=lambda radar: answer, decode=lambda latent: latent,
        )  # fmt: skip
        model.teacher, model.student = model, lambda: model
        made = Distillation if method else generation.Diffusion
        return made(config).volumes(model, batch)

    alone, moved = volumes(jnp.float32(0)), volumes(jnp.float32(3))
    assert {"model", "1_step", "teacher"} <= set(alone) if method else "model" in alone
    for name in alone.keys() - {"samples"}:
        assert alone[name].std() > 0.01
        np.testing.assert_allclose(moved[name], alone[name] + 3, rtol=1e-5)


def test_latents_are_of_the_targets_cells_in_units_of_the_train_split(folded):
    task, model = folded
    target = task.data.pairs("val").example(1, None)["target"][None]
    latent = task.source("val").example(1, None)["latent"][None]
    # f32, compiled and not
    np.testing.assert_allclose(latent, model.autoencoder.latent(jnp.asarray(target)), rtol=1e-6)
    known = task.data.statistics.leaves()["target"]
    np.testing.assert_array_equal(model.autoencoder.target.mean[...], known["mean"])
    with jax.transfer_guard_host_to_device("disallow"):  # as around the training loop
        assert task.under(task.config).method.latents(task.data, "test").exists()
    everything = np.load(task.method.latents(task.data, "train"))
    scaled = np.asarray(model.scaled(jnp.asarray(everything)))
    spread = scaled.std(axis=(0, 1, 2, 3))
    np.testing.assert_allclose(spread[spread > 0], task.config.model.sigma_data, rtol=1e-4)


def test_cells_that_are_neither_full_nor_empty_are_charged(folded):
    """A silent network's estimate is known by hand: the noisy cells, brought nearer to the answer
    that they lie around."""
    task, model = folded
    model = nnx.clone(model)
    model.unet = silenced(model.unet)
    batch, settings = batch_of(task, range(3)), task.config.model
    sigma = build.levels(settings).draw(batch["key"])[:, None, None, None, None]
    truth, anchor = model.scaled(batch["latent"]), model.anchor(batch["radar"])
    noise = diffusion.noise(batch["key"], diffusion.NOISE_DRAW, truth.shape[1:])
    skip = settings.sigma_data**2 / (sigma**2 + settings.sigma_data**2)
    estimate = anchor + skip * (truth - anchor + sigma * noise)
    cells = np.asarray(model.decode(estimate), np.float64)[..., 0].reshape(3, -1)
    targets = [task.data.pairs("train").example(i, None)["target"] for i in range(3)]
    full = np.stack(targets)[..., 0].reshape(3, -1) > 0
    dice = (2 * (cells * full).sum(1) + 1) / (cells.sum(1) + full.sum(1) + 1)
    assert ((cells > 0.1) & (cells < 0.9)).any()
    asked = dataclasses.replace(
        task.config, loss=dataclasses.replace(task.config.loss, sample_dice_weight=2.0)
    )
    more = objective(task.under(asked), model, batch) - objective(task, model, batch)
    # f32: a difference of sums ten times its size
    np.testing.assert_allclose(more, (2 * (1 - dice)).sum(), rtol=1e-5)


def test_a_student_carries_its_teachers_units(folded, consistency):
    ours, theirs = trained.leaves(consistency[1].teacher), trained.leaves(folded[1])
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    latent = consistency[0].source("val").example(1, None)["latent"]
    np.testing.assert_array_equal(latent, folded[0].source("val").example(1, None)["latent"])


def test_a_student_of_another_folding_and_raw_cells_are_refused(place, folded):
    given = AROUND | {"model__name": "consistency", "model__teacher": str(place / "diffusion")}
    given |= {"model__direct": str(place / "direct"), "model__fold": ()}
    with pytest.raises(UserError, match=r"model.fold=\(\) but .*diffusion was trained with \(2, 2"):
        small_task(place, **given).source("train")
    with pytest.raises(UserError, match=r"needs loss.reconstruction='occupancy', not 'mse'"):
        small_task(place, **FOLDED, loss__reconstruction="mse").source("train")
    with pytest.raises(UserError, match=r"sample_dice_weight=1.0 needs .*; give model.fold, "):
        small_task(place, model__name="diffusion", model__autoencoder="x",
                   loss__sample_dice_weight=1.0)  # fmt: skip
    with pytest.raises(UserError, match=r"not divisible by \(1, 3, 2\)"):
        small_task(place, **FOLDED | {"model__fold": (1, 3, 2)})
