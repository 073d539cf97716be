"""What layers that normalise share."""

from typing import NamedTuple

import jax


class Moments(NamedTuple):
    """Mean and variance of what one layer normalises by, of one shape: (F,), or (B, G) of groups.

    Biased unless said otherwise.
    """

    mean: jax.Array
    var: jax.Array


def along_last(vector: jax.Array, like: jax.Array) -> jax.Array:
    """(C,) -> (1, ..., 1, C), to go with (..., C)."""
    return vector.reshape((1,) * (like.ndim - 1) + vector.shape)
