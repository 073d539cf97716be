"""Which numbers are kept in which type.

Parameters, recurrent carries, reductions and losses are always float32; only the operands of
matrix products and convolutions follow `memory.dtype`. bfloat16 has the exponent of float32, so
no loss scaling is needed; it keeps 8 bits, so a pose summed over 1000 steps in it would stop
growing, which is why carries stay float32.
"""

import contextlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp


def compute_dtype(name: str) -> jnp.dtype:
    """The type of matmul operands: 'float32', or 'bfloat16' (activations ÷2, rms error ~1e-3)."""
    return jnp.dtype(name)


def set_matmul_precision(name: str) -> None:
    """'default' lets the device round float32 operands (TF32 on GPU, bf16 on TPU);
    'highest' is true float32. No effect on CPU."""
    jax.config.update("jax_default_matmul_precision", None if name == "default" else name)


@contextlib.contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Inside, as `set_matmul_precision`: runs of several settings may share a process."""
    with jax.default_matmul_precision(None if name == "default" else name):
        yield


def at_least_f32(dtype: jnp.dtype) -> jnp.dtype:
    """f32 for narrower floats, else the dtype itself: for statistics, carries and sums."""
    return jnp.dtype(dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32)
