"""Time-depth-separable convolutions: EMG at the sampling rate -> features at a lower one.

Hannun et al. 2019 (arXiv 1904.02619). Every convolution is valid (no padding), so that a feature
depends on `left_context + 1` samples exactly, wherever the window was cut.
"""

import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax.errors import UserError
from tds_jax.fields import require_choice
from tds_jax.nn.conv import Conv1d, width_conv1d
from tds_jax.nn.dropout import dropout
from tds_jax.nn.linear import Linear, add_bias, uniform
from tds_jax.nn.module import Module
from tds_jax.nn.norm import LayerNorm
from tds_jax.nn.normalizer import Normalizer
from tds_jax.nn.precision import at_least_f32
from tds_jax.nn.remat import checkpoint, keep
from tds_jax.pose.conformer import DRAWS, ConformerBlock
from tds_jax.pose.front import WAVEFORM, Front

ENCODERS = ("tds", "conformer")
BLOCK_LAYER = 1000  # of the draws in blocks; those of stages and of the decoder count below
NORM_ORDERS = ("norm_relu", "relu_norm")
# Of a mean square, in units of normalised EMG: a silent channel gives -3.5, and no slope is above
# 0.5 / sqrt(POWER_FLOOR) = 16.
POWER_FLOOR = 1e-3


