"""Laws of the conformer encoder: attention of a fixed reach, exact wherever windows are cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.errors import UserError
from tds_jax.pose import conformer, stream, tds
from tds_jax.pose.conformer import LEAST_BLOCK, look_back
from tds_jax.pose.front import make_front
from tests.pose.small import LENGTHS, SPLITS, small_task, write_recordings
from tests.pose.test_models import small as small_model
from tests.pose.test_tds import emg, small

SMALL = {"encoder": "conformer", "attention_frames": 5, "expansion": 2}


@pytest.mark.parametrize("count", [1, LEAST_BLOCK, 2 * LEAST_BLOCK + 3])
def test_attention_in_blocks_is_that_over_each_querys_own_keys(count):
    back, rng = 5, np.random.default_rng(0)
    q = rng.normal(size=(2, count, 3, 4))
    k, v = rng.normal(size=(2, 2, count + back, 3, 4))
    distance = rng.normal(size=(3, back + 1))
    arrays = [jnp.asarray(x, jnp.float32) for x in (q, k, v, distance)]
    found = np.asarray(jax.jit(look_back)(*arrays))
    for n in range(count):
        seen = slice(n, n + back + 1)
        scores = np.einsum("bhd,bkhd->bhk", q[:, n], k[:, seen]) / 2 + distance
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        expected = np.einsum("bhk,bkhd->bhd", weights, v[:, seen])
        # f32: scores of up to 10 rounded at 1e-6, then a mean of values of order 1.
        np.testing.assert_allclose(found[:, n], expected, atol=1e-5)


def test_every_draw_of_dropout_has_a_number_of_its_own(monkeypatch):
    drawn = []

    def note(x, rate, keys, layer):
        drawn.append(layer)
        return x

    monkeypatch.setattr(conformer, "dropout", note)
    monkeypatch.setattr(tds, "dropout", note)
    jax.eval_shape(lambda x: small(**SMALL)(x, jnp.zeros((1, 2), jnp.uint32)), emg(400))
    assert len(drawn) == len(set(drawn)) == 2 + 3 * (2 + 1)  # two stages, of two blocks and one


@pytest.mark.long
def test_recomputation_changes_no_gradient_with_dropout_on():
    shape = {"conv_kernels": (5,), "conv_strides": (2,), "groups": (3,), "widths": (2,)}
    shape |= {"tds_kernels": (4,), "tds_blocks": (1,)}
    x, keys = emg(40, batch=2), jnp.arange(4, dtype=jnp.uint32).reshape(2, 2)

    def gradients(policy):
        graph, params = nnx.split(small(remat=policy, **shape, **SMALL))
        loss = lambda p: jnp.sum(nnx.merge(graph, p)(x, keys)[..., 0] ** 2)  # noqa: E731
        return jax.tree.leaves(jax.jit(jax.grad(loss))(nnx.to_pure_dict(params)))

    plain = gradients("none")
    assert all(np.abs(leaf).max() > 0 for leaf in plain if leaf.ndim > 1)
    for a, b in zip(plain, gradients("names"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)  # sums of some hundred terms


def test_a_stream_keeps_the_keys_and_values_of_as_many_frames_as_are_looked_back_to():
    model = small_model(**SMALL)
    memory = jax.eval_shape(lambda: stream.initial_memory(model, 1, None))
    # Of 4 channels: a sample of 3 electrodes, frames with their queries, keys and values, and the
    # kernel's frames but one.
    assert sum(leaf.size for leaf in memory["histories"]) == 1 * 3 + 5 * 4 * 4 + 3 * 4


def test_layers_take_batches_of_any_size_as_an_exported_model_does():
    (batch,) = jax.export.symbolic_shape("B")
    powers = ("covariance", (4, 2), 2, (8,))
    front = make_front(200.0, (5.0, 0.0), (50.0,), 0.2, powers, True)
    model = small_model(**SMALL, front=front, user_embedding=2)

    def stepped(samples):
        return stream.advance(model, stream.initial_memory(model, samples.shape[0], None), samples)

    whole = jax.eval_shape(model, jax.ShapeDtypeStruct((batch, 400, 3), jnp.float32))
    assert whole.shape == (batch, model.num_steps(400), 2)
    _, pose = jax.eval_shape(stepped, jax.ShapeDtypeStruct((batch, model.step, 3), jnp.float32))
    assert pose.shape == (batch, 2)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"model__reference_rate": True}, "model.reference_rate=True repeats a defect of a TDS"),
        ({"model__name": "neuropose"}, "model.encoder='conformer' acts before"),
        ({"model__attention_frames": 40}, "shorter than the model's receptive field"),
    ],
)
def test_what_a_conformer_cannot_be_is_one_line(tmp_path, changes, text):
    write_recordings(tmp_path / "data", LENGTHS, SPLITS)
    with pytest.raises(UserError, match=text):
        small_task(tmp_path / "data", tmp_path, model__encoder="conformer", **changes)


def test_weights_from_pytorch_are_refused_in_one_line(tmp_path):
    write_recordings(tmp_path / "data", LENGTHS, SPLITS)
    changes = {"model__encoder": "conformer", "model__attention_frames": 3}
    task = small_task(tmp_path / "data", tmp_path, **changes)
    with pytest.raises(UserError, match="has no counterpart in PyTorch"):
        task.import_params({}, {}, {})
