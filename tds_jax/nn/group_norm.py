"""Normalisation over groups of channels and all of space."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax.nn.module import Module
from tds_jax.nn.moments import Moments
from tds_jax.nn.precision import at_least_f32

Activation = Callable[[jax.Array], jax.Array]


def identity(x: jax.Array) -> jax.Array:
    """x."""
    return x


class GroupNorm(Module):
    """Normalises (B, *space, C) over space and C / groups channels, then scales and shifts.

    `activation`, an elementwise function, is applied to the result and shares its lean backward
    pass: only x and the moments are kept. Statistics are two-pass and f32 (f64 for f64) whatever
    the types; the result is `dtype`. eps is PyTorch's 1e-5, not Flax's 1e-6.
    groups = features is instance normalisation. No state: train and evaluation are the same.
    """

    def __init__(
        self,
        features: int,
        groups: int,
        *,
        dtype: jnp.dtype,
        eps: float = 1e-5,
        activation: Activation = identity,
    ) -> None:
        if features % groups:
            raise ValueError(f"groups={groups} does not divide features={features}")
        self.groups = groups
        self.dtype = dtype
        self.eps = eps
        self.activation = activation
        self.scale = nnx.Param(jnp.ones((features,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((features,), jnp.float32))

    def moments(self, x: jax.Array) -> Moments:
        """What `__call__` normalises x by; of parts of a volume, see `merge`."""
        return moments(x, self.groups)

    def __call__(
        self,
        x: jax.Array,
        given: Moments | None = None,
        told: tuple[jax.Array, jax.Array] | None = None,
    ) -> jax.Array:
        """given: moments of a whole of which x is a part; None takes x's own.

        told: (B, C) scales and shifts of each example, before the activation: h * (1 + scale) +
        shift of what is normalised, h.
        """
        wide = at_least_f32(x.dtype)
        scale, bias = self.scale[...].astype(wide)[None], self.bias[...].astype(wide)[None]
        if told is not None:
            more, shift = (part.astype(wide) for part in told)
            scale, bias = scale * (1 + more), bias * (1 + more) + shift
        if given is not None:
            y = self.activation(_affine(x, given, self.eps, scale, bias))
            return y.astype(self.dtype)
        static = (self.groups, self.eps, self.activation, jnp.dtype(self.dtype))
        return _normalize(static, x, scale, bias)


def moments(x: jax.Array, groups: int, where: jax.Array | None = None) -> Moments:
    """Moments (B, G) of x (B, *space, C): mean first, then the mean square of what is left.

    where: bool, to go with x; the positions of space that count, at least one.
    """
    wide = x.astype(at_least_f32(x.dtype))
    mean = _over_groups(_space_mean(wide, where), groups)
    return Moments(mean, _over_groups(_space_mean((wide - spread(mean, x)) ** 2, where), groups))


def merge(a: Moments, a_share: jax.Array, b: Moments) -> Moments:
    """Moments of a whole from those of its two parts; a_share: part of the whole that is a."""
    b_share = 1 - a_share
    mean = a_share * a.mean + b_share * b.mean
    apart = a_share * b_share * (a.mean - b.mean) ** 2
    return Moments(mean, a_share * a.var + b_share * b.var + apart)


def _affine(x: jax.Array, by: Moments, eps: float, scale: jax.Array, bias: jax.Array) -> jax.Array:
    wide = x.astype(scale.dtype)
    normal = (wide - spread(by.mean, x)) * spread(jax.lax.rsqrt(by.var + eps), x)
    return normal * spread(scale, x) + spread(bias, x)


Static = tuple[int, float, Activation, jnp.dtype]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _normalize(static: Static, x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """activation(normalised x * scale + bias), these (B or 1, C); keeps x and the moments."""
    return _forward(static, x, scale, bias)[0]


def _forward(
    static: Static, x: jax.Array, scale: jax.Array, bias: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    groups, eps, activation, dtype = static
    by = moments(x, groups)
    y = activation(_affine(x, by, eps, scale, bias)).astype(dtype)
    return y, (x, *by, scale, bias)


def _backward(
    static: Static, saved: tuple[jax.Array, ...], g: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    groups, eps, activation, _ = static
    x, mean, var, scale, bias = saved
    inverse = jax.lax.rsqrt(var + eps)
    gain = jnp.repeat(inverse, x.shape[-1] // groups, axis=1) * scale
    centred = x.astype(scale.dtype) - spread(mean, x)
    inverse = spread(inverse, x)
    y = centred * inverse
    # Not y * scale: of the forward pass's own terms XLA would keep what an activation is made of.
    _, pull = jax.vjp(activation, centred * spread(gain, x) + spread(bias, x))
    (g,) = pull(g.astype(scale.dtype))
    positions = math.prod(x.shape[1:-1])
    g_mean, gy_mean = _space_mean(g), _space_mean(g * y)  # (B, C)
    offset = spread(_over_groups(g_mean * scale, groups), x)
    slope = spread(_over_groups(gy_mean * scale, groups), x)
    dx = inverse * (g * spread(scale, x) - offset - y * slope)
    d_scale, d_bias = (positions * _summed(mean, len(scale)) for mean in (gy_mean, g_mean))
    return dx.astype(x.dtype), d_scale, d_bias


_normalize.defvjp(_forward, _backward)


def _summed(rows: jax.Array, count: int) -> jax.Array:
    """(B, C) -> (count, C), count B or 1."""
    return rows if count == len(rows) else jnp.sum(rows, axis=0, keepdims=True)


def _space_mean(x: jax.Array, where: jax.Array | None = None) -> jax.Array:
    """(B, *space, C) -> (B, C)."""
    return jnp.mean(x, axis=tuple(range(1, x.ndim - 1)), where=where)


def _over_groups(x: jax.Array, groups: int) -> jax.Array:
    """(B, C) -> (B, G), means of neighbouring channels."""
    return jnp.mean(x.reshape(x.shape[0], groups, -1), axis=-1)


def spread(x: jax.Array, like: jax.Array) -> jax.Array:
    """(B or 1, G) -> (B or 1, 1, ..., 1, C), to go with (B, *space, C)."""
    rows = jnp.repeat(x, like.shape[-1] // x.shape[1], axis=1)
    return rows.reshape(x.shape[0], *(1,) * (like.ndim - 2), like.shape[-1])
