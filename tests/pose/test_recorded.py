"""Pose networks against the originals' arrays in the repository, and what the comparison sees.

Both sides are f64: eps 1e-16 times some tens of summed roundings per layer.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.engine.step import split
from tds_jax.nn import batch_norm
from tds_jax.nn.norm import LayerNorm
from tds_jax.pose.models import PoseModel
from tds_jax.pose.torch_names import import_params
from tests.parity import recorded
from tests.pose.test_parity import STUDENT, build

SAME = 1e-12
SEEN = 1e-8  # an epsilon of 1e-6, not 1e-5, moves what is normalised by 1e-5 / variance at most
STUDENTS = "tds_lstm_default"
OTHERS = ("regression_emg2pose", "regression_vemg2pose", "regression_neuropose")
NETWORKS = (*OTHERS, STUDENTS)


def made(name):
    """Ours, of shapes alone; its epsilons can still be changed."""
    if name == STUDENTS:
        make = functools.partial(PoseModel, **STUDENT, dtype=jnp.float64)
        return nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))
    return nnx.eval_shape(lambda: build(name, jnp.float64))


def found(model, emg):
    """Features and every 10th pose, in PyTorch's layout."""
    poses = model(emg)[:, ::10]
    if isinstance(model, PoseModel):
        return jnp.swapaxes(model.encoder(emg), 1, 2), jnp.swapaxes(poses, 1, 2)
    return jnp.swapaxes(model.frames(emg), 1, 2)[..., :200], jnp.swapaxes(poses, 1, 2)


def program(model):
    graphdef, params, rest = split(model)
    units = rest["normalizer"]
    units = {"mean": np.zeros(units["mean"].shape), "scale": np.ones(units["scale"].shape)}
    rest |= {"normalizer": units}  # no original has it: nothing is taken off
    return jax.jit(lambda p, r, emg: found(nnx.merge(graphdef, p, r), emg)), params, rest


@functools.cache
def compiled(name):
    return program(made(name))


def error(name, tensors=None, wrong=None):
    """Of our network with these tensors, else the rule's; wrong: a changed program."""
    with jax.enable_x64(True):
        run, params, rest = wrong or compiled(name)
        tensors = tensors or recorded.pose_weights(name)
        params, rest = jax.tree.map(jnp.asarray, import_params(params, rest, tensors))
        expected = recorded.outputs(f"pose/{name}")
        if name == STUDENTS:
            features, poses = run(params, rest, jnp.asarray(_student_emg()))
            pairs = (features, "features"), (jnp.swapaxes(poses, 1, 2), "out")
        else:
            emg = jnp.asarray(expected["emg"].T[None], jnp.float64)
            features, poses = run(params, rest, emg)
            pairs = (features, "features"), (poses, "pred")
        return max(recorded.error(ours, expected[key]) for ours, key in pairs)


def _student_emg():
    return recorded.inputs(2, 500, 16, seed=11).astype(np.float64)


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_the_originals(name):
    assert error(name) <= SAME


@pytest.mark.parametrize(
    "name", [STUDENTS, pytest.param("regression_vemg2pose", marks=pytest.mark.long)]
)
@pytest.mark.parametrize("order", [(1, 0, 2, 3), (0, 1, 3, 2), (0, 2, 1, 3)])
def test_another_order_of_gates_is_seen(name, order):
    tensors = recorded.pose_weights(name)
    wrong = recorded.with_gates(tensors, order, lambda key: ".lstm." in key)
    assert error(name, wrong) > SEEN


@pytest.mark.long  # of the arrays, not of the code: they tell wrong networks apart
@pytest.mark.parametrize("name", NETWORKS)
def test_missing_biases_are_seen(name):
    """One of each layer's kind and depth would take a minute: every twentieth, and the last."""
    tensors = recorded.pose_weights(name)
    biases = [key for key in tensors if "bias" in key]
    for key in {*biases[::20], biases[-1]}:
        assert error(name, tensors | {key: np.zeros_like(tensors[key])}) > SEEN, key


@pytest.mark.long  # of the arrays, not of the code: they tell wrong networks apart
@pytest.mark.parametrize("name", NETWORKS)
def test_another_epsilon_is_seen(name, monkeypatch):
    with jax.enable_x64(True):
        model = made(name)
        monkeypatch.setattr(batch_norm, "EPS", 1e-6)
        for _, part in nnx.iter_graph(model):
            if isinstance(part, LayerNorm):
                part.eps = 1e-6
        assert error(name, wrong=program(model)) > SEEN
