"""Parameter names and layouts of the PyTorch originals -> those of our forecast networks."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from tds_jax.errors import UserError
from tds_jax.interchange import torch_fill
from tds_jax.interchange.torch_fill import Found, Remedies

# Whatever stands before these parts of a name is free; n counts from 1 in the originals.
_RULES = (
    (r"cell\.conv", "cell"),
    (r"out", "out linear"),
    (r"conv3d(?P<n>\d)", "block_{n} conv"),
    (r"bn(?P<n>\d)", "block_{n} norm"),
    (r"conv_out", "head conv"),
    (r"bn_out", "head norm"),
    (r"final_out", "out linear"),
)
_LEAVES = r"\.(?P<leaf>weight|bias|running_mean|running_var)"
_PATTERNS = tuple((re.compile(rf"(?:.*\.)?{core}{_LEAVES}"), path) for core, path in _RULES)
_LSTM = re.compile(r"(?:.*\.)?lstm\.((?:weight|bias)_[ih]h)_l0(_reverse)?")
_KINDS = {"weight_ih": "wx", "weight_hh": "wh", "bias_ih": "bias", "bias_hh": "bias_h"}
_COUNTER = "num_batches_tracked"  # of BatchNorm; nothing depends on it with a fixed momentum
_OURS = ("cells",)  # which no original has
_REMEDIES = Remedies(
    missing="set model.name, model.hidden and model.norm as its model has them",
    shape="set model.head='repeat' and its channels and widths",
    extra="set model.name and model.norm as its model has them",
)
_DEAD = "lstm reverse wh"  # its output is read after one step, before it could matter
_NAMES = {1: ("cnn3d_lstm_micro", 1), 2: ("cnn3d_lstm_lite", 2), 3: ("cnn3d_lstm", 1)}


def import_params(
    params: dict[str, Any], rest: dict[str, Any], tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(params, rest) with every leaf replaced by its counterpart in `tensors`, f64 kept as it is.

    tensors: name -> array in PyTorch's layout; what stands before the part of a name that matters
    ('model.', 'module.' …) is free. Where the network has one LSTM bias (layout 'pixels') the two
    are summed, and the recurrent weights of the reverse direction, which have no effect, are left
    out. `cells` stay as they are.
    Raises UserError for a name without a counterpart, a leaf that nothing or more than one tensor
    fills, and shapes that do not fit, naming the tensor and both shapes.
    """
    found = torch_fill.converted(tensors, convert, _COUNTER)
    ours = jax.tree_util.tree_leaves_with_path({"params": params, "rest": rest})
    _without_effect(found, {torch_fill.path_of(path) for path, _ in ours})
    return torch_fill.fill(params, rest, found, _REMEDIES, _OURS)


def inputs_of(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """name, num_channels, hidden and lstm_hidden (0: none) of a checkpoint's model, by its shapes.

    The size of the map, days and leads do not show.
    """
    found = torch_fill.converted(tensors, convert, _COUNTER)
    shapes = {key: value.shape for key, (_, value) in found.items()}
    if "cell kernel" in shapes:
        *_, inputs, gates = shapes["cell kernel"]
        return _inputs("convlstm", inputs - gates // 4, gates // 4, 0)
    blocks = sum(key.endswith("conv kernel") and key.startswith("block_") for key in shapes)
    if blocks not in _NAMES or "lstm forward wx" not in shapes:
        raise UserError(
            "checkpoint has neither 'cell.conv.weight' (ConvLSTM) nor 'conv3d1.weight' and "
            "'lstm.weight_ih_l0' (3dcnn_lstm); check its origin"
        )
    name, narrowing = _NAMES[blocks]
    channels = shapes["block_0 conv kernel"][-2]
    width, gates = shapes["lstm forward wx"]
    return _inputs(name, channels, width * narrowing, gates // 4)


def _inputs(name: str, num_channels: int, hidden: int, lstm_hidden: int) -> dict[str, Any]:
    sizes = {"hidden": hidden, "lstm_hidden": lstm_hidden}
    return {"name": name, "num_channels": num_channels, **sizes}


def _without_effect(found: Found, ours: set[str]) -> None:
    """Sums two biases into one and drops dead weights where our network has left them out."""
    if _DEAD not in ours:
        found.pop(_DEAD, None)
    for direction in ("forward", "reverse"):
        second = f"lstm {direction} bias_h"
        if second in found and second not in ours and f"lstm {direction} bias" in found:
            name, value = found[f"lstm {direction} bias"]
            found[f"lstm {direction} bias"] = name, value + found.pop(second)[1]


def convert(name: str, tensor: np.ndarray) -> tuple[str, np.ndarray]:
    """(path of the leaf, words separated by spaces; its value in our layout)."""
    bare = torch_fill.bare(name)
    if match := _LSTM.fullmatch(bare):
        kind, reverse = match.groups()
        return f"lstm {'reverse' if reverse else 'forward'} {_KINDS[kind]}", tensor.T
    for pattern, path in _PATTERNS:
        if match := pattern.fullmatch(bare):
            fields = match.groupdict()
            number = int(fields.get("n") or 1) - 1
            return _leaf(path.format(n=number), fields["leaf"], tensor)
    known = "a forecast model known here (ConvLSTM, 3dcnn_lstm, its lite and micro forms)"
    raise torch_fill.unknown(name, tensor, known)


def _leaf(path: str, leaf: str, tensor: np.ndarray) -> tuple[str, np.ndarray]:
    if path == "cell" and len(tensor) % 4 == 0:  # gates: i f o g -> i f g o
        i, f, o, g = np.split(tensor, 4)
        tensor = np.concatenate([i, f, g, o])
    if path == "out linear" and tensor.ndim == 4:  # a convolution of 1 x 1
        tensor = tensor[:, :, 0, 0]
    return torch_fill.place(path, leaf, tensor)
