"""Our models against arrays computed by the original implementations, from weights by a rule."""

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
from tds_jax import config as configuration
from tds_jax import tasks
from tds_jax.engine.step import split
from tds_jax.pose import networks
from tds_jax.pose.models import PoseModel
from tds_jax.pose.torch_names import import_params
from tests.parity import recorded

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
# f64 sees every fault that f32 does; in f32 the networks are compared by test_recorded.
PRECISIONS = [
    pytest.param(np.float32, 1e-5, marks=pytest.mark.long),
    (np.float64, 1e-12),
]
PUBLISHED = {
    "tracking_vemg2pose": (emg2pose_tracking, 5_970_068),
    "regression_vemg2pose": (emg2pose_regression, 5_980_328),
    "tracking_emg2pose": (emg2pose_tracking_mlp, 2_952_340),
    "regression_emg2pose": (emg2pose_regression_mlp, 2_952_340),
    "regression_neuropose": (neuropose, 6_354_903),
}


def build(name, dtype):
    """The model of a benchmark config, as training builds it but for the type."""
    values = PUBLISHED[name][0].get_config().to_dict()
    config = configuration.resolve(values, tasks.groups("pose"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "compute_dtype", lambda _: jnp.dtype(dtype))
        return tasks.get(config, RECORDED).init(nnx.Rngs(0))


def weights_by_rule(name):
    """parity/README.md: sorted names, one generator, gains around 1, the rest small."""
    path = FOLDER / "state_dict_shapes.json"
    if not path.exists():
        pytest.skip(f"{path.name} is not beside this checkout")
    return recorded.pose_weights(name, path)


def filled(model, name, dtype):
    graphdef, params, rest = split(model)
    tensors = {key: value.astype(dtype) for key, value in weights_by_rule(name).items()}
    return nnx.merge(graphdef, *import_params(params, rest, tensors))


def fixture(name):
    if not (FOLDER / f"{name}.npz").exists():
        pytest.skip(f"{name}.npz is not beside this checkout")
    return np.load(FOLDER / f"{name}.npz")


def jitted(model, *arguments, method="__call__"):
    graphdef, state = nnx.split(model)  # closed over, weights would be constants of the program

    @jax.jit
    def call(state, *arguments):
        return getattr(nnx.merge(graphdef, state), method)(*arguments)

    return call(state, *arguments)


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


@pytest.mark.long  # its outputs, `test_recorded` has
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_student_default_matches_its_original(dtype, tolerance):
    data = fixture("tds_lstm_default")
    with jax.enable_x64(dtype == np.float64):
        model = PoseModel(**STUDENT, dtype=dtype, rngs=nnx.Rngs(0))
        model = filled(model, "tds_lstm_default", dtype)
        emg = jnp.asarray(data["emg"], dtype)
        frames = np.swapaxes(jitted(model.encoder, emg), 1, 2)
        assert relative_error(frames, data["features"]) <= tolerance
        assert relative_error(jitted(model, emg)[:, ::10], data["out"]) <= tolerance


@pytest.mark.parametrize("name", ["regression_vemg2pose", "regression_emg2pose"])
@pytest.mark.long  # of these networks `test_recorded` has the outputs
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_benchmark_models_match_their_originals(name, dtype, tolerance):
    data = fixture(name)
    with jax.enable_x64(dtype == np.float64):
        model = filled(build(name, dtype), name, dtype)
        emg = jnp.asarray(np.swapaxes(data["emg"], 1, 2), dtype)
        frames = np.swapaxes(jitted(model.encoder, emg), 1, 2)
        assert relative_error(frames, data["features"]) <= tolerance
        poses = jitted(model, emg)
        assert poses.shape[1] == data["pred_len"] == model.num_steps(emg.shape[1])
        assert relative_error(np.swapaxes(poses[:, ::10], 1, 2), data["pred"]) <= tolerance


@pytest.mark.long  # its outputs, `test_recorded` has
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_neuropose_matches_its_original(dtype, tolerance):
    data = fixture("regression_neuropose")
    with jax.enable_x64(dtype == np.float64):
        model = filled(build("regression_neuropose", dtype), "regression_neuropose", dtype)
        emg = jnp.asarray(np.swapaxes(data["emg"], 1, 2), dtype)
        frames = np.swapaxes(jitted(model, emg, method="frames"), 1, 2)
        assert frames.shape[2] == 960  # 1000 // 10 // 8 // 4 * 320
        assert relative_error(frames[..., :200], data["features"]) <= tolerance
        poses = jitted(model, emg)
        assert poses.shape[1] == data["pred_len"]
        assert relative_error(np.swapaxes(poses[:, ::10], 1, 2), data["pred"]) <= tolerance


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def decoded_as_described(tensors, frames, initial, samples):
    """facts of the original's rollout, written down once more in plain NumPy: velocity decoder."""
    steps = round(samples / 2000 * 50)
    at = np.arange(steps) * (frames.shape[1] - 1) / (steps - 1)
    low = np.minimum(at.astype(int), frames.shape[1] - 2)
    part = (at - low)[None, :, None]
    inputs = frames[:, low] * (1 - part) + frames[:, low + 1] * part
    state = [[np.zeros((len(initial), 512))] * 2 for _ in range(2)]
    pose, poses = initial, []
    for n in range(steps):
        x = np.concatenate([inputs[:, n], pose], axis=1)
        for k, (cell, hidden) in enumerate(state):
            w = {key: tensors[f"decoder.lstm.{key}_l{k}"] for key in
                 ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}  # fmt: skip
            gates = x @ w["weight_ih"].T + w["bias_ih"] + hidden @ w["weight_hh"].T + w["bias_hh"]
            i, f, g, o = np.split(gates, 4, axis=1)
            cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
            state[k] = [cell, sigmoid(o) * np.tanh(cell)]
            x = state[k][1]
        out = np.where(x > 0, x, 0.01 * x) @ tensors["decoder.mlp_out.1.weight"].T
        pose = pose + 0.01 * (out + tensors["decoder.mlp_out.1.bias"])
        poses.append(pose)
    at = np.clip((np.arange(samples) + 0.5) * steps / samples - 0.5, 0, steps - 1)
    return np.stack(
        [[np.interp(at, np.arange(steps), joint) for joint in one.T]
         for one in np.stack(poses, 1)]
    ).swapaxes(1, 2)  # fmt: skip


@pytest.mark.long
def test_tracking_is_what_its_description_says():
    """No recorded outputs exist for it; the encoder and both decoders are the regression's."""
    data, tensors = fixture("regression_vemg2pose"), weights_by_rule("tracking_vemg2pose")
    with jax.enable_x64(True):
        model = filled(build("tracking_vemg2pose", np.float64), "tracking_vemg2pose", np.float64)
        emg = jnp.asarray(np.swapaxes(data["emg"], 1, 2), np.float64)
        initial = data["joint_angles"][:, :, 1790].astype(np.float64)
        poses = jitted(model, emg, jnp.asarray(initial))
        frames = np.asarray(jitted(model.encoder, emg))
        described = decoded_as_described(tensors, frames, initial, 1000)
        assert relative_error(poses, described) <= 1e-12


@pytest.mark.long
def test_both_alignments_read_the_same_parameters():
    """A stream can run on imported weights, at the price of seeing no later sample."""
    model = filled(build("regression_vemg2pose", np.float32), "regression_vemg2pose", np.float32)
    data = fixture("regression_vemg2pose")
    emg = jnp.asarray(np.swapaxes(data["emg"], 1, 2))
    fixed = model.aligned("fixed")
    assert (fixed.step, fixed.left_context, model.step, model.left_context) == (40, 1790, 1, 1790)
    # Frames spread over the window against the newest one at each step: near, not the same.
    apart = np.abs(jitted(fixed, emg) - jitted(model, emg)[:, ::40]).max()
    assert 0 < apart < 0.1 * np.abs(data["pred"]).max()
