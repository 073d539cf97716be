"""Our models against arrays computed by the original implementations, from weights by a rule."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import (  # fmt: skip
    emg2pose_regression,
    emg2pose_regression_mlp,
    emg2pose_tracking,
    emg2pose_tracking_mlp,
    neuropose,
)
from tds_jax.engine.step import split
from tds_jax.pose.models import PoseModel
from tds_jax.pose.neuropose import NeuroPose
from tds_jax.pose.torch_names import import_params

FOLDER = pathlib.Path(__file__).parents[3] / "shared" / "parity" / "pose"
RECORDED = {"num_channels": 16, "num_joints": 20, "sample_rate": 2000.0}
STUDENT = RECORDED | {
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
    "mlp_hidden": (512, 512),
    "rollout_freq": 50.0,
    "output": "position",
    "output_scale": 1.0,
    "initial_pose": "zeros",
    "reference_rate": True,
    "remat": "none",
    "decoder_chunk": 0,
}
# f32: eps 6e-8 times some tens of summed roundings per layer; f64: eps 1e-16, the same.
PRECISIONS = [(np.float32, 1e-5), (np.float64, 1e-12)]
PUBLISHED = {
    "tracking_vemg2pose": (emg2pose_tracking, 5_970_068),
    "regression_vemg2pose": (emg2pose_regression, 5_980_328),
    "tracking_emg2pose": (emg2pose_tracking_mlp, 2_952_340),
    "regression_emg2pose": (emg2pose_regression_mlp, 2_952_340),
    "regression_neuropose": (neuropose, 6_354_903),
}


def build(name, dtype):
    """The model of a benchmark config."""
    model = PUBLISHED[name][0].get_config().model.to_dict()
    if model["name"] == "neuropose":
        return NeuroPose(
            num_channels=16, num_joints=20, channels=model["widths"], pools=model["conv_strides"],
            electrode_pools=model["groups"], residual_blocks=model["layers"],
            dropout=model["dropout"], remat="none", dtype=dtype, rngs=nnx.Rngs(0),
        )  # fmt: skip
    del model["name"]
    return PoseModel(
        **RECORDED | model, remat="none", decoder_chunk=0, dtype=dtype, rngs=nnx.Rngs(0)
    )


def weights_by_rule(name):
    """parity/README.md: sorted names, one generator, gains around 1, the rest small."""
    path = FOLDER / "state_dict_shapes.json"
    if not path.exists():
        pytest.skip(f"{path.name} is not beside this checkout")
    rng = np.random.default_rng(7)
    shapes = json.loads(path.read_text())[name]
    tensors = {}
    for key in sorted(shapes):
        if key.endswith("num_batches_tracked"):
            continue
        if key.endswith("running_var"):
            tensors[key] = rng.uniform(0.5, 1.5, shapes[key])
            continue
        draw = rng.normal(0, 0.1 if key.endswith("running_mean") else 0.08, shapes[key])
        gain = key.endswith("weight") and len(shapes[key]) == 1
        tensors[key] = 1 + 0.6 * draw if gain else draw
    return tensors


def filled(model, name, dtype):
    graphdef, params, rest = split(model)
    tensors = {key: value.astype(dtype) for key, value in weights_by_rule(name).items()}
    return nnx.merge(graphdef, *import_params(params, rest, tensors))


def fixture(name):
    if not (FOLDER / f"{name}.npz").exists():
        pytest.skip(f"{name}.npz is not beside this checkout")
    return np.load(FOLDER / f"{name}.npz")


def relative_error(ours, theirs):
    assert ours.shape == theirs.shape
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize("name", PUBLISHED)
def test_benchmark_models_have_the_published_parameters(name):
    model = nnx.eval_shape(lambda: build(name, jnp.float32))
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    # The original's LSTM has two biases per gate that are only ever summed; ours has the sum.
    lstm = isinstance(model, PoseModel) and hasattr(model.decoder.core, "lstm")
    assert count + (2 * 4 * 512 if lstm else 0) == PUBLISHED[name][1]


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_student_default_matches_its_original(dtype, tolerance):
    data = fixture("tds_lstm_default")
    with jax.enable_x64(dtype == np.float64):
        model = PoseModel(**STUDENT, dtype=dtype, rngs=nnx.Rngs(0))
        model = filled(model, "tds_lstm_default", dtype)
        emg = jnp.asarray(data["emg"], dtype)
        frames = np.swapaxes(model.encoder(emg), 1, 2)
        assert relative_error(frames, data["features"]) <= tolerance
        assert relative_error(model(emg)[:, ::10], data["out"]) <= tolerance


@pytest.mark.parametrize("name", ["regression_vemg2pose", "regression_emg2pose"])
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_benchmark_models_match_their_originals(name, dtype, tolerance, record_property):
    data = fixture(name)
    with jax.enable_x64(dtype == np.float64):
        model = filled(build(name, dtype), name, dtype)
        emg = jnp.asarray(np.swapaxes(data["emg"], 1, 2), dtype)
        frames = np.swapaxes(model.encoder(emg), 1, 2)
        assert relative_error(frames, data["features"]) <= tolerance
        poses = jax.jit(lambda emg: model(emg))(emg)
        assert poses.shape[1] == data["pred_len"] == model.num_steps(emg.shape[1])
        assert relative_error(np.swapaxes(poses[:, ::10], 1, 2), data["pred"]) <= tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_neuropose_matches_its_original(dtype, tolerance):
    data = fixture("regression_neuropose")
    with jax.enable_x64(dtype == np.float64):
        model = filled(build("regression_neuropose", dtype), "regression_neuropose", dtype)
        emg = jnp.asarray(np.swapaxes(data["emg"], 1, 2), dtype)
        frames = np.swapaxes(model.frames(emg), 1, 2)
        assert frames.shape[2] == 960  # 1000 // 10 // 8 // 4 * 320
        assert relative_error(frames[..., :200], data["features"]) <= tolerance
        poses = jax.jit(lambda emg: model(emg))(emg)
        assert poses.shape[1] == data["pred_len"]
        assert relative_error(np.swapaxes(poses[:, ::10], 1, 2), data["pred"]) <= tolerance
