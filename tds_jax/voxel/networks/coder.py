"""Encoders and decoders of volumes (B, D, H, W, C), and how their chains of blocks are run."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any, TypedDict, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax.errors import UserError
from tds_jax.fields import require, require_at_least, require_between
from tds_jax.nn.module import Module
from tds_jax.nn.precision import at_least_f32
from tds_jax.voxel.networks import tiling
from tds_jax.voxel.networks.blocks import ONE, RESAMPLING, Attention, Block, Conv, Out, Res, Up


@dataclasses.dataclass(frozen=True)
class Execution:
    """How a coder's chain of blocks is run; all ways give the same values and gradients.

    span: what is run and redone as one, "block", "stage" (blocks of one resolution) or "coder".
    remat: what a span keeps for its backward pass, see `nn.remat`. tile: most voxels a span
    holds at once, 0 for all, see `tiling.run`.
    """

    span: str
    remat: str
    tile: int


class Sizes(TypedDict):
    """What a coder is made of, see `vae.VAE3D`."""

    base: int
    multipliers: Sequence[int]
    blocks: int
    attention: bool


class Coding(Sizes):
    """What an autoencoder is made of, and how it is run, see `Execution`."""

    span: str
    remat: str
    tile: int


class Coder(Module):
    """A chain of blocks; `blocks` gives it in order."""

    execution: Execution
    mid_1: Attention

    def blocks(self) -> list[Block]:
        """Encoder and decoder say what they are made of."""
        raise NotImplementedError

    def __call__(self, x: jax.Array) -> jax.Array:
        execution = self.execution
        for span in tiling.spans(self.blocks(), execution.span):
            x = tiling.run(span, x, remat=execution.remat, tile=execution.tile)
        return x

    def _named(self, *names: str) -> list[Block]:
        return [getattr(self, name) for name in names if hasattr(self, name)]


class Encoder(Coder):
    """(B, D, H, W, in) -> (B, D / 2, H / 4, W / 4, out) with three multipliers."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        execution: Execution,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
        **sizes: Unpack[Sizes],
    ) -> None:
        given: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        multipliers, blocks, attention = sizes["multipliers"], sizes["blocks"], sizes["attention"]
        self.execution = execution
        self.levels, self.items = len(multipliers), blocks + 2
        width = base = sizes["base"]
        self.conv_in = Conv(in_channels, base, **given)
        for i, multiplier in enumerate(multipliers):
            for j in range(blocks):
                setattr(self, f"down_{i}_{j}", Res(width, base * multiplier, **given))
                width = base * multiplier
            if i < self.levels - 1:
                down = Conv(width, width, down=RESAMPLING[i], **given)
                setattr(self, f"down_{i}_{blocks}", down)
            elif attention:
                setattr(self, f"down_{i}_{blocks}", Attention(width, **given))
        _add_middle(self, width, attention, given)
        self.out = Out(width, out_channels, **given)

    def blocks(self) -> list[Block]:
        pairs = itertools.product(range(self.levels), range(self.items))
        down = [f"down_{i}_{j}" for i, j in pairs]
        return self._named("conv_in", *down, "mid_0", "mid_1", "mid_2", "out")


class Decoder(Coder):
    """(B, d, h, w, in) -> (B, 2d, 4h, 4w, out) with three multipliers, given from the inside out.

    The first enlargement is (1, 2, 2), the second (2, 2, 2): not the encoder's order reversed.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        execution: Execution,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
        **sizes: Unpack[Sizes],
    ) -> None:
        given: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        multipliers, blocks, attention = sizes["multipliers"], sizes["blocks"], sizes["attention"]
        self.execution = execution
        self.levels, self.items = len(multipliers), blocks + 3
        base = sizes["base"]
        width = base * multipliers[0]
        self.conv_in = Conv(in_channels, width, **given)
        _add_middle(self, width, attention, given)
        for i, multiplier in enumerate(multipliers):
            item = itertools.count()
            for _ in range(blocks + 1):
                setattr(self, f"up_{i}_{next(item)}", Res(width, base * multiplier, **given))
                width = base * multiplier
            if attention and i == 0:
                setattr(self, f"up_{i}_{next(item)}", Attention(width, **given))
            if i < self.levels - 1:
                setattr(self, f"up_{i}_{next(item)}", Up(width, RESAMPLING[i], **given))
        self.out = Out(width, out_channels, **given)

    def blocks(self) -> list[Block]:
        pairs = itertools.product(range(self.levels), range(self.items))
        up = [f"up_{i}_{j}" for i, j in pairs]
        return self._named("conv_in", "mid_0", "mid_1", "mid_2", *up, "out")


def _add_middle(coder: Coder, width: int, attention: bool, given: dict[str, Any]) -> None:
    for n in (0, 2):
        setattr(coder, f"mid_{n}", Res(width, width, **given))
    if attention:
        coder.mid_1 = Attention(width, **given)


class Autoencoder(Module):
    """Encoder and decoder of volumes; what `VAE3D` and `VQVAE3D` share."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        latent_channels: int,
        code_channels: int,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
        **coder: Unpack[Coding],
    ) -> None:
        multipliers, most = coder["multipliers"], len(RESAMPLING) + 1
        levels = f"model.multipliers={tuple(multipliers)} has {len(multipliers)} levels"
        require(1 <= len(multipliers) <= most, f"{levels}; use 1 to {most}")
        require_between("model.blocks", coder["blocks"], 0, 2)
        require_at_least("model.tile", coder["tile"], 0)
        given: dict[str, Any] = {name: coder[name] for name in ("base", "blocks", "attention")}
        execution = Execution(coder["span"], coder["remat"], coder["tile"])
        given |= {"execution": execution, "dtype": dtype, "rngs": rngs}
        self.in_channels = in_channels
        self.latent_channels = latent_channels
        used = (ONE, *RESAMPLING[: len(multipliers) - 1])
        self.factors = tuple(math.prod(axis) for axis in zip(*used, strict=True))
        outwards = tuple(reversed(multipliers))
        self.encoder = Encoder(in_channels, code_channels, multipliers=multipliers, **given)
        self.decoder = Decoder(latent_channels, out_channels, multipliers=outwards, **given)

    def learned(self, z: jax.Array) -> jax.Array:
        """(B, d, h, w, latent) -> the latents nearest to it that the decoder was trained on."""
        return z

    def latent_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """(B, D, H, W, C) of a volume -> (B, d, h, w, latent).

        Raises UserError where the sizes or channels do not fit the model.
        """
        return shape_of_latents(shape, self.factors, self.in_channels, self.latent_channels)


def shape_of_latents(
    shape: Sequence[int], factors: Sequence[int], in_channels: int, latent_channels: int
) -> tuple[int, ...]:
    """See `Autoencoder.latent_shape`; factors: cells of a volume / cells of its latent."""
    batch, *space, channels = shape
    bad = [n for n, f in zip(space, factors, strict=True) if n % f]
    if bad or channels != in_channels:
        raise UserError(
            f"volume (D, H, W, C) = {(*space, channels)} does not fit the model; sizes must be "
            f"multiples of {factors} and channels {in_channels}, pad or resize it"
        )
    small = (n // f for n, f in zip(space, factors, strict=True))
    return (batch, *small, latent_channels)


def wide(x: jax.Array) -> jax.Array:
    """x in f32 (f64 stays): what leaves a model."""
    return x.astype(at_least_f32(x.dtype))
