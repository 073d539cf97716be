"""ConvLSTM: recomputation changes nothing but bytes; a pixel sees a pixel further every day."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.engine.step import split
from tds_jax.errors import UserError
from tds_jax.forecast.convlstm import ConvLSTM

SMALL = {
    "num_channels": 2,
    "leads": 3,
    "hidden": 4,
    "head": "leads",
    "day_chunk": 0,
    "remat": "none",
    "dtype": jnp.float32,
}


def build(**changes):
    return ConvLSTM(**SMALL | changes, rngs=nnx.Rngs(0))


def fields(days=7, height=5, width=6, batch=2):
    draw = np.random.default_rng(0).normal(size=(batch, days, height, width, 2))
    return jnp.asarray(draw, jnp.float32)


def value_and_gradients(x, **changes):
    graphdef, params, _ = split(build(**changes))

    def loss(params):
        return jnp.sum(jnp.sin(nnx.merge(graphdef, params)(x, True)))

    return jax.jit(jax.value_and_grad(loss))(params)


@pytest.mark.parametrize(
    ("day_chunk", "remat"), [(3, "none"), (7, "full"), (2, "full"), (0, "dots"), (4, "names")]
)
def test_chunks_of_days_and_recomputation_change_neither_loss_nor_gradients(day_chunk, remat):
    x = fields()
    plain = value_and_gradients(x)
    ours = value_and_gradients(x, day_chunk=day_chunk, remat=remat)
    # sums of 2 * 3 * 30 maps and of 7 days in f32
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours, plain)


def test_chunks_of_days_keep_less():
    x = jax.ShapeDtypeStruct((1, 16, 24, 24, 2), jnp.float32)

    def bytes_of(**changes):
        graphdef, params, _ = split(build(hidden=8, **changes))
        loss = lambda p, x: jnp.sum(nnx.merge(graphdef, p)(x, True) ** 2)  # noqa: E731
        step = jax.jit(jax.grad(loss)).lower(params, x).compile()
        return step.memory_analysis().temp_size_in_bytes

    # 16 days of 8 * 8 numbers against (16 / 4 + 4) * 2 * 8 and one day's
    assert bytes_of(day_chunk=4, remat="full") < bytes_of() / 2.5


def test_a_pixel_sees_as_many_pixels_around_it_as_there_are_days():
    x, network = fields(days=2, height=9, width=9), build()
    slope = jax.grad(lambda x: jnp.sum(network(x, False)[:, :, 4, 4] ** 2))(x)
    seen = np.abs(slope).max((0, 4)) > 0  # (T, H, W)
    rows = np.abs(np.arange(9) - 4)
    apart = np.maximum(rows[:, None], rows)
    np.testing.assert_array_equal(seen[0], apart <= 2)
    np.testing.assert_array_equal(seen[1], apart <= 1)


def test_a_head_makes_one_map_per_lead_or_repeats_one():
    x = fields()
    maps = build()(x, False)
    assert maps.shape == (2, 3, 5, 6)
    assert np.abs(np.diff(maps, axis=1)).max() > 1e-3
    np.testing.assert_array_equal(np.diff(build(head="repeat")(x, False), axis=1), 0)
    with pytest.raises(UserError, match=r"model.head='each' is not known; use one of leads"):
        build(head="each")


def test_examples_do_not_touch_each_other():
    x, network = fields(batch=3), build()
    run = jax.jit(lambda x: network(x, True))
    np.testing.assert_allclose(run(x)[1:2], run(x[1:2]), atol=1e-6)


def test_bf16_inputs_and_products_give_f32_maps_close_to_those_of_f32():
    x = fields()
    maps = build(dtype=jnp.bfloat16)(x.astype(jnp.bfloat16), False)
    assert maps.dtype == jnp.float32
    # 7 days of products of 8 bits
    np.testing.assert_allclose(maps, build()(x, False), atol=0.02)
