"""Scales and shifts of features that depend on whose they are (FiLM, Perez et al. 2018)."""

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax.nn.linear import Linear, spread
from tds_jax.nn.module import Module
from tds_jax.nn.normalizer import Normalizer, Statistic
from tds_jax.nn.precision import at_least_f32


class Film(Module):
    """features (B, N, F) -> features * (1 + scale) + shift, both made of the user's vector (K,).

    normalizer: of vectors, over the train split. user: the normalised vector of whoever uses the
    model, saved with it; zeros, as at the start, are the average user of training. embedding:
    numbers that a user is told apart by. It begins as the identity.
    """

    def __init__(
        self, vector: int, embedding: int, features: int, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        self.normalizer = Normalizer(vector)
        self.user = Statistic(jnp.zeros((vector,), jnp.float32))
        self.inside = Linear(vector, embedding, dtype=dtype, rngs=rngs)
        self.out = Linear(embedding, 2 * features, dtype=dtype, rngs=rngs)
        for part in (self.out.kernel, self.out.bias):
            part[...] = jnp.zeros_like(part[...])

    def __call__(self, features: jax.Array, calibration: jax.Array | None = None) -> jax.Array:
        """calibration: (B, K) vectors as recorded; None: the one that the model was given."""
        if calibration is None:
            users = jnp.broadcast_to(self.user[...], (features.shape[0], *self.user.shape))
        else:
            users = self.normalizer(calibration)
        made = self.out(jnp.tanh(self.inside(users))).astype(at_least_f32(features.dtype))
        scale, shift = (part[:, None] for part in jnp.split(made, 2, axis=1))
        return features * (1 + spread(scale, features)) + spread(shift, features)

    def remember(self, vector: jax.Array) -> None:
        """vector (K,) as recorded: that of the model's user from now on."""
        self.user[...] = self.normalizer(vector)
