"""Parameter names and layouts of the PyTorch originals -> those of our volume networks."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from tds_jax.errors import UserError

# Names of modules: the original's -> ours, words of a path separated by spaces. Named groups of a
# pattern fill the `{...}` of its path.
_CODER = r"(?P<coder>encoder|decoder)\."
_ITEM = _CODER + r"(?P<way>down|up)_blocks\.(?P<i>\d+)\.(?P<j>\d+)\."
_MIDDLE = _CODER + r"mid_block\.(?P<j>\d+)\."
_RULES = (
    (_CODER + r"conv_in", "{coder} conv_in conv"),
    (_CODER + r"norm_out", "{coder} out norm"),
    (_CODER + r"conv_out", "{coder} out conv"),
    (_ITEM + r"(?P<layer>conv|norm)(?P<n>[12])", "{coder} {way}_{i}_{j} {layer}_{n}"),
    (_ITEM + r"(?P<layer>conv|skip|norm|qkv|proj)", "{coder} {way}_{i}_{j} {layer}"),
    (_MIDDLE + r"(?P<layer>conv|norm)(?P<n>[12])", "{coder} mid_{j} {layer}_{n}"),
    (_MIDDLE + r"(?P<layer>skip|norm|qkv|proj)", "{coder} mid_{j} {layer}"),
    (r"(?P<layer>quant_conv|post_quant_conv)", "{layer}"),
)
_PATTERNS = tuple((re.compile(rf"{name}\.(?P<leaf>weight|bias)"), path) for name, path in _RULES)
_CODES = re.compile(r"(?:\w+\.)?embedding\.weight")
# Buffers of the original's codebook, which nothing ever writes to.
_UNUSED = ("cluster_size", "embed_avg")
# State of our codebook that no original has: it keeps its neutral start.
_OURS = tuple(
    f"codebook {name}" for name in ("sizes", "seen", "counts", "sums", "priority", "candidates")
)
_PREFIX = "module."  # put before every name by data-parallel training


def state_dict_of(content: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
    """The tensors of a checkpoint: its `model_state_dict` if it has one, else itself."""
    return content.get("model_state_dict", content)


def import_params(
    params: dict[str, Any], rest: dict[str, Any], tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(params, rest) with every leaf replaced by its counterpart in `tensors`, f64 kept as it is.

    tensors: name -> array in PyTorch's layout; a leading "module." is dropped. A codebook's
    running statistics, which no original has, stay as they are.
    Raises UserError for a name without a counterpart, a leaf that nothing or more than one tensor
    fills, and shapes that do not fit, naming the tensor and both shapes.
    """
    found = _converted(tensors)

    def take(path: tuple[Any, ...], leaf: Any) -> Any:
        key = " ".join(str(part.key) for part in path[1:])
        if key in _OURS:
            return leaf
        if key not in found:
            raise UserError(
                f"checkpoint has nothing for parameter {key!r} of shape {leaf.shape}; "
                "choose the config of its model"
            )
        name, value = found.pop(key)
        if value.shape != leaf.shape:
            raise UserError(
                f"checkpoint tensor {name!r} gives {key!r} the shape {value.shape} but the model "
                f"has {leaf.shape}; choose the config of its model (channels, levels, blocks)"
            )
        return value

    filled = jax.tree_util.tree_map_with_path(take, {"params": params, "rest": rest})
    for key, (name, value) in found.items():
        raise UserError(
            f"checkpoint tensor {name!r} is {key!r} of shape {value.shape}, which the model does "
            "not have; choose the config of its model"
        )
    return filled["params"], filled["rest"]


def _converted(tensors: Mapping[str, np.ndarray]) -> dict[str, tuple[str, np.ndarray]]:
    """path -> (name, value in our layout)."""
    found: dict[str, tuple[str, np.ndarray]] = {}
    for name, tensor in tensors.items():
        if name.endswith(_UNUSED):
            continue
        path, value = convert(name, np.asarray(tensor))
        if path in found:
            raise UserError(
                f"checkpoint tensors {found[path][0]!r} and {name!r} both give {path!r}; "
                "keep one of the models in the file"
            )
        found[path] = name, value
    return found


def convert(name: str, tensor: np.ndarray) -> tuple[str, np.ndarray]:
    """(path of the leaf, words separated by spaces; its value in our layout)."""
    bare = name.removeprefix(_PREFIX)
    if _CODES.fullmatch(bare):
        return "codebook codes", tensor
    for pattern, path in _PATTERNS:
        if match := pattern.fullmatch(bare):
            words = path.format(**match.groupdict())
            if match["leaf"] == "bias":
                return f"{words} bias", tensor
            if tensor.ndim == 1:
                return f"{words} scale", tensor
            return f"{words} kernel", np.moveaxis(tensor, (0, 1), (-1, -2))
    raise UserError(
        f"checkpoint tensor {name!r} of shape {tensor.shape} is not one of a volume model known "
        "here (VAE, VQ-VAE); check its origin"
    )
