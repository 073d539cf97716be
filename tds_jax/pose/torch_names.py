"""Parameter names and layouts of the PyTorch originals -> those of `pose.models.PoseModel`."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from tds_jax.errors import UserError

# A TDS pair is numbered twice by the originals: 2n is the convolution of block n, 2n + 1 its
# linear half. Named groups: s stage, b that number, l layer; `{...}` in a path refers to them.
_STAGE = r"encoder\.stages\.(?P<s>\d+)\."
_BLOCK = _STAGE + r"tds_encoder\.tds_blocks\.(?P<b>\d+)\."
_LAYER = r"network\.layers\.(?P<s>\d+)\.(?:layers\.conv1dblock\.)?"
_PAIR = r"network\.layers\.(?P<s>\d+)\.layers\.tds_block\.tds_conv_blocks\.(?P<b>\d+)\."
_RULES = (
    (_STAGE + r"conv1d_block\.conv", "encoder stage_{s} conv"),
    (_STAGE + r"conv1d_block\.layer_norm", "encoder stage_{s} norm"),
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
    (r"network\.layers\.\d+\.linear_layer", "encoder out"),
    (r"decoder\.(?:output_layer|mlp_out)\.1", "decoder core head"),
)
_MLP = re.compile(r"decoder\.mlp\.(\d+)\.(weight|bias)")
_LSTM = re.compile(r"decoder\.lstm\.(weight|bias)_(ih|hh)_l(\d+)")


def import_params(params: Any, tensors: Mapping[str, np.ndarray]) -> Any:
    """The pure dict `params` with every leaf replaced by its counterpart in `tensors`.

    tensors: name -> array in PyTorch's layout, with or without the prefix 'model.'. LSTM biases
    come in pairs and are summed. dtypes are those of `tensors`. A name without a counterpart, a
    parameter that no name fills, or a shape that does not fit raises UserError.
    """
    found: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        path, value = convert(name.removeprefix("model."), np.asarray(tensor))
        found[path] = found[path] + value if path in found else value

    def take(path: tuple[Any, ...], leaf: Any) -> np.ndarray:
        key = " ".join(str(part.key) for part in path)
        if key not in found:
            raise UserError(f"checkpoint has nothing for parameter {key!r}; check the model config")
        value = found.pop(key)
        if value.shape != leaf.shape:
            raise UserError(
                f"checkpoint gives {key!r} the shape {value.shape} but the model has {leaf.shape}; "
                "check the model config (kernels, widths, reference_rate)"
            )
        return value

    filled = jax.tree_util.tree_map_with_path(take, params)
    if found:
        raise UserError(f"checkpoint has {sorted(found)[0]!r} but the model has not; check config")
    return filled


def convert(name: str, tensor: np.ndarray) -> tuple[str, np.ndarray]:
    """(path of the parameter, words separated by spaces; its value in our layout)."""
    if match := _LSTM.fullmatch(name):
        kind, source, layer = match.groups()
        leaf = "bias" if kind == "bias" else {"ih": "wx", "hh": "wh"}[source]
        return f"decoder core lstm layer_{layer} {leaf}", tensor.T
    if match := _MLP.fullmatch(name):
        # linear, norm, activation per hidden layer: 0 1 _ 3 4 _ 6
        number, kind = int(match[1]), "norm" if int(match[1]) % 3 == 1 else "linear"
        return _leaf(f"decoder core {kind}_{number // 3}", match[2], tensor)
    for pattern, path in _RULES:
        if match := re.fullmatch(pattern + r"\.(?P<leaf>weight|bias)", name):
            fields = match.groupdict()
            leaf, number = fields.pop("leaf"), int(fields.pop("b", 0))
            half = "fc" if number % 2 else "conv"
            return _leaf(path.format(**fields, b=number // 2, half=half), leaf, tensor)
    raise UserError(f"checkpoint tensor {name!r} is not one of a TDS pose model; check its origin")


def _leaf(path: str, leaf: str, tensor: np.ndarray) -> tuple[str, np.ndarray]:
    if leaf == "bias":
        return f"{path} bias", tensor
    if tensor.ndim == 1:
        return f"{path} scale", tensor
    # (out, in, 1, k) of a TDS convolution and (out, in, k) -> (k, in, out); (out, in) -> (in, out)
    return f"{path} kernel", (tensor[:, :, 0] if tensor.ndim == 4 else tensor).T
