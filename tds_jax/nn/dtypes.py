"""The dtype of what must not lose digits."""

import jax.numpy as jnp


def at_least_f32(dtype: jnp.dtype) -> jnp.dtype:
    """f32 for narrower floats, else the dtype itself: for statistics, carries and sums."""
    return jnp.dtype(dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32)
