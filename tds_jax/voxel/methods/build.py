"""Settings -> models."""

import dataclasses
import math
from typing import Any

from flax import nnx

from tds_jax import own
from tds_jax.config import Config
from tds_jax.nn.precision import compute_dtype
from tds_jax.own import is_own
from tds_jax.voxel.config import DIRECT, GENERATORS, VoxelModelConfig
from tds_jax.voxel.data.resize import Shape
from tds_jax.voxel.data.volumes import CHANNELS
from tds_jax.voxel.methods.diffusion import Levels
from tds_jax.voxel.methods.model import (
    SETTING,
    Answer,
    Distilled,
    FoldedCells,
    LatentDenoiser,
    ScaledAutoencoder,
)
from tds_jax.voxel.networks.blocks import ONE, RESAMPLING
from tds_jax.voxel.networks.coder import Encoder, Execution
from tds_jax.voxel.networks.direct import Direct
from tds_jax.voxel.networks.perceptual import FeatureNet
from tds_jax.voxel.networks.unet import UNet
from tds_jax.voxel.networks.vae import VAE3D
from tds_jax.voxel.networks.vqvae import VQVAE3D


def cells_per_latent(model: VoxelModelConfig) -> Shape:
    """Cells of a volume / cells of its latent, along D, H and W."""
    if model.fold and model.name in GENERATORS:
        d, h, w = model.fold
        return d, h, w
    used = (ONE, *RESAMPLING[: len(model.multipliers) - 1])
    d, h, w = (math.prod(axis) for axis in zip(*used, strict=True))
    return d, h, w


def latent_channels(model: VoxelModelConfig) -> int:
    """Numbers of a cell of a latent."""
    return CHANNELS * math.prod(model.fold) if model.fold else model.latent_channels


def divisor(model: VoxelModelConfig) -> Shape:
    """By what D, H and W must be divisible, down to the deepest level of a U-Net, if there is one;
    of a network of one's own nothing is known."""
    if is_own(model.name):
        return ONE
    cells = ONE if model.name == DIRECT else cells_per_latent(model)
    deep = 2 ** (len(model.unet_multipliers) - 1) if model.name in GENERATORS else 1
    direct = model.name == DIRECT or (model.name in GENERATORS and model.direct)
    below = 2 ** (len(model.direct_multipliers) - 1) if direct else 1
    d, h, w = (math.lcm(deep * n, below) for n in cells)
    return d, h, w


def autoencoder(config: Config, rngs: nnx.Rngs) -> ScaledAutoencoder:
    """The network of a config between raw volumes."""
    model, loss = config.model, config.loss
    logits = loss.reconstruction == "occupancy"
    dtype = compute_dtype(config.memory.dtype)
    given: dict[str, Any] = {
        "base": model.base,
        "multipliers": model.multipliers,
        "blocks": model.blocks,
        "attention": model.attention,
        "span": model.span,
        "remat": config.memory.remat,
        "tile": model.tile,
        "dtype": dtype,
        "rngs": rngs,
    }
    sizes = CHANNELS, CHANNELS, model.latent_channels
    if model.codes:
        network: VAE3D | VQVAE3D = VQVAE3D(
            *sizes,
            codes=model.codes,
            decay=model.codebook_decay,
            window=config.optim.batch_size,
            restart_below=model.restart_below,
            commitment=loss.commitment_weight,
            **given,
        )
    else:
        network = VAE3D(*sizes, **given)
    features = perceptual_net(config, dtype, rngs)
    return ScaledAutoencoder(network, logits=logits, perceptual=features)


def answer(config: Config, rngs: nnx.Rngs) -> Answer:
    """The network of a config from radar to target, between raw volumes.

    One of one's own gets those settings that it asks for.
    """
    make = _own if is_own(config.model.name) else _direct
    logits = config.loss.reconstruction == "occupancy"
    features = perceptual_net(config, compute_dtype(config.memory.dtype), rngs)
    around = ScaledAutoencoder(make(config, rngs), logits=logits, perceptual=features)
    return Answer(config.model.name, around)


def _own(config: Config, rngs: nnx.Rngs) -> Any:
    dtype = compute_dtype(config.memory.dtype)
    offered = dataclasses.asdict(config.memory) | dataclasses.asdict(config.model)
    offered |= {"num_channels": CHANNELS, "dtype": dtype, "rngs": rngs}
    return own.made(SETTING, config.model.name, offered)


def _direct(config: Config, rngs: nnx.Rngs) -> Direct:
    model = config.model
    return Direct(
        CHANNELS,
        width=model.direct_width,
        multipliers=model.direct_multipliers,
        heads=model.unet_heads,
        remat=config.memory.remat,
        dtype=compute_dtype(config.memory.dtype),
        rngs=rngs,
    )


def perceptual_net(config: Config, dtype: Any, rngs: nnx.Rngs) -> FeatureNet | None:
    """What loss.reconstruction 'composite' needs beside a network; None without it."""
    composite = config.loss.reconstruction == "composite" and config.model.name not in GENERATORS
    return FeatureNet(CHANNELS, dtype=dtype, rngs=rngs) if composite else None


def denoiser(config: Config, rngs: nnx.Rngs) -> LatentDenoiser:
    """The U-Net of a config, its radar encoder, and the autoencoder whose latents it denoises."""
    model, remat = config.model, config.memory.remat
    dtype = compute_dtype(config.memory.dtype)
    fold = cells_per_latent(model) if model.fold else ONE
    channels = latent_channels(model)
    encoder = Encoder(
        (2 if model.direct else 1) * CHANNELS * math.prod(fold),
        model.condition_channels,
        base=model.condition_base,
        multipliers=(1,) if model.fold else model.multipliers,
        blocks=model.condition_blocks,
        attention=False,
        execution=Execution(model.span, remat, model.tile),
        dtype=dtype,
        rngs=rngs,
    )
    unet = UNet(
        channels + model.condition_channels,
        channels,
        width=model.width,
        multipliers=model.unet_multipliers,
        heads=model.unet_heads,
        remat=remat,
        dtype=dtype,
        rngs=rngs,
    )
    return LatentDenoiser(
        FoldedCells(fold) if model.fold else autoencoder(config, rngs),
        encoder,
        unet,
        answer(config, rngs) if model.direct else None,
        data=model.sigma_data,
        guidance=model.guidance,
        anchored=model.anchored,
        fold=fold,
    )


def distilled(config: Config, rngs: nnx.Rngs) -> Distilled:
    """A teacher of the config's sizes and a student that begins as it."""
    return Distilled(denoiser(config, rngs))


def levels(model: VoxelModelConfig) -> Levels:
    """The noise levels of a config."""
    return Levels(
        data=model.sigma_data,
        lowest=model.sigma_min,
        highest=model.sigma_max,
        rho=model.rho,
        mean=model.sigma_mean,
        spread=model.sigma_spread,
    )
