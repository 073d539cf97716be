"""Changes of rate along time; positions are computed in f64 on the host, once per shape."""

import jax
import jax.numpy as jnp
import numpy as np

from tds_jax.nn.precision import at_least_f32


def _blend(x: jax.Array, position: np.ndarray) -> jax.Array:
    """x (B, N, C) read at fractional indices `position` (M,), each within [0, N - 1].

    In f32 at least, as the way back sums what read the same entry; the result has x's dtype.
    """
    dtype, x = x.dtype, x.astype(at_least_f32(x.dtype))
    low = np.floor(position).astype(np.int32)
    high = np.minimum(low + 1, x.shape[1] - 1)
    part = jnp.asarray(position - low, x.dtype)[None, :, None]
    part = jnp.broadcast_to(part, (x.shape[0], len(position), x.shape[2]))
    return (x[:, low] * (1 - part) + x[:, high] * part).astype(dtype)


def interpolate(x: jax.Array, size: int, *, align_corners: bool) -> jax.Array:
    """x (B, N, C) -> (B, size, C), linear along time.

    align_corners True puts the first and last outputs on the first and last inputs (a single
    output is the first input); False treats entries as cells of equal width and holds the edges.
    Same rule as PyTorch's 'linear' mode.
    """
    count = x.shape[1]
    index = np.arange(size, dtype=np.float64)
    if align_corners:
        position = index * (count - 1) / max(size - 1, 1)
    else:
        position = np.clip((index + 0.5) * count / size - 0.5, 0, count - 1)
    return _blend(x, position)


def upsample(values: jax.Array, step: int, length: int) -> jax.Array:
    """values (B, N, J), one every `step` samples -> (B, length, J), one per sample.

    Sample 0 of the result is the first value's own sample; linear between values, the last is held.
    """
    position = np.arange(length, dtype=np.float64) / step
    return _blend(values, np.minimum(position, values.shape[1] - 1))
