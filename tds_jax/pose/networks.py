"""The network a config names, with its memory settings."""

import dataclasses

from flax import nnx

from tds_jax.nn.precision import compute_dtype
from tds_jax.own import is_own, made
from tds_jax.pose import filters
from tds_jax.pose.config import PoseInputs, PoseMemoryConfig, PoseModelConfig
from tds_jax.pose.front import make_front
from tds_jax.pose.models import PoseModel
from tds_jax.pose.neuropose import NeuroPose
from tds_jax.pose.own import SETTING, OwnModel

AnyModel = PoseModel | NeuroPose | OwnModel


def make_network(
    model: PoseModelConfig, memory: PoseMemoryConfig, recorded: PoseInputs, rngs: nnx.Rngs
) -> AnyModel:
    """A fresh model for recordings of some channels, joints and rate."""
    if is_own(model.name):
        return _own(model, memory, recorded, rngs)
    dtype = compute_dtype(memory.dtype)
    if model.name == "neuropose":
        return NeuroPose(
            num_channels=recorded.num_channels,
            num_joints=recorded.num_joints,
            channels=model.widths,
            pools=model.conv_strides,
            electrode_pools=model.groups,
            residual_blocks=model.layers,
            dropout=model.dropout,
            remat=memory.remat,
            dtype=dtype,
            rngs=rngs,
        )
    settings = dataclasses.asdict(model) | {"out_features": model.out_features or None}
    settings["output_filter"] = filters.make_filter(
        settings["output_filter"],
        cutoff=settings.pop("filter_cutoff"),
        gain=settings.pop("filter_gain"),
        speed_cutoff=settings.pop("filter_speed_cutoff"),
        rate=model.rollout_freq,
    )
    band = settings.pop("highpass_hz"), settings.pop("lowpass_hz")
    heard = settings.pop("notch_hz"), settings.pop("filter_seconds")
    named = ("powers", "power_samples", "power_stride", "correlation_samples")
    powers = tuple(settings.pop(name) for name in named)
    normalize = settings.pop("power_normalize")
    settings["front"] = make_front(recorded.sample_rate, band, *heard, powers, normalize)
    del settings["name"], settings["start_at_mean"]
    return PoseModel(
        **dataclasses.asdict(recorded),
        **settings,
        decoder_chunk=memory.decoder_chunk,
        remat=memory.remat,
        dtype=dtype,
        rngs=rngs,
    )


def _own(
    model: PoseModelConfig, memory: PoseMemoryConfig, recorded: PoseInputs, rngs: nnx.Rngs
) -> OwnModel:
    """Around the network that model.name names, which gets what it asks for."""
    settings = dataclasses.asdict(memory) | dataclasses.asdict(model)
    beside = {"dtype": compute_dtype(memory.dtype), "rngs": rngs}
    network = made(SETTING, model.name, settings | dataclasses.asdict(recorded) | beside)
    channels, joints = recorded.num_channels, recorded.num_joints
    return OwnModel(model.name, network, num_channels=channels, num_joints=joints)
