"""LSTM layers in one-step form, for scans that feed their output back."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax.nn.deferred import Matrices, Product, direct
from tds_jax.nn.dropout import keep_scale
from tds_jax.nn.linear import add_bias, matmul
from tds_jax.nn.module import Module
from tds_jax.nn.precision import at_least_f32

Carry = tuple[tuple[jax.Array, jax.Array], ...]
"""One (cell, hidden) pair of (B, H) per layer, f32: sums over thousands of steps need it."""


class LSTMLayer(Module):
    """Weights of one layer: wx (in, 4H), wh (H, 4H), bias (4H,), gate order input forget cell out.

    One bias where PyTorch has two that are only ever summed.

    Starts differently from PyTorch, whose U(-1/sqrt(H), 1/sqrt(H)) for everything makes each layer
    shrink its signal about tenfold: two layers and a read-out then stay at the mean pose for
    hundreds of updates. Here wx has variance 1/in, wh is orthogonal per gate, and the forget gate
    starts open (bias 1): on generated recordings R² is 0.46 after 40 updates instead of -0.02.
    """

    def __init__(self, in_features: int, hidden: int, *, rngs: nnx.Rngs) -> None:
        scaled, orthogonal = nnx.initializers.lecun_normal(), nnx.initializers.orthogonal()
        gates = [orthogonal(rngs.params(), (hidden, hidden)) for _ in range(4)]
        self.wx = nnx.Param(scaled(rngs.params(), (in_features, 4 * hidden)))
        self.wh = nnx.Param(jnp.concatenate(gates, axis=1))
        self.bias = nnx.Param(jnp.zeros((4 * hidden,)).at[hidden : 2 * hidden].set(1))


@jax.custom_vjp
def update_cell(gates: jax.Array, cell: jax.Array) -> tuple[jax.Array, jax.Array]:
    """gates (..., 4H), cell (..., H) of one dtype -> the next (cell, hidden).

    Keeps 6H numbers per row for the backward pass, where autodiff would keep 11H.
    """
    return _update_forward(gates, cell)[0]


def _update_forward(gates: jax.Array, cell: jax.Array) -> tuple[Any, tuple[jax.Array, ...]]:
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
    new = f * cell + i * g
    out = jnp.tanh(new)
    return (new, o * out), (i, f, g, o, cell, out)


def _update_backward(
    saved: tuple[jax.Array, ...], cotangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    i, f, g, o, cell, out = saved
    d_new, d_hidden = cotangents
    d_new = d_new + d_hidden * o * (1 - out * out)
    d_i, d_f = d_new * g * i * (1 - i), d_new * cell * f * (1 - f)
    d_g, d_o = d_new * i * (1 - g * g), d_hidden * out * o * (1 - o)
    return jnp.concatenate([d_i, d_f, d_g, d_o], axis=-1), d_new * f


update_cell.defvjp(_update_forward, _update_backward)


class LSTM(Module, entries=("input_gates", "step")):
    """A stack of layers read as [input, feedback] -> hidden of the last layer.

    `input_gates` does the part of layer 0 that is known before the scan, for all steps in one
    matrix product; `step` does the rest, its products through `deferred.scan` where it is trained.
    Matrix products run in `dtype`, the carry is f32.
    """

    layer_0: LSTMLayer

    def __init__(
        self,
        in_features: int,
        hidden: int,
        layers: int,
        *,
        dropout: float,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        self.hidden = hidden
        self.layers = layers
        self.dropout = dropout
        self.dtype = dtype
        for n in range(layers):
            size = hidden if n else in_features
            setattr(self, f"layer_{n}", LSTMLayer(size, hidden, rngs=rngs))

    def initial_carry(self, batch: int) -> Carry:
        """Zeros."""
        zeros = jnp.zeros((batch, self.hidden), at_least_f32(self.dtype))
        return tuple((zeros, zeros) for _ in range(self.layers))

    def input_gates(self, x: jax.Array) -> jax.Array:
        """x (..., F) -> (..., 4H): layer 0's gates from its first F inputs, and its bias."""
        layer = self.layer_0
        matrix = layer.wx[: x.shape[-1]].astype(self.dtype)
        return add_bias(matmul(x.astype(self.dtype), matrix), layer.bias[...])

    def masks(self, batch_keys: jax.Array | None, steps: int, layer: int) -> list[jax.Array]:
        """Dropout factors (N, B, H) between layers, a fresh one per step; [] when off."""
        if batch_keys is None or self.dropout == 0:
            return []
        dtype = at_least_f32(self.dtype)
        shape = (steps, self.hidden)
        return [
            jnp.swapaxes(keep_scale(batch_keys, layer + n, shape, self.dropout, dtype), 0, 1)
            for n in range(self.layers - 1)
        ]

    def matrices(self, feedback: int) -> Matrices:
        """What every step multiplies by; feedback: the size of that argument of `step`, or 0."""
        matrices: Matrices = {}
        for n in range(self.layers):
            layer, rows = getattr(self, f"layer_{n}"), self.hidden if n else feedback
            kernels = (layer.wx[-rows:], layer.wh[...]) if rows else (layer.wh[...],)
            kernels = tuple(kernel.astype(self.dtype) for kernel in kernels)
            matrices[f"layer_{n}"] = (*kernels, layer.bias[...]) if n else kernels
        return matrices

    def step(
        self,
        carry: Carry,
        gates: jax.Array,
        feedback: jax.Array | None = None,
        masks: Sequence[jax.Array] = (),
        product: Product | None = None,
    ) -> tuple[Carry, jax.Array]:
        """One step: gates (B, 4H) from `input_gates`, feedback (B, P) = layer 0's last P inputs.

        masks: one (B, H) factor per gap between layers, or none. product: multiplies by one of
        `matrices`; None does it directly. Returns the carry and (B, H).
        """
        if product is None:
            product = direct(self.matrices(0 if feedback is None else feedback.shape[-1]))
        x = [] if feedback is None else [feedback]
        new: list[tuple[jax.Array, jax.Array]] = []
        for n, (cell, hidden) in enumerate(carry):
            with jax.named_scope(f"layer_{n}"):
                total = product(f"layer_{n}", *x, hidden)
                gates = total if n else gates + total
                new.append(update_cell(gates.astype(cell.dtype), cell))
                x = [new[-1][1] * masks[n] if n < len(masks) else new[-1][1]]
        return tuple(new), new[-1][1]
