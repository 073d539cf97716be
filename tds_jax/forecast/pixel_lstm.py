"""An LSTM over short sequences, one per pixel, of which only the last output is read."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax.engine.step import split
from tds_jax.forecast.chunks import mapped
from tds_jax.nn.linear import add_bias, uniform
from tds_jax.nn.lstm import update_cell
from tds_jax.nn.module import Module
from tds_jax.nn.precision import at_least_f32


class Direction(Module):
    """Weights of one direction: wx (in, 4H), wh (H, 4H) or None, bias (4H,), gates i f g o.

    published: with everything the original has, so that parameters and gradients are the same: a
    second bias `bias_h`, which is only ever added to the first, and wh even where `steps` is 1,
    whose gradient is 0. All start as PyTorch's, U(-1/sqrt(H), 1/sqrt(H)).
    """

    def __init__(
        self, in_features: int, hidden: int, steps: int, *, published: bool, rngs: nnx.Rngs
    ) -> None:
        def draw(*shape: int) -> nnx.Param:
            return nnx.Param(uniform(rngs, (*shape, 4 * hidden), hidden))

        self.hidden = hidden
        self.steps = steps
        self.wx = draw(in_features)
        self.wh = draw(hidden) if published or steps > 1 else None
        self.bias = draw()
        self.bias_h = draw() if published else None

    def __call__(self, x: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """x (N, steps, F) -> (N, H), the output after the last step; products run in `dtype`."""
        bias = self.bias[...] if self.bias_h is None else self.bias[...] + self.bias_h[...]
        gates = add_bias(x.astype(dtype) @ self.wx[...].astype(dtype), bias)
        cell = jnp.zeros((len(x), self.hidden), at_least_f32(dtype))
        cell, hidden = update_cell(gates[:, 0].astype(cell.dtype), cell)
        if self.wh is not None:
            wh = self.wh[...].astype(dtype)
            for t in range(1, self.steps):
                total = gates[:, t] + hidden.astype(dtype) @ wh
                cell, hidden = update_cell(total.astype(cell.dtype), cell)
        return hidden.astype(dtype)


class PixelLSTM(Module):
    """(N, O, F) sequences -> (N, features) in `dtype`: forward after O steps [, reverse after 1].

    The reverse direction of a bidirectional layer has seen one element when its last output is
    read, so it takes that one step only. pixel_chunk: sequences taken at once and redone for the
    backward pass (0: all, kept). Bytes then do not grow with N but for the sequences themselves;
    time grows by the forward products of the layer.
    """

    def __init__(
        self,
        in_features: int,
        hidden: int,
        steps: int,
        *,
        bidirectional: bool,
        published: bool,
        pixel_chunk: int,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        self.features = hidden * (2 if bidirectional else 1)
        self.pixel_chunk = pixel_chunk
        self.dtype = dtype
        make = functools.partial(Direction, in_features, hidden, published=published, rngs=rngs)
        self.forward = make(steps)
        self.reverse = make(1) if bidirectional else None

    def __call__(self, sequences: jax.Array) -> jax.Array:
        """Last outputs of sequences (N, O, F)."""
        if self.pixel_chunk == 0:
            return self._all(sequences)
        graphdef, params, rest = split(self)

        def run(params: Any, x: jax.Array) -> jax.Array:
            return nnx.merge(graphdef, params, rest)._all(x)

        return mapped(run, params, sequences, min(self.pixel_chunk, len(sequences)))

    def _all(self, x: jax.Array) -> jax.Array:
        parts = [self.forward(x, self.dtype)]
        if self.reverse is not None:
            parts.append(self.reverse(x[:, -1:], self.dtype))
        return jnp.concatenate(parts, axis=-1)
