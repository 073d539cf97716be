"""Random keys from the key data that travel with every example."""

import jax


def key_of(data: jax.Array, draw: jax.typing.ArrayLike) -> jax.Array:
    """The key of one draw. data: (2,) uint32, a function of (seed, epoch, example); draw: which."""
    return jax.random.fold_in(jax.random.wrap_key_data(data), draw)
