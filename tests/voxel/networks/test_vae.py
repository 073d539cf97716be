"""Laws of the volume autoencoder and its blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.errors import UserError
from tds_jax.voxel.networks import blocks
from tds_jax.voxel.networks.blocks import attend, enlarge, groups_of
from tds_jax.voxel.networks.vae import VAE3D, kl_divergence, noise
from tests.voxel.filled import make, volume
from tests.voxel.presets import PRESETS

RUN = {"span": "block", "remat": "none", "tile": 0, "dtype": jnp.float32}


def build(preset, **options):
    """A preset's model; for tracing only, drawing it takes seconds."""
    return VAE3D(4, 4, 4, **PRESETS[preset] | RUN | options, rngs=nnx.Rngs(0))


def outputs_of(preset, *shape, **options):
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.eval_shape(lambda x: build(preset, **options)(x), x)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_runs_and_halves_depth_once_and_the_rest_twice(preset):
    again, mean, logvar = outputs_of(preset, 1, 32, 128, 128, 4)
    assert again.shape == (1, 32, 128, 128, 4)
    assert mean.shape == logvar.shape == (1, 16, 32, 32, 4)


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("attention", [False, True])
def test_residual_blocks_can_be_none_to_two(count, attention):
    again = outputs_of("ultra", 2, 4, 8, 8, 4, blocks=count, attention=attention)[0]
    assert again.shape == (2, 4, 8, 8, 4)


def test_groups_divide_their_channels_and_are_the_originals_where_that_can_be_built():
    for channels in range(1, 300):
        groups = groups_of(channels)
        assert channels % groups == 0
        assert groups <= 32
        assert groups == min(32, channels) or channels % min(32, channels)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((1, 31, 125, 126, 4), r"31, 125, 126.*\(2, 4, 4\)"), ((1, 4, 8, 8, 3), "channels 4")],
)
def test_volumes_that_do_not_fit_are_refused_by_name(shape, message):
    with pytest.raises(UserError, match=message):
        outputs_of("ultra", *shape)


@pytest.mark.parametrize(
    ("name", "value"), [("blocks", 3), ("multipliers", ()), ("span", "layer"), ("tile", -1)]
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(UserError, match=rf"model\.{name}="):
        outputs_of("ultra", 1, 4, 8, 8, 4, **{name: value})


def test_noise_of_an_example_does_not_depend_on_its_batch():
    keys = jnp.arange(8, dtype=jnp.uint32).reshape(4, 2)
    whole = noise(keys, (3, 4, 5, 2))
    np.testing.assert_array_equal(noise(keys[2:], (3, 4, 5, 2)), whole[2:])
    assert not np.array_equal(whole[0], whole[1])


def test_latents_are_drawn_as_mean_and_log_variance_say():
    model = nnx.merge(*make())
    model.quant_conv.kernel[...] = jnp.eye(2).reshape(1, 1, 1, 2, 2)
    model.quant_conv.bias[...] = jnp.zeros(2)
    keys = jnp.arange(2 * 50, dtype=jnp.uint32).reshape(50, 2)
    mean = jnp.full((50, 4, 4, 4, 2), 3.0)
    logvar = jnp.full(mean.shape, 2 * jnp.log(0.5))
    z = model.quantize(mean, logvar, keys)
    # 6400 draws: standard errors 0.006 and 0.004
    assert float(z.mean()) == pytest.approx(3, abs=0.03)
    assert float(z.std()) == pytest.approx(0.5, abs=0.02)
    np.testing.assert_array_equal(model.quantize(mean, logvar), mean)


def test_divergence_is_that_of_two_normals_per_element():
    mean, logvar = volume(3, 2, 2, 2, 4), volume(3, 2, 2, 2, 4, seed=2)
    expected = 0.5 * (np.exp(logvar) + np.square(mean) - 1 - logvar)
    np.testing.assert_allclose(kl_divergence(mean, logvar), expected.mean((1, 2, 3, 4)), rtol=1e-5)
    np.testing.assert_array_equal(kl_divergence(0 * mean, 0 * mean), np.zeros(3))


def kept_bytes(span, remat):
    """What autodiff keeps of a reconstruction in bf16, parameters left out."""
    graphdef, params, rest = make(span=span, remat=remat, dtype=jnp.bfloat16)

    def f(params, x):
        return nnx.merge(graphdef, params, rest)(x)[0]

    pullback = jax.eval_shape(lambda *a: jax.vjp(f, *a)[1], params, volume(1, 8, 32, 32, 2))
    leaves = [leaf for leaf in jax.tree.leaves(pullback) if leaf.ndim == 5 and leaf.shape[0] == 1]
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


@pytest.mark.long
def test_wider_spans_keep_less_and_names_keep_the_blocks_of_a_span():
    block, stage, coder = (kept_bytes(span, "full") for span in ("block", "stage", "coder"))
    assert kept_bytes("block", "none") > 2 * block
    assert block > 1.5 * stage > 1.5 * coder
    assert coder < kept_bytes("coder", "names") < kept_bytes("block", "none") / 2


def test_recomputation_changes_no_value():
    graphdef, params, rest = make(blocks=0)
    x = volume(2, 4, 6, 8, 2)

    def gradient(graphdef):
        def loss(params):
            again, mean, logvar = nnx.merge(graphdef, params, rest)(x)
            return jnp.mean((again - x) ** 2) + jnp.mean(mean * logvar)

        return jax.jit(jax.grad(loss))(params)

    exact = jax.tree.leaves(gradient(graphdef))
    largest = max(np.abs(leaf).max() for leaf in exact)
    redone = jax.tree.leaves(gradient(make(blocks=0, span="stage", remat="full")[0]))
    for a, b in zip(redone, exact, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * largest)


def test_bf16_stays_within_its_rounding_and_returns_f32():
    x = volume(2, 4, 6, 8, 2)
    wide, narrow = (
        jax.jit(nnx.merge(*make(dtype=dtype)))(x) for dtype in (jnp.float32, jnp.bfloat16)
    )
    for a, b in zip(narrow, wide, strict=True):
        assert a.dtype == jnp.float32
        # some 40 roundings of 2^-9 on the way
        assert np.abs(a - b).max() <= 0.1 * np.abs(b).max()
        assert np.abs(a - b).max() > 0


def test_enlarging_is_trilinear_with_cells_of_equal_width():
    x = volume(2, 3, 4, 5, 2)
    for factors, space in (((1, 2, 2), (3, 8, 10)), ((2, 2, 2), (6, 8, 10))):
        ours = jax.jit(enlarge, static_argnums=1)(x, factors)
        expected = jax.image.resize(x, (2, *space, 2), "linear")
        np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_attention_in_parts_is_attention(monkeypatch):
    q, k, v = (volume(2, 10, 4, 3, seed=n) for n in range(3))

    def gradients():
        return jax.jit(jax.grad(lambda *a: jnp.sum(attend(*a) ** 2), (0, 1, 2)))(q, k, v)

    whole = gradients()
    logits = np.einsum("bqhc,bkhc->bhqk", q, k) / np.sqrt(3)
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(attend(q, k, v), np.einsum("bhqk,bkhc->bqhc", weights, v), atol=1e-5)
    monkeypatch.setattr(blocks, "QUERIES", 4)  # 10 rows: two parts and one that is padded
    for a, b in zip(gradients(), whole, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
