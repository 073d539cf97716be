"""Parameter names and layouts of the PyTorch originals -> those of our pose models."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tds_jax.errors import UserError
from tds_jax.interchange import torch_fill
from tds_jax.interchange.torch_fill import Found, Remedies

SAMPLE_RATE = 2000.0  # Hz, of every published checkpoint; the files do not say

# The part of a name that tells what a tensor is, whatever stands before it. A TDS pair is numbered
# twice by the originals: 2n is the convolution of block n, 2n + 1 its linear half. Named groups:
# s stage, b that number, n and m places in a Sequential; `{...}` in a path refers to them.
_BLOCK = r"stages\.(?P<s>\d+)\.tds_encoder\.tds_blocks\.(?P<b>\d+)\."
_LAYER = r"layers\.(?P<s>\d+)\.(?:layers\.conv1dblock\.)?"
_PAIR = r"layers\.(?P<s>\d+)\.layers\.tds_block\.tds_conv_blocks\.(?P<b>\d+)\."
_RULES = (
    (r"stages\.(?P<s>\d+)\.conv1d_block\.conv", "encoder stage_{s} conv"),
    (r"stages\.(?P<s>\d+)\.conv1d_block\.layer_norm", "encoder stage_{s} norm"),
    (_BLOCK + r"conv2d", "encoder stage_{s} block_{b}"),
    (_BLOCK + r"fc1", "encoder stage_{s} block_{b} fc_1"),
    (_BLOCK + r"fc2", "encoder stage_{s} block_{b} fc_2"),
    (_BLOCK + r"layer_norm", "encoder stage_{s} block_{b} {half}_norm"),
    (_LAYER + r"conv\.0", "encoder stage_{s} conv"),
    (_LAYER + r"norm", "encoder stage_{s} norm"),
    (_PAIR + r"conv2d", "encoder stage_{s} block_{b}"),
    (_PAIR + r"fc_block\.0", "encoder stage_{s} block_{b} fc_1"),
    (_PAIR + r"fc_block\.2", "encoder stage_{s} block_{b} fc_2"),
    (_PAIR + r"layer_norm", "encoder stage_{s} block_{b} {half}_norm"),
    (r"layers\.\d+\.linear_layer", "encoder out"),
    (r"(?:output_layer|mlp_out)\.1", "decoder core head"),
    # linear, norm, activation per hidden layer: 0 1 _ 3 4 _ 6
    (r"mlp\.(?P<m>\d+)", "decoder core {mlp}"),
    # NeuroPose. convolution, norm, activation, dropout per layer of a block: 0 1 _ _ 4 5 _ _ 8 9
    (r"network\.(?P<n>\d+)\.network\.(?P<m>\d+)", "block_{n} conv_{conv}{norm}"),
    (r"linear", "out"),
)
_LEAVES = r"\.(?P<leaf>weight|bias|running_mean|running_var)"
_PATTERNS = tuple((re.compile(rf"(?:.*\.)?{core}{_LEAVES}"), path) for core, path in _RULES)
_LSTM = re.compile(r"(?:.*\.)?lstm\.((?:weight|bias)_[ih]h)_l(\d+)")
_KINDS = {"weight_ih": "wx", "weight_hh": "wh", "bias_ih": "bias ih", "bias_hh": "bias hh"}
_COUNTER = "num_batches_tracked"  # of BatchNorm; nothing depends on it with a fixed momentum
# Leaves that no original has: they keep their neutral start (no normalisation, the zero pose).
_OURS = ("normalizer mean", "normalizer scale", "start")
_CHOOSE = "choose the config of its model"
_REMEDIES = Remedies(_CHOOSE, f"{_CHOOSE} (sizes, kernels, output)", _CHOOSE)


def import_params(
    params: dict[str, Any], rest: dict[str, Any], tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(params, rest) with every leaf replaced by its counterpart in `tensors`, f64 kept as it is.

    tensors: name -> array in PyTorch's layout; what stands before the part of a name that matters
    ('model.', 'module.network.' …) is free. LSTM biases come in pairs and are summed. The
    normaliser and a learned initial pose, which no original has, stay as they are.
    Raises UserError for a name without a counterpart, a leaf that nothing or more than one tensor
    fills, and shapes that do not fit, naming the tensor and both shapes.
    """
    return torch_fill.fill(params, rest, _converted(tensors), _REMEDIES, _OURS)


def inputs_of(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Channels, joints and rate of the recordings a checkpoint was made for, from its shapes.

    NeuroPose's shapes do not tell its channels: 16, as published.
    """
    found = _converted(tensors)
    shapes = {key: value.shape for key, (_, value) in found.items()}
    channels = shapes.get("encoder stage_0 conv kernel", (0, 16))[1]
    if "out bias" in shapes:
        return _inputs(channels, shapes["out bias"][0])
    features = shapes.get("encoder out kernel") or shapes.get(_last_stage(shapes), (0,))
    for first in ("decoder core lstm layer_0 wx", "decoder core linear_0 kernel"):
        if first in shapes:  # reads [features, pose]
            return _inputs(channels, shapes[first][0] - features[-1])
    raise UserError("checkpoint has neither an LSTM nor an MLP decoder; give --config.data.path")


def _inputs(channels: int, joints: int) -> dict[str, Any]:
    return {"num_channels": channels, "num_joints": joints, "sample_rate": SAMPLE_RATE}


def _last_stage(shapes: Mapping[str, Any]) -> str:
    stages = [int(m[1]) for m in map(re.compile(r"encoder stage_(\d+) ").match, shapes) if m]
    return f"encoder stage_{max(stages, default=0)} conv kernel"


def _converted(tensors: Mapping[str, np.ndarray]) -> Found:
    """path -> (name, value in our layout), the two biases of an LSTM layer summed."""
    found = torch_fill.converted(tensors, convert, _COUNTER)
    for path in [path for path in found if path.endswith(" bias ih")]:
        name, value = found.pop(path)
        _, other = found.pop(path[:-2] + "hh", ("", np.zeros_like(value)))
        found[path[:-3]] = name, value + other
    return found


def convert(name: str, tensor: np.ndarray) -> tuple[str, np.ndarray]:
    """(path of the leaf, words separated by spaces; its value in our layout)."""
    bare = torch_fill.bare(name)
    if match := _LSTM.fullmatch(bare):
        kind, layer = match.groups()
        return f"decoder core lstm layer_{layer} {_KINDS[kind]}", tensor.T
    for pattern, path in _PATTERNS:
        if match := pattern.fullmatch(bare):
            fields = match.groupdict()
            b, m = int(fields.get("b") or 0), int(fields.get("m") or 0)
            words = {
                "b": b // 2,
                "half": "fc" if b % 2 else "conv",
                "mlp": f"{'norm' if m % 3 == 1 else 'linear'}_{m // 3}",
                "conv": m // 4,
                "norm": " norm" if m % 4 == 1 else "",
            }
            return _leaf(path.format(**fields | words), fields["leaf"], tensor)
    known = "a pose model known here (emg2pose, NeuroPose, tds_lstm)"
    raise torch_fill.unknown(name, tensor, known)


def _leaf(path: str, leaf: str, tensor: np.ndarray) -> tuple[str, np.ndarray]:
    if leaf == "weight" and tensor.ndim == 4 and tensor.shape[2] == 1:
        tensor = tensor[:, :, 0]  # (out, in, 1, k) of a TDS convolution; NeuroPose's has (t, e)
    return torch_fill.place(path, leaf, tensor)
