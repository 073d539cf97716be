"""What generators learn from: their methods use what stands around the networks, each by a law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.voxel.methods import build, diffusion
from tests.begun import begun
from tests.voxel.small import small_config


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """{method: (task, model with random weights)} of generators."""
    place = tmp_path_factory.mktemp("learning")
    begun(place / "vae", small_config(place))
    on_vae = {"model__name": "diffusion", "model__autoencoder": str(place / "vae")}
    made = {"diffusion": begun(place / "diffusion", small_config(place, **on_vae))}
    on_diffusion = {"model__name": "consistency", "model__teacher": str(place / "diffusion")}
    made["consistency"] = begun(place / "consistency", small_config(place, **on_diffusion))
    return made


def batch_of(task, count=3):
    source = task.source("train")
    keys = np.random.default_rng(0).integers(2**32, size=(count, 2), dtype=np.uint32)
    examples = [source.example(i, None) | {"key": keys[i]} for i in range(count)]
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *examples)


def objective(task, model, batch):
    graphdef, state = nnx.split(model)
    run = jax.jit(lambda state, batch: task.loss(nnx.merge(graphdef, state), batch, train=True)[0])
    return float(run(state, batch).sum)


def silenced(module):
    """A copy whose weights are all 0."""
    graphdef, state = nnx.split(module)
    return nnx.merge(graphdef, jax.tree.map(jnp.zeros_like, state))


def without_radar(batch):
    return batch | {"radar": jnp.zeros_like(batch["radar"])}


def test_a_denoiser_learns_from_what_the_radar_saw(runs):
    task, model = runs["diffusion"]
    batch = batch_of(task)
    assert (np.asarray(batch["radar"])[..., 0] > 0).any()
    assert objective(task, model, batch) != objective(task, model, without_radar(batch))


def test_a_silent_network_is_charged_what_the_levels_weigh(runs):
    """Its estimate is skip * noisy: the charge is known by hand, levels and noise by the keys."""
    task, model = runs["diffusion"]
    graphdef, state = nnx.split(model)
    model = nnx.merge(graphdef, state)
    model.unet = silenced(model.unet)
    batch = batch_of(task)
    clean = np.asarray(model.scaled(batch["latent"]), np.float64)
    sigma = np.asarray(build.levels(task.config.model).draw(batch["key"]), np.float64)
    noise = diffusion.noise(batch["key"], diffusion.NOISE_DRAW, clean.shape[1:])
    at = sigma[:, None, None, None, None]
    data = task.config.model.sigma_data
    estimate = data**2 / (at**2 + data**2) * (clean + at * np.asarray(noise, np.float64))
    error = np.mean((estimate - clean) ** 2, axis=(1, 2, 3, 4))
    charge = (sigma**2 + data**2) / (sigma * data) ** 2 * error
    # f32 means of some hundred squares
    np.testing.assert_allclose(objective(task, model, batch), charge.sum(), rtol=1e-5)


def test_a_students_answer_at_the_lowest_level_is_the_point_itself(runs):
    task, model = runs["consistency"]
    student, batch = model.student(), batch_of(task)
    jump = task.method.jump(student, student.condition(batch["radar"]))
    x = model.teacher.scaled(batch["latent"]) * 3
    lowest = jnp.full((3,), build.levels(task.config.model).lowest, jnp.float32)
    np.testing.assert_array_equal(jump(x, lowest), x)
    assert not np.allclose(jump(x, lowest * 100), x, rtol=1e-3)


def test_the_teacher_is_asked_with_the_radar(runs):
    """A student that sees nothing of the radar is charged by it all the same."""
    task, model = runs["consistency"]
    graphdef, state = nnx.split(model)
    model = nnx.merge(graphdef, state)
    blind = jax.tree.map(jnp.negative, nnx.to_pure_dict(nnx.state(model.teacher.encoder)))
    nnx.update(model.change.encoder, blind)
    batch = batch_of(task)
    condition = model.student().condition
    np.testing.assert_array_equal(condition(batch["radar"]), 0)
    assert objective(task, model, batch) != objective(task, model, without_radar(batch))


def test_a_student_learns_from_what_the_radar_saw(runs):
    """Its teacher being blind."""
    task, model = runs["consistency"]
    graphdef, state = nnx.split(model)
    model = nnx.merge(graphdef, state)
    weights = nnx.to_pure_dict(nnx.state(model.teacher.encoder))
    model.teacher.encoder = silenced(model.teacher.encoder)
    nnx.update(model.change.encoder, weights)
    batch = batch_of(task)
    np.testing.assert_array_equal(model.teacher.condition(batch["radar"]), 0)
    assert objective(task, model, batch) != objective(task, model, without_radar(batch))
