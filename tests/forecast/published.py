"""The published forecast networks: their tensors by name, and our networks of the same sizes."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.engine.step import split
from tds_jax.forecast.cnn3d_lstm import CNN3DLSTM, structure
from tds_jax.forecast.convlstm import ConvLSTM
from tds_jax.forecast.torch_names import import_params

FOLDER = pathlib.Path(__file__).parents[3] / "shared" / "parity" / "forecast"
# Their name, parameters at 4 channels, channels of the blocks, LSTM inputs and hidden, head.
NETWORKS = {
    "convlstm": ("convlstm", 11_601),
    "cnn3d_lstm": ("3dcnn_lstm", 114_833, (16, 32, 64), 32, 32),
    "cnn3d_lstm_lite": ("3dcnn_lstm_lite", 8_777, (8, 16), 16, 0),
    "cnn3d_lstm_micro": ("3dcnn_lstm_micro", 2_617, (16,), 8, 0),
}
SIZES = {"cnn3d_lstm": (64, 32), "cnn3d_lstm_lite": (32, 16), "cnn3d_lstm_micro": (16, 8)}
PLAIN = {
    "num_channels": 4,
    "leads": 10,
    "head": "repeat",
    "remat": "none",
    "dtype": jnp.float32,
}
OF_CNN = {
    "layout": "reference",
    "norm": "batch",
    "groups": 1,
    "dropout": 0.0,
    "cells": 0,
    "example_chunk": 0,
    "pixel_chunk": 0,
}


def build(name, **changes):
    """Our network of a published size; changes: other arguments."""
    if name == "convlstm":
        own = PLAIN | {"hidden": 16, "day_chunk": 0} | changes
        return ConvLSTM(**own, rngs=nnx.Rngs(0))
    shape = dataclasses.asdict(structure(name, *SIZES[name]))
    return CNN3DLSTM(**PLAIN | OF_CNN | shape | changes, rngs=nnx.Rngs(0))


def shapes_of(name, channels=4, hidden=16):
    """Tensor name -> shape, in the order of the original's state dict."""
    if name == "convlstm":
        return {
            "cell.conv.weight": (4 * hidden, channels + hidden, 3, 3),
            "cell.conv.bias": (4 * hidden,),
            "out.weight": (1, hidden, 1, 1),
            "out.bias": (1,),
        }
    _, _, widths, lstm, head = NETWORKS[name]
    shapes = {}
    for n, (a, b) in enumerate(zip((channels, *widths), widths, strict=False), start=1):
        shapes |= {f"conv3d{n}.weight": (b, a, 3, 3, 3), f"conv3d{n}.bias": (b,)}
        shapes |= norm_shapes(f"bn{n}", b)
    directions = ("",) if name.endswith("micro") else ("", "_reverse")
    for suffix in directions:
        shapes[f"lstm.weight_ih_l0{suffix}"] = (4 * lstm, widths[-1])
        shapes[f"lstm.weight_hh_l0{suffix}"] = (4 * lstm, lstm)
        shapes |= {f"lstm.bias_{kind}_l0{suffix}": (4 * lstm,) for kind in ("ih", "hh")}
    features = lstm * len(directions)
    if head:
        shapes |= {"conv_out.weight": (head, features, 3, 3), "conv_out.bias": (head,)}
        shapes |= norm_shapes("bn_out", head)
        features = head
    return shapes | {"final_out.weight": (1, features, 1, 1), "final_out.bias": (1,)}


def norm_shapes(name, features):
    """What a BatchNorm stores."""
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{leaf}": (features,) for leaf in leaves} | {f"{name}.num_batches_tracked": ()}


def weights_by_rule(name, **sizes):
    """parity/README.md: sines of the place in the tensor and of the tensor in the list."""
    tensors = {}
    for k, (key, shape) in enumerate(shapes_of(name, **sizes).items()):
        s = np.sin(0.7 * np.arange(np.prod(shape, dtype=int)) + 0.3 * k).reshape(shape)
        value = 0.2 * s
        if key.endswith("running_var"):
            value = 1 + 0.5 * s**2
        elif key.startswith("bn") and key.endswith("weight"):
            value = 1 + 0.2 * s
        elif key.endswith("tracked"):
            value = np.zeros(shape)
        tensors[key] = value.astype(np.float32)
    return tensors


def filled(network, tensors, dtype):
    """The network with these weights."""
    graphdef, params, rest = split(network)
    tensors = {key: value.astype(dtype) for key, value in tensors.items()}
    imported = import_params(params, rest, tensors)
    return nnx.merge(graphdef, *jax.tree.map(jnp.asarray, imported))


def inputs():
    """x (2, 20, 7, 9, 4), target (2, 10, 7, 9) and mask (7, 9) of the recorded arrays, f64."""
    j = np.arange(2 * 20 * 4 * 7 * 9)
    x = (0.5 * np.sin(0.013 * j) + 0.5 * np.cos(0.0071 * j)).reshape(2, 20, 4, 7, 9)
    y = 0.3 * np.cos(0.011 * np.arange(2 * 10 * 7 * 9)).reshape(2, 10, 7, 9)
    mask = (np.arange(7 * 9) % 5 != 0).reshape(7, 9).astype(np.float64)
    return np.moveaxis(x, 2, -1), y, mask


def recorded(name):
    """Recorded arrays of one network, without its name: eval, train, loss, grad/…, after/…"""
    path = FOLDER / "golden.npz"
    if not path.exists():
        pytest.skip(f"{path.name} is not beside this checkout")
    arrays, prefix = np.load(path), f"{NETWORKS[name][0]}/T20/"
    return {key[len(prefix) :]: arrays[key] for key in arrays if key.startswith(prefix)}