class TDSBlock(Module):
    """(B, T, G * W) -> (B, T - K + 1, G * W): a convolution over time, then two linear layers.

    The convolution mixes the G groups of a column and treats the W columns alike; the linear layers
    mix all channels of one frame. Each half adds its input (its last frames) and normalises.
    """

    def __init__(
        self, groups: int, width: int, kernel_size: int, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        channels, fan = groups * width, groups * kernel_size
        self.width = width
        self.dtype = dtype
        self.kernel = nnx.Param(uniform(rngs, (kernel_size, groups, groups), fan))
        self.bias = nnx.Param(uniform(rngs, (groups,), fan))
        self.conv_norm = LayerNorm(channels, dtype=dtype)
        self.fc_1 = Linear(channels, channels, dtype=dtype, rngs=rngs)
        self.fc_2 = Linear(channels, channels, dtype=dtype, rngs=rngs)
        self.fc_norm = LayerNorm(channels, dtype=dtype)

    def layers(self) -> Iterator[tuple[Callable[[jax.Array], jax.Array], int]]:
        """See `TDSNetwork.layers`."""
        yield self, self.kernel.shape[0] - 1

    def __call__(self, x: jax.Array, keys: jax.Array | None = None, layer: int = 0) -> jax.Array:
        """keys, layer: of dropout, which it has none of."""
        y = width_conv1d(x, self.kernel[...].astype(self.dtype))
        y = jax.nn.relu(add_bias(y, jnp.repeat(self.bias[...], self.width)))
        x = self.conv_norm(y + x[:, x.shape[1] - y.shape[1] :])
        return keep(self.fc_norm(self.fc_2(jax.nn.relu(self.fc_1(x))) + x))


Block = TDSBlock | ConformerBlock
MakeBlock = Callable[[int, int, int], Block]
"""(groups, width, kernel) -> a block."""


class TDSStage(Module):
    """A strided convolution with its normalisation and dropout, then blocks at its rate.

    newest: so many of the inputs, the last ones, are read at the convolution's newest frame alone.
    log_power_frames: above 0, the log of each channel's power over so many frames takes the place
    of norm and ReLU.
    """

    def __init__(
        self,
        in_features: int,
        groups: int,
        width: int,
        conv_kernel: int,
        conv_stride: int,
        tds_kernel: int,
        blocks: int,
        *,
        dropout: float,
        norm_order: str,
        conv_bias: bool,
        log_power_frames: int,
        make_block: MakeBlock,
        newest: int,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        self.blocks = blocks
        self.log_power_frames = log_power_frames
        self.dropout = dropout
        self.norm_order = norm_order
        self.newest = Linear(newest, groups * width, dtype=dtype, rngs=rngs) if newest else None
        self.conv = Conv1d(
            in_features - newest,
            groups * width,
            conv_kernel,
            conv_stride,
            bias=conv_bias,
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = None if log_power_frames else LayerNorm(groups * width, dtype=dtype)
        for n in range(blocks):
            setattr(self, f"block_{n}", make_block(groups, width, tds_kernel))

    @property
    def overlap(self) -> int:
        """Inputs of `front` that its next output reads again, less those that it skips."""
        size, stride = self.conv.kernel.shape[0], self.conv.stride
        return summed_kernel(size, stride, self.log_power_frames) - stride

    def front(self, x: jax.Array) -> jax.Array:
        """The stage without dropout and blocks."""
        x = self._convolved(x)
        if self.norm is None:
            return log_power(x, self.log_power_frames)
        if self.norm_order == "norm_relu":
            return jax.nn.relu(self.norm(x))
        return self.norm(jax.nn.relu(x))

    def _convolved(self, x: jax.Array) -> jax.Array:
        if self.newest is None:
            return self.conv(x)
        frames, features, _ = self.conv.kernel.shape
        latest = x[:, frames - 1 :: self.conv.stride, features:]
        return self.conv(x[..., :features]) + self.newest(latest)

    def __call__(self, x: jax.Array, keys: jax.Array | None, layer: int) -> jax.Array:
        x = dropout(self.front(x), self.dropout, keys, layer)
        for n in range(self.blocks):
            x = getattr(self, f"block_{n}")(x, keys, BLOCK_LAYER * (layer + 1) + DRAWS * n)
        return x


def log_power(x: jax.Array, frames: int) -> jax.Array:
    """(B, T, C) -> (B, T - frames + 1, C): 0.5 log of each channel's mean square over `frames`."""
    wide = x.astype(at_least_f32(x.dtype))
    window, ones = (1, frames, 1), (1, 1, 1)
    power = jax.lax.reduce_window(wide * wide, 0.0, jax.lax.add, window, ones, "VALID") / frames
    return (0.5 * jnp.log(power + POWER_FLOOR)).astype(x.dtype)


class TDSNetwork(Module):
    """(B, T, C) -> (B, num_frames(T), features).

    Frame n depends on samples [n * stride, n * stride + left_context] and on no other. The six
    tuples have one entry per stage; stage i makes groups[i] * widths[i] channels. `out_features`
    adds a linear layer per frame (None: none). front: what comes before the stages.
    encoder 'conformer': blocks are `conformer.ConformerBlock`s, whose heads are the groups, with
    attention over attention_frames and feed-forwards expansion times as wide.
    norm_order is 'norm_relu' or 'relu_norm'. log_power_frames: of the first stage, see `TDSStage`.
    """

    def __init__(
        self,
        num_channels: int,
        conv_kernels: Sequence[int],
        conv_strides: Sequence[int],
        groups: Sequence[int],
        widths: Sequence[int],
        tds_kernels: Sequence[int],
        tds_blocks: Sequence[int],
        *,
        dropout: float,
        norm_order: str = "norm_relu",
        conv_bias: bool = False,
        log_power_frames: int = 0,
        out_features: int | None = None,
        front: Front = WAVEFORM,
        encoder: str = "tds",
        attention_frames: int = 0,
        expansion: int = 1,
        remat: str,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        shapes = (conv_kernels, conv_strides, groups, widths, tds_kernels, tds_blocks)
        _check_stages(shapes, norm_order)
        self.stages = len(groups)
        self.remat = remat
        self.front = front.layers
        self.normalizer = Normalizer(front.features(num_channels)) if front.normalize else None
        seen = attention_frames if encoder == "conformer" else 0
        self.left_context, self.stride = receptive_field(
            conv_kernels,
            conv_strides,
            [kernel + seen for kernel in tds_kernels],
            tds_blocks,
            front.left_context,
            front.stride,
            log_power_frames,
        )

        make_block = _block_maker(encoder, attention_frames, expansion, dropout, dtype, rngs)
        size = front.features(num_channels)
        for n, (kernel, stride, group, width, tds_kernel, blocks) in enumerate(
            zip(*shapes, strict=True)
        ):
            stage = TDSStage(
                size,
                group,
                width,
                kernel,
                stride,
                tds_kernel,
                blocks,
                dropout=dropout,
                norm_order=norm_order,
                conv_bias=conv_bias,
                log_power_frames=0 if n else log_power_frames,
                make_block=make_block,
                newest=0 if n else front.newest(num_channels),
                dtype=dtype,
                rngs=rngs,
            )
            setattr(self, f"stage_{n}", stage)
            size = group * width
        self.out = (
            None if out_features is None else Linear(size, out_features, dtype=dtype, rngs=rngs)
        )
        self.features = size if out_features is None else out_features

    def num_frames(self, length: int) -> int:
        """Frames from `length` samples; 0 when it is shorter than the receptive field."""
        return max(0, (length - 1 - self.left_context) // self.stride + 1)

    def seen(self, x: jax.Array) -> jax.Array:
        """(B, T, C) -> what goes into the first stage."""
        for layer in self.front:
            x = layer(x)
        return x if self.normalizer is None else self.normalizer(x)

    def __call__(self, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        x = self.seen(x)
        for n in range(self.stages):
            stage = getattr(self, f"stage_{n}")
            x = checkpoint(lambda x, keys, stage=stage, n=n: stage(x, keys, n), self.remat)(x, keys)
        return x if self.out is None else self.out(x)

    def layers(self) -> Iterator[tuple[Callable[[jax.Array], jax.Array], int]]:
        """(valid layer, inputs it reads again at the next hop), whose chain is a call w/o dropout.

        The number is kernel - stride: negative where inputs between two outputs are not read.
        """
        for layer in self.front:
            yield layer, layer.overlap
        if self.normalizer is not None:
            yield self.normalizer, 0
        for n in range(self.stages):
            stage: TDSStage = getattr(self, f"stage_{n}")
            yield stage.front, stage.overlap
            for m in range(stage.blocks):
                yield from getattr(stage, f"block_{m}").layers()
        if self.out is not None:
            yield self.out, 0


def _block_maker(
    encoder: str, frames: int, expansion: int, dropout: float, dtype: jnp.dtype, rngs: nnx.Rngs
) -> MakeBlock:
    """What makes the blocks of every stage. Raises UserError for an encoder that is none."""
    require_choice("model.encoder", encoder, ENCODERS)
    if encoder == "tds":
        return functools.partial(TDSBlock, dtype=dtype, rngs=rngs)
    return functools.partial(
        ConformerBlock,
        frames=frames,
        expansion=expansion,
        dropout=dropout,
        dtype=dtype,
        rngs=rngs,
    )


def receptive_field(
    conv_kernels: Sequence[int],
    conv_strides: Sequence[int],
    tds_kernels: Sequence[int],
    tds_blocks: Sequence[int],
    context: int = 0,
    rate: int = 1,
    log_power_frames: int = 0,
) -> tuple[int, int]:
    """(samples before its newest that a frame depends on, samples between two frames).

    context, rate: the same of what goes in. log_power_frames: see `TDSStage`.
    """
    if log_power_frames:
        first = summed_kernel(conv_kernels[0], conv_strides[0], log_power_frames)
        conv_kernels = (first, *conv_kernels[1:])
    for kernel, stride, tds_kernel, blocks in zip(
        conv_kernels, conv_strides, tds_kernels, tds_blocks, strict=True
    ):
        context += (kernel - 1) * rate
        rate *= stride
        context += blocks * (tds_kernel - 1) * rate
    return context, rate


def summed_kernel(kernel: int, stride: int, frames: int) -> int:
    """Inputs of a convolution that so many of its frames (at least one) depend on."""
    return kernel + (max(1, frames) - 1) * stride


def _check_stages(shapes: tuple[Sequence[int], ...], norm_order: str) -> None:
    names = ("conv_kernels", "conv_strides", "groups", "widths", "tds_kernels", "tds_blocks")
    for name, values in zip(names, shapes, strict=True):
        if len(values) != len(shapes[0]):
            raise UserError(
                f"model.{name}={tuple(values)} has {len(values)} stages but model.conv_kernels has "
                f"{len(shapes[0])}; give every stage tuple the same length"
            )
        low = 0 if name == "tds_blocks" else 1
        if min(values, default=low) < low:
            raise UserError(f"model.{name}={tuple(values)} has an entry below {low}; raise it")
    if norm_order not in NORM_ORDERS:
        raise UserError(f"norm_order={norm_order!r} is not known; use one of {NORM_ORDERS}")
