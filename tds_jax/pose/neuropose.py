"""NeuroPose: a convolutional encoder and decoder over time x electrodes, without any state.

Liu et al. 2021, in the size of the emg2pose benchmark (6,354,903 parameters at 16 electrodes).
"""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax.errors import UserError
from tds_jax.nn.batch_norm import BatchNorm
from tds_jax.nn.conv_nd import conv_nd
from tds_jax.nn.dropout import dropout
from tds_jax.nn.linear import Linear, add_bias, uniform
from tds_jax.nn.module import Module
from tds_jax.nn.moments import Moments
from tds_jax.nn.normalizer import Normalizer
from tds_jax.nn.precision import at_least_f32
from tds_jax.nn.remat import checkpoint, keep
from tds_jax.nn.resample import interpolate

KERNEL = (3, 2)  # samples, electrodes
WIDENING = (4, 4, 2)  # electrodes made of one by each decoder block
CONVS = 3  # per residual block


class Conv(Module):
    """(B, T, E, I) -> (B, T, E, O): convolution, BatchNorm, ReLU, dropout.

    Zeros are added so that the size stays: a sample on both sides, an electrode on the right.
    """

    def __init__(
        self, inputs: int, outputs: int, rate: float, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        fan = inputs * KERNEL[0] * KERNEL[1]
        self.rate = rate
        self.dtype = dtype
        self.kernel = nnx.Param(uniform(rngs, (*KERNEL, inputs, outputs), fan))
        self.bias = nnx.Param(uniform(rngs, (outputs,), fan))
        self.norm = BatchNorm(outputs)

    def __call__(
        self, x: jax.Array, keys: jax.Array | None, layer: int
    ) -> tuple[jax.Array, Moments]:
        kernel = self.kernel[...].astype(self.dtype)
        y = conv_nd(x.astype(self.dtype), kernel, 1, ((1, 1), (0, 1)))
        y = add_bias(y, self.bias[...])
        y, moments = self.norm(y, train=keys is not None)
        y = dropout(jax.nn.relu(y).astype(self.dtype), self.rate, keys, layer)
        return y, moments


class Block(Module):
    """A chain of `Conv`s; residual ones add their input."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        convs: int,
        rate: float,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        self.convs = convs
        for n in range(convs):
            conv = Conv(outputs if n else inputs, outputs, rate, dtype=dtype, rngs=rngs)
            setattr(self, f"conv_{n}", conv)

    def __call__(
        self, x: jax.Array, keys: jax.Array | None, layer: int
    ) -> tuple[jax.Array, list[Moments]]:
        y, found = x, []
        for n in range(self.convs):
            y, moments = getattr(self, f"conv_{n}")(y, keys, layer + n)
            found.append(moments)
        return keep(y if self.convs == 1 else x + y), found

    def update(self, moments: list[Moments]) -> None:
        """Moves the running statistics of every `Conv`."""
        for n, one in enumerate(moments):
            getattr(self, f"conv_{n}").norm.update(one)


class NeuroPose(Module):
    """emg (B, T, C) -> poses (B, T, J) in radians, f32: one pose for every sample of the window.

    channels, pools, electrode_pools: three entries, one per encoder block: what it makes and by how
    much it then shrinks time and electrodes (max pooling, remainders dropped). residual_blocks:
    of CONVS convolutions each, at the lowest rate. The decoder goes back the same way by repeating
    values; its output, shorter than the window by the dropped remainders, is stretched to T. So a
    pose depends on the whole neighbourhood, later samples included: there is no left context, no
    initial pose and no streaming. dropout follows every convolution.

    keys (B, 2) uint32 mean training: noise, statistics of the batch, and running statistics that
    move. None: running statistics. remat: see `nn.remat`; dtype: of convolutions and products.
    """

    left_context = 0
    step = 1
    delay = 0
    initial_pose = "zeros"
    windowed = True

    def __init__(
        self,
        *,
        num_channels: int,
        num_joints: int,
        channels: Sequence[int],
        pools: Sequence[int],
        electrode_pools: Sequence[int],
        residual_blocks: int,
        dropout: float,
        remat: str,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        self.pools, self.electrode_pools = tuple(pools), tuple(electrode_pools)
        self.residual_blocks = residual_blocks
        self.remat = remat
        width = _narrowed(num_channels, self.electrode_pools) * math.prod(WIDENING)
        self.normalizer = Normalizer(num_channels)
        down = [1, *channels]
        up = [*reversed(channels), 1]
        ends = [(a, b, 1) for a, b in itertools.pairwise(down)]
        ends += [(down[-1], down[-1], CONVS)] * residual_blocks
        ends += [(a, b, 1) for a, b in itertools.pairwise(up)]
        for n, (a, b, convs) in enumerate(ends):
            block = Block(a, b, convs, dropout, dtype=dtype, rngs=rngs)
            setattr(self, f"block_{n}", block)
        self.out = Linear(width, num_joints, dtype=dtype, rngs=rngs)

    @property
    def receptive_field(self) -> int:
        """The least number of samples that gives poses."""
        return math.prod(self.pools)

    def num_steps(self, length: int) -> int:
        """Poses returned for a window of `length` samples; 0 when it is too short."""
        return length if length >= self.receptive_field else 0

    def __call__(
        self, emg: jax.Array, initial_pose: jax.Array | None = None, keys: jax.Array | None = None
    ) -> jax.Array:
        """Poses of emg (B, T, C); initial_pose must be None, it is there for the task's sake."""
        if initial_pose is not None:
            raise ValueError("initial_pose is present but NeuroPose has no state to begin from")
        poses = self.frames(emg, keys)
        return interpolate(poses, emg.shape[1], align_corners=False)

    def frames(self, emg: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        """emg (B, T, C) -> (B, T less the remainder, J), before stretching to T."""
        if self.num_steps(emg.shape[1]) == 0:
            raise UserError(
                f"window of {emg.shape[1]} samples is shorter than the receptive field; "
                f"use at least {self.receptive_field}"
            )
        x = self.normalizer(emg)[..., None]
        for n, size in enumerate(zip(self.pools, self.electrode_pools, strict=True)):
            x = _pool(self._block(n, x, keys), *size)
        first = len(self.pools) + self.residual_blocks
        for n in range(len(self.pools), first):
            x = self._block(n, x, keys)
        for n, (samples, electrodes) in enumerate(zip(self.pools, WIDENING, strict=True)):
            x = self._block(first + n, x, keys)
            x = _repeat(x, samples, electrodes)
        poses = self.out(x[..., 0])
        return poses.astype(at_least_f32(poses.dtype))

    def _block(self, n: int, x: jax.Array, keys: jax.Array | None) -> jax.Array:
        block = getattr(self, f"block_{n}")
        layer = n * CONVS
        y, moments = checkpoint(lambda x, keys: block(x, keys, layer), self.remat)(x, keys)
        if keys is not None:
            block.update(moments)
        return y


def _pool(x: jax.Array, samples: int, electrodes: int) -> jax.Array:
    """Largest value of every (samples, electrodes) cell of (B, T, E, F); remainders are dropped."""
    batch, length, width, features = x.shape
    length, width = length // samples, width // electrodes
    cells = x[:, : length * samples, : width * electrodes].astype(at_least_f32(x.dtype))
    cells = cells.reshape(batch, length, samples, width, electrodes, features)
    return jnp.max(cells, axis=(2, 4)).astype(x.dtype)


def _repeat(x: jax.Array, samples: int, electrodes: int) -> jax.Array:
    """(B, T, E, F) -> (B, T * samples, E * electrodes, F); the way back sums in f32 at least."""
    wide = jnp.repeat(x.astype(at_least_f32(x.dtype)), samples, axis=1)
    return jnp.repeat(wide, electrodes, axis=2).astype(x.dtype)


def _narrowed(num_channels: int, electrode_pools: tuple[int, ...]) -> int:
    """Electrodes left by the encoder."""
    if len(electrode_pools) != len(WIDENING):
        raise UserError(
            f"model.groups={electrode_pools} has {len(electrode_pools)} entries; neuropose has "
            f"{len(WIDENING)} encoder blocks, give one entry for each"
        )
    width = num_channels
    for pool in electrode_pools:
        width //= pool
    if width < 1:
        raise UserError(
            f"model.groups={electrode_pools} leaves none of {num_channels} electrodes; lower an "
            "entry, their product may be at most the number of electrodes"
        )
    return width
