"""Parameter names and layouts of the 4D-Radar project's latent U-Net -> those of `unet.UNet`."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from tds_jax.interchange import torch_fill
from tds_jax.interchange.torch_fill import Remedies

# Names of that project's residual block and attention, and ours.
_PARTS = {
    "in_layers.0": " norm_in",
    "in_layers.2": " conv_in",
    "emb_layers.1": " time",
    "out_layers.0": " norm_out",
    "out_layers.3": " conv_out",
    "skip_connection": " skip",
    "norm": " norm",
    "to_qkv": " qkv",
    "to_out.0": " out",
    "to_out.1": " norm_out",
    "op": "",
    "conv": "",
}
_FIXED = {
    "time_embed.0": "time_in",
    "time_embed.2": "time_out",
    "input_blocks.0.0": "conv_in",
    "out.0": "norm_out",
    "out.2": "conv_out",
}
_CHOOSE = "choose the config of its model"
_REMEDIES = Remedies(_CHOOSE, f"{_CHOOSE} (width, channels)", _CHOOSE)
STAYS_RANDOM = (
    "the encoder of the radar has other sizes than the autoencoder's, with which the original's "
    "U-Net was trained, and stays random: give model.condition_base, condition_blocks and "
    "condition_channels the values of base, blocks and latent_channels, or train on"
)
_MIDDLE = ("middle_0", "attention", "middle_1")
_BLOCK = re.compile(r"(input|middle|output)_blocks?\.(\d+)(?:\.([01]))?\.(\D.*)")


def import_params(params: dict[str, Any], tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The U-Net's params, every leaf replaced by its counterpart in `tensors`.

    Raises UserError as `torch_fill.converted` and `torch_fill.fill` do.
    """
    found = torch_fill.converted(tensors, convert)
    return torch_fill.fill(params, {}, found, _REMEDIES)[0]


def radar_encoder(params: dict[str, Any], autoencoder: dict[str, Any]) -> dict[str, Any] | None:
    """The radar's encoder of the original: its VAE's, mean alone, and the convolution behind it.

    params: of our encoder; autoencoder: the frozen one that the run has, as nested dicts. None
    where one has a shape that the other has not, or the autoencoder has a codebook or no network.
    """
    network = autoencoder.get("network", {})
    if "quant_conv" not in network or not _alike(params, network):
        return None
    found = dict(network["encoder"])
    out, point = found["out"], network["quant_conv"]
    kernel = np.asarray(point["kernel"], np.float64).reshape(point["kernel"].shape[-2:])
    means = len(kernel)  # the logs of variances come behind them
    last = {
        "kernel": np.asarray(out["conv"]["kernel"], np.float64)[..., :means] @ kernel,
        "bias": np.asarray(out["conv"]["bias"], np.float64)[:means] @ kernel + point["bias"],
    }
    return found | {"out": {"norm": out["norm"], "conv": last}}


def _alike(params: dict[str, Any], network: dict[str, Any]) -> bool:
    """Whether our encoder is a VAE's, but for the last convolution's half of variances."""
    ours, theirs = (
        jax.tree.map(lambda leaf: leaf.shape, tree) for tree in (params, network["encoder"])
    )
    wide = theirs["out"]["conv"]["kernel"]
    means = network["quant_conv"]["kernel"].shape[-1]
    theirs["out"]["conv"] = {"kernel": (*wide[:-1], means), "bias": (means,)}
    return bool(ours == theirs)


def convert(name: str, tensor: np.ndarray) -> tuple[str, np.ndarray]:
    """(path of the leaf, words separated by spaces; its value in our layout).

    name: words of wrappers ('module' …) in it do not count. Raises UserError for a name the U-Net
    does not have.
    """
    core, _, leaf = torch_fill.bare(name).rpartition(".")
    path = _FIXED.get(core) or _block(core)
    if path is None or leaf not in ("weight", "bias"):
        raise torch_fill.unknown(name, tensor, "the latent U-Net")
    return torch_fill.place(path, leaf, tensor)


def _block(core: str) -> str | None:
    match = _BLOCK.fullmatch(core)
    if not match or match[4] not in _PARTS:
        return None
    kind, n, part = match[1], int(match[2]), _PARTS[match[4]]
    if kind == "middle":
        return _MIDDLE[n] + part
    if kind == "output":
        return f"{'grow' if match[3] == '1' else 'up'}_{n}{part}"
    # conv, then down_0 shrink_0 down_1 shrink_1 …
    return f"{'down' if n % 2 else 'shrink'}_{(n - 1) // 2}{part}"
