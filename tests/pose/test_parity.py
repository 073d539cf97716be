"""Our networks against arrays computed by the original implementations, from weights by a rule."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.nn.resample import interpolate
from tds_jax.pose.models import PoseModel
from tds_jax.pose.torch_names import import_params

FOLDER = pathlib.Path(__file__).parents[3] / "shared" / "parity" / "pose"
SHARED = {
    "num_channels": 16,
    "num_joints": 20,
    "sample_rate": 2000.0,
    "rollout_freq": 50.0,
    "mlp_hidden": (512, 512),
    "remat": "none",
    "decoder_chunk": 0,
}
STUDENT = SHARED | {
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
    "output": "position",
    "output_scale": 1.0,
    "initial_pose": "zeros",
    "reference_rate": True,
}
BENCHMARK = SHARED | {
    "conv_kernels": (11, 5, 17, 9),
    "conv_strides": (5, 2, 4, 2),
    "groups": (16,) * 4,
    "widths": (16,) * 4,
    "tds_kernels": (1, 1, 9, 5),
    "tds_blocks": (0, 0, 2, 2),
    "dropout": 0.0,
    "hidden": 512,
    "layers": 2,
    "output_scale": 0.01,
    "initial_pose": "zeros",
    "reference_rate": False,
    "norm_order": "relu_norm",
    "conv_bias": True,
    "out_features": 64,
    "slope": 0.01,
}


def weights_by_rule(name):
    """parity/README.md: sorted names, one generator, gains around 1, the rest small."""
    rng = np.random.default_rng(7)
    shapes = json.loads((FOLDER / "state_dict_shapes.json").read_text())[name]
    tensors = {}
    for key in sorted(shapes):
        draw = rng.normal(0, 0.08, shapes[key])
        gain = key.endswith("weight") and len(shapes[key]) == 1
        tensors[key] = 1 + 0.6 * draw if gain else draw
    return tensors


def load(name, settings, dtype):
    if not (FOLDER / f"{name}.npz").exists():
        pytest.skip(f"{name}.npz is not beside this checkout")
    model = PoseModel(**settings, dtype=dtype, rngs=nnx.Rngs(0))
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    tensors = {k: v.astype(dtype) for k, v in weights_by_rule(name).items()}
    params = import_params(nnx.to_pure_dict(params), tensors)
    return nnx.merge(graph, params, rest), np.load(FOLDER / f"{name}.npz")


def relative_error(ours, theirs):
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


def rollout_as_the_benchmark_does(model, emg, frames):
    """Frames spread over the steps, poses spread over the supervised samples."""
    samples = emg.shape[1] - model.encoder.left_context
    steps = interpolate(frames, round(samples / 2000 * 50), align_corners=True)
    poses, _ = model.decode(steps, model.initial_carry(emg.shape[0]))
    return interpolate(poses, samples, align_corners=False)


# f32: eps 6e-8 times some tens of summed roundings per layer; f64: eps 1e-16, the same, and
# erf-free activations only. The student's __call__ returns f32, hence 1e-7 for its poses in f64.
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_student_default_matches_its_original(dtype, tolerance):
    with jax.enable_x64(dtype == np.float64):
        model, data = load("tds_lstm_default", STUDENT, dtype)
        emg = jnp.asarray(data["emg"], dtype)
        frames = np.swapaxes(model.encoder(emg), 1, 2)
        assert frames.shape == data["features"].shape
        assert relative_error(frames, data["features"]) <= tolerance
        poses = model(emg)[:, ::10]
        assert poses.shape == data["out"].shape
        assert relative_error(poses, data["out"]) <= max(tolerance, 1e-7)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("regression_vemg2pose", {"decoder": "lstm", "output": "hybrid"}),
        ("regression_emg2pose", {"decoder": "mlp", "output": "position"}),
    ],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_benchmark_models_match_their_originals(name, settings, dtype, tolerance):
    with jax.enable_x64(dtype == np.float64):
        model, data = load(name, BENCHMARK | settings, dtype)
        emg = jnp.asarray(np.swapaxes(data["emg"], 1, 2), dtype)
        frames = model.encoder(emg)
        assert relative_error(np.swapaxes(frames, 1, 2), data["features"]) <= tolerance
        poses = rollout_as_the_benchmark_does(model, emg, frames)
        assert poses.shape[1] == data["pred_len"]
        assert relative_error(np.swapaxes(poses[:, ::10], 1, 2), data["pred"]) <= tolerance
