"""Two networks of maps, days side by side as channels: a U-Net, and one that sees days first.

Both cost a fraction of the 3-D convolutions: what days have to do with each other is one product.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax.fields import require
from tds_jax.forecast.heads import LeadHead
from tds_jax.nn.conv_nd import ConvNd
from tds_jax.nn.dropout import keep_scale
from tds_jax.nn.group_norm import GroupNorm
from tds_jax.nn.module import Module
from tds_jax.nn.remat import checkpoint, keep

LEVELS = 2  # times that the map is halved
KERNEL = (3, 3)


class ResidualBlock(Module):
    """(B, H, W, F) -> the same: norm, gelu, convolution, twice, added to what came in.

    dropout: of whole channels, between the two. norm: 'group' of `groups`, or 'none'.
    """

    def __init__(
        self,
        features: int,
        *,
        norm: str,
        groups: int,
        dropout: float,
        periodic: bool,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        require(
            norm != "batch" and features % groups == 0,
            f"model.norm={norm!r} with model.groups={groups} and a width of {features}: maps are "
            "normalised in groups that divide the width, or not at all; use 'group' or 'none'",
        )
        self.dropout = dropout
        make = functools.partial(ConvNd, features, features, KERNEL, periodic=periodic)
        self.first, self.second = (make(dtype=dtype, rngs=rngs) for _ in range(2))
        grouped = norm == "group"
        self.before, self.between = (
            GroupNorm(features, groups, dtype=dtype, activation=jax.nn.gelu) if grouped else None
            for _ in range(2)
        )

    def __call__(self, x: jax.Array, keys: jax.Array | None, layer: int) -> jax.Array:
        y = self.first(jax.nn.gelu(x) if self.before is None else self.before(x))
        y = jax.nn.gelu(y) if self.between is None else self.between(y)
        if keys is not None and self.dropout:
            scale = keep_scale(keys, layer, y.shape[-1:], self.dropout, y.dtype)
            y = y * scale[:, None, None, :]
        return keep(x + self.second(y))


class UNet(Module):
    """Fields of past days (B, T, H, W, C) -> maps of coming days (B, L, H, W), f32.

    A block at full size, at a half and at a quarter, and back with what each size held: a cell sees
    some 40 cells around it. Ronneberger et al. 2015. Maps of odd sizes are continued by a row. The
    fresh network answers 0.

    by_day: first, as in SimVP (Gao et al. 2022), a convolution that each day passes alone.
    """

    def __init__(
        self,
        *,
        num_channels: int,
        days: int,
        leads: int,
        hidden: int,
        by_day: int,
        head: str,
        norm: str,
        groups: int,
        dropout: float,
        periodic: bool,
        remat: str,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        self.remat = remat
        conv = functools.partial(ConvNd, periodic=periodic, dtype=dtype, rngs=rngs)
        self.day = conv(num_channels, by_day, KERNEL) if by_day else None
        self.enter = conv(days * (by_day or num_channels), hidden, KERNEL)
        block = functools.partial(
            ResidualBlock,
            hidden,
            norm=norm,
            groups=groups,
            dropout=dropout,
            periodic=periodic,
            dtype=dtype,
            rngs=rngs,
        )
        for n in range(LEVELS + 1):
            setattr(self, f"down_{n}", block())
        for n in range(LEVELS):
            setattr(self, f"join_{n}", conv(2 * hidden, hidden, KERNEL))
            setattr(self, f"up_{n}", block())
        self.out = LeadHead(hidden, leads, head, dtype=dtype, rngs=rngs)
        # At first it says 0: what it is added to is the forecast from which training sets out.
        self.out.linear.kernel[...] = jnp.zeros_like(self.out.linear.kernel[...])
        self.out.linear.bias[...] = jnp.zeros_like(self.out.linear.bias[...])

    def __call__(self, x: jax.Array, train: bool, keys: jax.Array | None = None) -> jax.Array:
        """keys (B, 2): dropout, or None. train changes nothing else."""
        del train
        batch, days, height, width, _ = x.shape
        if self.day is not None:
            alone = x.reshape(batch * days, height, width, -1)
            x = jax.nn.gelu(self.day(alone)).reshape(batch, days, height, width, -1)
        x = self.enter(jnp.moveaxis(x, 1, 3).reshape(batch, height, width, -1))
        held = []
        for n in range(LEVELS):
            held.append(self._block(f"down_{n}", x, keys, n))
            x = halved(held[-1])
        x = self._block(f"down_{LEVELS}", x, keys, LEVELS)
        for n in reversed(range(LEVELS)):
            x = doubled(x, held[n].shape[1], held[n].shape[2])
            x = getattr(self, f"join_{n}")(jnp.concatenate([held[n], x], axis=-1))
            x = self._block(f"up_{n}", x, keys, LEVELS + 1 + n)
        return self.out(jax.nn.gelu(x))

    def _block(self, name: str, x: jax.Array, keys: jax.Array | None, layer: int) -> jax.Array:
        block = getattr(self, name)
        return checkpoint(lambda x: block(x, keys, layer), self.remat)(x)


def halved(x: jax.Array) -> jax.Array:
    """Means of 2 x 2 cells; a last odd row or column stands twice."""
    batch, height, width, features = x.shape
    x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return x.reshape(batch, -(-height // 2), 2, -(-width // 2), 2, features).mean(axis=(2, 4))


def doubled(x: jax.Array, height: int, width: int) -> jax.Array:
    """Every cell four times, cut to a size."""
    wide = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    return wide[:, :height, :width]
