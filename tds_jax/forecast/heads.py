"""From features per pixel to one map per lead."""

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax.fields import require_choice
from tds_jax.nn.linear import Linear
from tds_jax.nn.module import Module
from tds_jax.nn.precision import at_least_f32

HEADS = ("leads", "repeat")


class LeadHead(Module):
    """(B, ..., F) -> (B, L, ...), f32: a linear map of the features at every pixel.

    head 'leads' has weights of its own for every lead; 'repeat' makes one map and copies it, which
    is what the published models do: whatever the lead, the same forecast.
    """

    def __init__(
        self, in_features: int, leads: int, head: str, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        require_choice("model.head", head, HEADS)
        self.leads = leads
        maps = leads if head == "leads" else 1
        self.linear = Linear(in_features, maps, dtype=dtype, rngs=rngs)

    def __call__(self, features: jax.Array) -> jax.Array:
        # A product per map puts it where it belongs; of one product for all, transposed, XLA's
        # compiler for a GPU fails on the backward pass when it cannot time kernels (plans).
        x, kernel, bias = features.astype(self.linear.dtype), self.linear.matrix(), self.linear.bias
        maps = jnp.stack([x @ kernel[:, n] for n in range(kernel.shape[1])], axis=1)
        maps = maps.astype(at_least_f32(maps.dtype))
        maps = maps + bias[...].reshape(1, -1, *(1,) * (features.ndim - 2))
        return jnp.broadcast_to(maps, (maps.shape[0], self.leads, *maps.shape[2:]))
