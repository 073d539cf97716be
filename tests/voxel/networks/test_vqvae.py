"""Laws of the codebook."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.errors import UserError
from tds_jax.voxel.networks import vqvae
from tds_jax.voxel.networks.vqvae import VQVAE3D, Codebook, nearest, perplexity, usage
from tests.voxel.filled import SMALL, random, volume

OFF = {"decay": 0.9, "window": 1, "restart_below": 0.0}


def codebook(size=8, **options):
    book = Codebook(size, 3, **OFF | options, rngs=nnx.Rngs(0))
    book.codes[...] = volume(size, 3, seed=7)
    return book


def keys(count):
    return jnp.arange(2 * count, dtype=jnp.uint32).reshape(count, 2)


def distances(z, codes):
    return np.sum((np.asarray(z)[..., None, :] - np.asarray(codes)) ** 2, axis=-1)


@pytest.mark.parametrize("at_once", [8 * 5, 1 << 22])
def test_the_nearest_code_is_found_without_all_distances_at_once(monkeypatch, at_once):
    monkeypatch.setattr(vqvae, "DISTANCES", at_once)
    z, codes = volume(2, 3, 4, 3), volume(8, 3, seed=2)
    np.testing.assert_array_equal(nearest(z, codes), np.argmin(distances(z, codes), -1))
    text = str(jax.make_jaxpr(lambda *a: nearest(*a))(z, codes))
    assert ("f32[5,8]" in text) == (at_once == 40)
    assert ("f32[24,8]" in text) == (at_once > 40)


def test_codes_take_the_latents_place_and_gradients_pass_straight_through():
    book, z = codebook(), volume(2, 2, 3, 4, 3)
    found = book(z)
    np.testing.assert_allclose(found.z, book.codes[...][found.indices], atol=1e-6)
    g = volume(*z.shape, seed=3)
    np.testing.assert_array_equal(jax.grad(lambda z: jnp.sum(book(z).z * g))(z), g)


def test_commitment_moves_the_latent_and_the_codebook_loss_the_codes():
    book, z = codebook(decay=0.0), volume(2, 2, 3, 4, 3)
    least = distances(z, book.codes[...]).min(-1) / 3
    found = book(z)
    for loss in (found.commitment, found.codebook):
        np.testing.assert_allclose(loss, least.mean((1, 2, 3)), rtol=1e-5)
    to_latent = jax.grad(lambda z: jnp.sum(book(z).commitment))(z)
    difference = z - book.codes[...][found.indices]
    np.testing.assert_allclose(to_latent, 2 * difference / difference[0].size, atol=1e-6)
    assert not np.any(jax.grad(lambda z: jnp.sum(book(z).codebook))(z))


def followed(book, batches):
    """{codes, sizes} after training on batches of (latents, keys)."""
    graphdef, state = nnx.split(book)

    @jax.jit
    def advance(state, z, k):
        book = nnx.merge(graphdef, state)
        book(z, k)
        return nnx.to_pure_dict(nnx.state(book))

    state = nnx.to_pure_dict(state)
    for z, k in batches:
        state = advance(state, z, k)
    return {name: np.asarray(state[name]) for name in ("codes", "sizes")}


def test_codes_follow_the_running_means_of_their_latents(monkeypatch):
    """Two updates, written down once more: sizes and sums decay alike, sizes are smoothed."""
    monkeypatch.setattr(vqvae, "EPS", 0.5)  # large enough to be seen
    batches = [(volume(2, 2, 3, 4, 3, seed=n), keys(2)) for n in (1, 2)]
    book = codebook(size=4)
    codes, sizes = np.asarray(book.codes[...], np.float64), np.ones(4)

    def smooth(sizes):
        return (sizes + 0.5) / (sizes.sum() + 4 * 0.5) * sizes.sum()

    for z, _ in batches:
        tokens = np.asarray(z).reshape(-1, 3)
        hot = np.eye(4)[np.argmin(distances(tokens, codes), -1)]
        sums = 0.9 * codes * smooth(sizes)[:, None] + 0.1 * hot.T @ tokens
        sizes = 0.9 * sizes + 0.1 * hot.sum(0)
        codes = sums / smooth(sizes)[:, None]
    ours = followed(book, batches)
    np.testing.assert_allclose(ours["sizes"], sizes, rtol=1e-5)
    np.testing.assert_allclose(ours["codes"], codes, rtol=1e-4, atol=1e-6)


def test_an_update_does_not_depend_on_how_its_examples_are_split():
    """Restarts included: sizes of 1 decay to 0.9 and below 0.95 are replaced."""
    z, k = volume(4, 2, 2, 2, 3), keys(4)
    options = {"size": 16, "restart_below": 0.95}
    whole = followed(codebook(**options), [(z, k)])
    parts = [(z[n : n + 1], k[n : n + 1]) for n in (2, 0, 3, 1)]
    split = followed(codebook(window=4, **options), parts)
    for name, value in whole.items():
        np.testing.assert_allclose(split[name], value, atol=1e-6)
    early = followed(codebook(window=4, **options), parts[:3])
    np.testing.assert_array_equal(early["codes"], codebook(**options).codes[...])


def test_dead_codes_become_latents_of_the_batch_and_live_ones_do_not():
    book = codebook(restart_below=0.95)
    book.codes[...] = book.codes[...].at[4:].add(100)  # too far to be anyone's nearest
    z = volume(3, 2, 3, 4, 3)
    ours = followed(book, [(z, keys(3))])
    tokens = np.asarray(z).reshape(-1, 3)
    for code in ours["codes"][4:]:
        assert np.abs(tokens - code).max(1).min() == 0
    assert np.abs(tokens - ours["codes"][0]).max(1).min() > 0
    np.testing.assert_array_equal(ours["sizes"][4:], 1)
    never = codebook(restart_below=0.0)
    never.codes[...] = never.codes[...].at[4:].add(100)
    assert followed(never, [(z, keys(3))])["codes"][4:].min() > 50


def test_evaluation_leaves_the_codes_alone():
    book = codebook()
    before = followed(book, [])
    book(volume(2, 2, 3, 4, 3))
    for name, value in followed(book, []).items():
        np.testing.assert_array_equal(value, before[name])


def test_perplexity_counts_codes_in_use():
    assert float(perplexity(usage(jnp.array([[0, 1], [2, 3]]), 8))) == pytest.approx(4)
    assert float(perplexity(usage(jnp.zeros((5, 5), jnp.int32), 8))) == pytest.approx(1)


def test_a_decay_outside_its_range_is_refused():
    with pytest.raises(UserError, match=r"codebook_decay=1\.0"):
        codebook(decay=1.0)


def test_training_moves_the_codebook_but_only_its_own_state():
    options = SMALL | {"codes": 16, "commitment": 0.25, "decay": 0.9, "window": 1}
    options["restart_below"] = 0.0
    graphdef, params, rest = random(lambda: VQVAE3D(2, 2, 3, **options, rngs=nnx.Rngs(0)))
    assert set(rest) == {"codebook"}
    assert "codebook" not in params
    rest["codebook"]["codes"] = volume(16, 3)
    rest["codebook"]["sizes"] = jnp.ones(16)

    @jax.jit
    def step(params, rest, x):
        def loss(params):
            model = nnx.merge(graphdef, params, rest)
            again, quantized = model(x, keys(2))
            state = nnx.to_pure_dict(nnx.state(model, vqvae.CodeState))
            total = jnp.mean((again - x) ** 2) + jnp.mean(model.quantization_loss(quantized))
            return total, state

        return jax.grad(loss, has_aux=True)(params)

    gradient, state = step(params, rest, volume(2, 4, 4, 4, 2))
    assert np.any(gradient["encoder"]["conv_in"]["conv"]["kernel"])
    assert not np.array_equal(state["codebook"]["codes"], rest["codebook"]["codes"])
