"""Parameter names and layouts of the PyTorch originals -> those of our volume networks."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tds_jax.interchange import torch_fill
from tds_jax.interchange.torch_fill import Remedies

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
_CHOOSE = "choose the config of its model"
_REMEDIES = Remedies(_CHOOSE, f"{_CHOOSE} (channels, levels, blocks)", _CHOOSE)


def import_params(
    params: dict[str, Any], rest: dict[str, Any], tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(params, rest) with every leaf replaced by its counterpart in `tensors`, f64 kept as it is.

    tensors: name -> array in PyTorch's layout; words of wrappers in it ('module', 'model' …) do not
    count. A codebook's running statistics, which no original has, stay as they are.
    Raises UserError for a name without a counterpart, a leaf that nothing or more than one tensor
    fills, and shapes that do not fit, naming the tensor and both shapes.
    """
    found = torch_fill.converted(tensors, convert, _UNUSED)
    return torch_fill.fill(params, rest, found, _REMEDIES, _OURS)


def convert(name: str, tensor: np.ndarray) -> tuple[str, np.ndarray]:
    """(path of the leaf, words separated by spaces; its value in our layout)."""
    bare = torch_fill.bare(name)
    if _CODES.fullmatch(bare):
        return "codebook codes", tensor
    for pattern, path in _PATTERNS:
        if match := pattern.fullmatch(bare):
            return torch_fill.place(path.format(**match.groupdict()), match["leaf"], tensor)
    raise torch_fill.unknown(name, tensor, "a volume model known here (VAE, VQ-VAE)")
