"""ConvLSTM: an LSTM whose products are convolutions over the map. Shi et al. 2015."""

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax.forecast.heads import LeadHead
from tds_jax.nn.conv_nd import ConvNd
from tds_jax.nn.lstm import update_cell
from tds_jax.nn.module import Module
from tds_jax.nn.precision import at_least_f32
from tds_jax.nn.remat import checkpoint, in_chunks, keep

KERNEL = (3, 3)


class ConvLSTM(Module):
    """Fields of past days (B, T, H, W, C) -> maps of coming days (B, L, H, W), f32.

    One cell reads [day, hidden state] with a 3 x 3 convolution and keeps `hidden` channels; after
    the last day a 1 x 1 convolution makes the maps: one per lead (head 'leads') or one repeated
    (head 'repeat', as published; 11,601 parameters with 4 channels and hidden 16). A pixel sees T
    pixels around it. Gates are ordered i f g o, the original's i f o g. dtype: of convolutions and
    of the hidden state, which is their input; the cell is f32. periodic: see `ConvNd`.

    day_chunk: days per chunk that are redone going backward (0: all are kept). Alive are then the
    states of T / day_chunk days + one chunk, 7 * hidden numbers per pixel and day, or, with remat
    'full', 2 * hidden; 'dots' and 'names' keep the convolution's result of these days, 4 * hidden
    more. Each of the two redoes the convolutions once.
    """

    def __init__(
        self,
        *,
        num_channels: int,
        leads: int,
        hidden: int,
        head: str,
        periodic: bool = False,
        day_chunk: int,
        remat: str,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        self.hidden = hidden
        self.day_chunk = day_chunk
        self.remat = remat
        self.dtype = dtype
        inputs = num_channels + hidden
        self.cell = ConvNd(inputs, 4 * hidden, KERNEL, periodic=periodic, dtype=dtype, rngs=rngs)
        self.out = LeadHead(hidden, leads, head, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, train: bool, keys: jax.Array | None = None) -> jax.Array:
        """train and keys change nothing: there is neither dropout nor a running statistic."""
        del train, keys
        batch, days, height, width, _ = x.shape

        def day(carry: tuple[jax.Array, jax.Array], t: jax.Array) -> tuple[tuple, tuple[()]]:
            cell, hidden = carry
            # Indexed here and not scanned over: that would copy x to put its days first.
            today = jax.lax.dynamic_index_in_dim(x, t, axis=1, keepdims=False)
            gates = keep(self.cell(jnp.concatenate([today.astype(self.dtype), hidden], axis=-1)))
            cell, hidden = update_cell(gates.astype(cell.dtype), cell)
            return (cell, hidden.astype(self.dtype)), ()

        def run(carry: tuple[jax.Array, jax.Array], ts: jax.Array) -> tuple[tuple, tuple[()]]:
            return jax.lax.scan(checkpoint(day, self.remat), carry, ts)

        shape = (batch, height, width, self.hidden)
        zeros = jnp.zeros(shape, at_least_f32(self.dtype)), jnp.zeros(shape, self.dtype)
        (_, hidden), _ = in_chunks(run, zeros, jnp.arange(days), self.day_chunk)
        return self.out(hidden)
