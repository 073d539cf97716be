"""The pose model's time grid, causality, presets, precision and noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.errors import UserError
from tds_jax.nn.resample import interpolate
from tds_jax.pose.models import PoseModel, clamped_kernel, drawn

PRESETS = {
    "default": {},
    "quick_demo": {
        "conv_kernels": (5,),
        "conv_strides": (4,),
        "groups": (4,),
        "widths": (4,),
        "tds_kernels": (11,),
        "tds_blocks": (1,),
        "hidden": 64,
        "layers": 1,
    },
    "high_performance": {
        "conv_kernels": (7, 5, 3),
        "conv_strides": (2, 2, 2),
        "groups": (8, 8, 8),
        "widths": (8, 8, 8),
        "tds_kernels": (21, 11, 7),
        "tds_blocks": (2, 2, 2),
        "hidden": 256,
        "layers": 3,
    },
}
BASE = {
    "num_channels": 16,
    "num_joints": 20,
    "sample_rate": 2000.0,
    "conv_kernels": (5, 5),
    "conv_strides": (2, 2),
    "groups": (8, 8),
    "widths": (4, 8),
    "tds_kernels": (21, 11),
    "tds_blocks": (2, 2),
    "dropout": 0.1,
    "decoder": "lstm",
    "hidden": 128,
    "layers": 2,
    "mlp_hidden": (256, 128),
    "rollout_freq": 50.0,
    "output": "position",
    "output_scale": 1.0,
    "initial_pose": "zeros",
    "reference_rate": False,
    "decoder_chunk": 0,
    "remat": "none",
    "dtype": jnp.float32,
}
SMALL = {  # stride 4, encoder context 16
    "conv_kernels": (5,),
    "conv_strides": (4,),
    "groups": (2,),
    "widths": (2,),
    "tds_kernels": (4,),
    "tds_blocks": (1,),
    "num_channels": 3,
    "num_joints": 2,
    "hidden": 8,
    "sample_rate": 200.0,
    "rollout_freq": 25.0,
}


def build(**changes):
    return PoseModel(**(BASE | changes), rngs=nnx.Rngs(0))


def shapes(**changes):
    """The model without its numbers: nothing is computed."""
    return nnx.eval_shape(lambda: build(**changes))


def small(**changes):
    return build(**(SMALL | changes))


def emg(length, batch=2, channels=3):
    draw = np.random.default_rng(0).normal(size=(batch, length, channels))
    return jnp.asarray(draw, jnp.float32)


def run(f, *arguments):
    return jax.jit(lambda *a: f(*a))(*arguments)


def parameters(model):
    return sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))


@pytest.mark.parametrize(
    ("preset", "original", "kernels_kept"),
    # kernels_kept: what the unclamped kernels add, sum of blocks * (asked - used) * groups²
    [
        ("default", 280_180, 2 * 18 * 64 + 2 * 4 * 64),
        ("quick_demo", 29_384, 8 * 16),
        ("high_performance", 1_502_532, 2 * 14 * 64 + 2 * 4 * 64),
    ],
)
def test_presets_have_the_originals_parameters(preset, original, kernels_kept):
    settings = PRESETS[preset]
    # The original's LSTM has two biases per gate that are only ever summed; ours has the sum.
    biases = 4 * (BASE | settings)["hidden"] * (BASE | settings)["layers"]
    assert parameters(shapes(**settings, reference_rate=True)) == original - biases
    assert parameters(shapes(**settings)) == original - biases + kernels_kept


@pytest.mark.parametrize(
    ("preset", "encoder", "model"),
    [("default", 172, 208), ("quick_demo", 44, 80), ("high_performance", 278, 310)],
)
def test_presets_step_every_20_ms_after_their_context(preset, encoder, model):
    pose = shapes(**PRESETS[preset])
    assert (pose.encoder.left_context, pose.left_context, pose.step) == (encoder, model, 40)


@pytest.mark.parametrize("rate", [50.0, 25.0, 12.5, 100.0])
def test_step_n_sees_samples_up_to_its_own_and_no_later(rate):
    """Rates 50 and 25 and 12.5: 1, 2 and 4 frames a step; rate 100: two steps a frame."""
    model = small(rollout_freq=rate)
    x = emg(model.left_context + 1 + 5 * model.step, batch=1)
    assert model.num_steps(x.shape[1]) == 6
    pull = jax.jit(jax.grad(lambda x, n: jnp.sum(model(x)[:, n] ** 2)))
    for n in (0, 1, 4):
        gradient = pull(x, n)[0]
        newest = np.flatnonzero(np.abs(gradient).sum(-1))[-1]
        own = model.left_context + n * model.step
        held = n * model.step % model.encoder.stride  # since the newest whole frame
        assert newest == own - held


def test_a_step_gets_the_mean_of_the_frames_since_the_step_before():
    model = small(rollout_freq=12.5)
    x = emg(100)
    frames, features = run(lambda x: (model.encoder(x), model.features(x)), x)
    assert model.frames_per_step == 4
    for n in range(features.shape[1]):
        np.testing.assert_allclose(features[:, n], frames[:, 4 * n : 4 * n + 4].mean(1), atol=1e-6)


def test_steps_between_two_frames_hold_the_newest():
    model = small(rollout_freq=100.0)
    x = emg(60)
    frames, features = run(lambda x: (model.encoder(x), model.features(x)), x)
    assert features.shape[1] == model.num_steps(60)
    held = [frames[:, n // 2] for n in range(features.shape[1])]
    np.testing.assert_allclose(features, np.stack(held, 1), atol=1e-6)


def test_number_of_steps_is_that_of_the_model_for_every_length():
    for rate in (25.0, 100.0):
        model = small(rollout_freq=rate)
        for length in range(model.left_context + 1, model.left_context + 20):
            poses = jax.eval_shape(model, emg(length))
            assert poses.shape == (2, model.num_steps(length), 2)
        assert model.num_steps(model.left_context) == 0


def test_streaming_in_chunks_is_the_whole_window():
    model = small()
    x = emg(150)
    whole = run(model, x)
    window = jax.jit(lambda x: model.features(x)[:, 0])
    step = jax.jit(model.decode_step)
    carry, poses = model.initial_carry(2), []
    for n in range(whole.shape[1]):
        start = n * model.step
        feature = window(x[:, start : start + model.left_context + 1])
        carry, pose = step(carry, feature)
        poses.append(pose)
    np.testing.assert_allclose(np.stack(poses, 1), whole, atol=1e-5)


def test_noise_of_an_example_does_not_depend_on_the_micro_batch():
    model = small(dropout=0.4)
    x, keys = emg(100, batch=4), jnp.arange(8, dtype=jnp.uint32).reshape(4, 2)
    noisy = jax.jit(lambda x, keys: model(x, keys=keys))
    whole = noisy(x, keys)
    halves = [noisy(x[i : i + 2], keys[i : i + 2]) for i in (0, 2)]
    np.testing.assert_allclose(whole, np.concatenate(halves), atol=1e-6)
    assert np.abs(whole - run(model, x)).max() > 1e-2
    other = noisy(x, keys + jnp.uint32(1))
    assert np.abs(whole - other).max() > 1e-2


def test_bf16_returns_f32_close_to_f32():
    x, keys = emg(300), jnp.arange(4, dtype=jnp.uint32).reshape(2, 2)
    exact, rounded = (run(small(dtype=d), x, None, keys) for d in (jnp.float32, jnp.bfloat16))
    assert rounded.dtype == jnp.float32
    # 8-bit mantissas through a few layers, normalised in between: a few per cent of the range
    assert np.abs(rounded - exact).max() < 0.1 * np.abs(exact).max()


@pytest.mark.parametrize("settings", [{"decoder": "lstm"}, {"decoder": "mlp"}])
def test_state_is_a_pure_dict_with_string_keys_that_rebuilds_the_model(settings):
    model = small(initial_pose="learned", **settings)
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    params, rest = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)
    paths = jax.tree_util.tree_flatten_with_path((params, rest))[0]
    assert all(isinstance(part.key, str) for path, _ in paths for part in path[1:])
    assert set(rest) == {"normalizer"}
    again = nnx.merge(graph, params, rest)
    np.testing.assert_array_equal(run(again, emg(50)), run(model, emg(50)))


def test_every_parameter_of_every_kind_gets_a_gradient():
    for settings in ({}, {"decoder": "mlp"}, {"output": "hybrid"}):
        model = small(initial_pose="learned", **settings)
        graph, params, rest = nnx.split(model, nnx.Param, ...)
        loss = lambda p: jnp.sum(nnx.merge(graph, p, rest)(emg(200)) ** 2)  # noqa: B023, E731
        gradient = jax.jit(jax.grad(loss))(nnx.to_pure_dict(params))
        assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(gradient))


def test_initial_pose_comes_from_where_it_was_said_to():
    x, pose = emg(50), jnp.ones((2, 2))
    given = small(initial_pose="given", output="velocity")
    assert np.abs(run(given, x, pose) - run(given, x, 0 * pose)).max() > 0.5
    np.testing.assert_array_equal(given.initial_carry(2, pose)["pose"], pose)
    learned = small(initial_pose="learned")
    learned.start[...] = jnp.array([1.0, 2.0])
    np.testing.assert_array_equal(learned.initial_carry(3)["pose"], [[1, 2]] * 3)
    with pytest.raises(ValueError, match="absent"):
        given(x)
    with pytest.raises(ValueError, match="present"):
        small()(x, pose)


@pytest.mark.long
def test_reference_rate_takes_steps_as_if_frames_came_at_the_sampling_rate():
    for preset, steps in (("default", 2), ("quick_demo", 3), ("high_performance", 1)):
        model = build(**PRESETS[preset], reference_rate=True)
        x = emg(500, channels=16)
        assert jax.eval_shape(model.features, x).shape[1] == steps
        assert (model.left_context, model.step, model.num_steps(500)) == (0, 1, 500)


def test_reference_poses_are_spread_over_the_whole_window():
    model = small(reference_rate=True, tds_kernels=(3,))
    x = emg(700)
    poses, _ = run(lambda x: model.decode(model.features(x), model.initial_carry(2)), x)
    assert poses.shape[1] == 4
    np.testing.assert_allclose(
        run(model, x), interpolate(poses, 700, align_corners=True), atol=1e-6
    )


def test_reference_kernels_are_clamped_to_the_width_and_made_odd():
    assert [clamped_kernel(k, w) for k, w in ((21, 4), (11, 8), (7, 8), (6, 8), (5, 5))] == [
        3,
        7,
        7,
        5,
        5,
    ]


def test_a_rate_that_does_not_fit_the_strides_names_both():
    with pytest.raises(UserError, match=r"rollout_freq=20.0.*step of 10.*product 4"):
        small(rollout_freq=20.0)


def test_a_window_shorter_than_the_context_names_the_least_length():
    with pytest.raises(UserError, match=r"window of 20 samples.*at least 21"):
        small()(emg(20))


def test_unknown_choices_are_refused_by_name():
    with pytest.raises(UserError, match=r"model.decoder='gru'.*lstm, mlp"):
        small(decoder="gru")
    with pytest.raises(UserError, match=r"model.initial_pose='mean'.*zeros, learned, given, mixed"):
        small(initial_pose="mean")


def test_reference_alignment_spreads_frames_over_the_steps_and_poses_over_the_samples():
    model = small(alignment="reference", rollout_freq=20.0)  # any rate: 10 samples a step
    assert (model.left_context, model.step, model.receptive_field) == (16, 1, 17)
    x = emg(117)  # 101 samples: round(10.1) = 10 steps from 26 frames
    frames, poses = run(lambda x: (model.encoder(x), model(x)), x)
    steps = interpolate(frames, 10, align_corners=True)
    wanted, _ = run(lambda s: model.decode(s, model.initial_carry(2)), steps)
    assert poses.shape == (2, 101, 2)
    np.testing.assert_allclose(poses, interpolate(wanted, 101, align_corners=False), atol=1e-6)


@pytest.mark.parametrize(("samples", "steps"), [(1, 1), (5, 1), (12, 1), (15, 2), (25, 2), (35, 4)])
def test_reference_steps_are_rounded_half_to_even_and_at_least_one(samples, steps):
    model = small(alignment="reference", rollout_freq=20.0)
    length = model.left_context + samples
    assert model.decoder_steps(length, model.encoder.num_frames(length)) == steps
    assert jax.eval_shape(model.features, emg(length)).shape[1] == steps
    assert model.num_steps(length) == samples


def test_alignments_share_parameters_and_the_seed_systems_grid_stands_alone():
    fixed, reference = small(), small(alignment="reference")
    shapes = [jax.tree.map(jnp.shape, nnx.to_pure_dict(nnx.state(m))) for m in (fixed, reference)]
    assert shapes[0] == shapes[1]
    with pytest.raises(UserError, match=r"reference_rate=True has a grid of its own"):
        small(alignment="reference", reference_rate=True)
    with pytest.raises(UserError, match=r"model.alignment='even'.*fixed, reference"):
        small(alignment="even")


def test_mixed_models_track_the_share_of_examples_that_their_keys_draw():
    model = small(initial_pose="mixed", tracking_share=0.75)
    model.start[...] = jnp.array([5.0, 6.0])
    keys = jnp.arange(4000, dtype=jnp.uint32).reshape(2000, 2)
    given = jnp.ones((2000, 2))
    start = np.asarray(model.initial_carry(2000, given, keys)["pose"])
    tracked = (start == 1).all(1)
    np.testing.assert_array_equal(start[~tracked], np.tile([5.0, 6.0], (sum(~tracked), 1)))
    # Binomial(2000, 0.75): standard deviation 0.0097
    assert abs(tracked.mean() - 0.75) < 0.04
    half = model.initial_carry(1000, given[:1000], keys[1000:])["pose"]
    np.testing.assert_array_equal(half, start[1000:])
    for share, whole in ((0.0, False), (1.0, True)):
        assert (drawn(keys, share) == whole).all()


def test_mixed_models_do_either_task_outside_training():
    model = small(initial_pose="mixed", tracking_share=0.5)
    model.start[...] = jnp.array([5.0, 6.0])
    np.testing.assert_array_equal(model.initial_carry(3)["pose"], [[5, 6]] * 3)
    pose = jnp.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(model.initial_carry(3, pose)["pose"], pose)
