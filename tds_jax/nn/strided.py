"""Convolutions whose gradients are, on CPU, convolutions as the forward pass has them.

XLA's own fast ones take channels last and nothing between the inputs. Gradients by autodiff have
other layouts, which XLA puts right outside of loops only: inside, the kernel's is made number by
number. Milliseconds a step of a loop, (4, 25, 53, 20) with 3 x 3 to 64, of the input and the
kernel: 2.8, 96; as here 0.8, 0.4. And with a stride it sets zeros between the outputs' gradients
and multiplies them all: prod(strides) times the work. Milliseconds forward and backward with it and
by phase, 2 cores: (8, 2356, 256) with K 5, stride 2: 74, 54; (8, 1176, 256) with K 17, stride 4:
61, 43.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp

Strides = tuple[int, ...]
Zeros = tuple[tuple[int, int], ...]
Pair = tuple[jax.Array, jax.Array]

_AXES = {1: "W", 2: "HW", 3: "DHW"}


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def convolve(strides: Strides, zeros: Zeros, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x (B, *space, I), kernel (*sizes, I, O), zeros around x -> (B, *space', O).

    The derivative is defined backwards only, and keeps x and kernel.
    """
    return native(strides, zeros, x, kernel)


def native(strides: Strides, zeros: Zeros, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`convolve` with the backend's own derivative."""
    return _conv(x, kernel, strides, zeros)


def pulled_natively(
    strides: Strides, zeros: Zeros, x: jax.Array, kernel: jax.Array, g: jax.Array
) -> Pair:
    """Cotangents of x and kernel by the backend's own derivative."""
    return jax.vjp(functools.partial(native, strides, zeros), x, kernel)[1](g)


def _conv(
    x: jax.Array, kernel: jax.Array, strides: Strides, zeros: Zeros, apart: Strides | None = None
) -> jax.Array:
    """apart: inputs from one that an entry of the kernel meets to the next entry's."""
    axes = _AXES[x.ndim - 2]
    numbers = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
    return jax.lax.conv_general_dilated(
        x, kernel, strides, zeros, rhs_dilation=apart, dimension_numbers=numbers
    )


def _forward(
    strides: Strides, zeros: Zeros, x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, Pair]:
    return native(strides, zeros, x, kernel), (x, kernel)


def _backward(strides: Strides, zeros: Zeros, saved: Pair, g: jax.Array) -> Pair:
    def as_convolutions(x: jax.Array, kernel: jax.Array, g: jax.Array) -> Pair:
        sizes = kernel.shape[:-2]
        within = all(max(pair) < size for pair, size in zip(zeros, sizes, strict=True))
        if max(strides) == 1 and within:
            dx = _of_input(strides, zeros, kernel, g)
        else:
            dx = _by_phase(strides, zeros, x.shape[1:-1], kernel, g)
        return dx, _of_kernel(strides, zeros, x, sizes, g)

    pulled = functools.partial(pulled_natively, strides, zeros)
    return jax.lax.platform_dependent(*saved, g, cpu=as_convolutions, default=pulled)


convolve.defvjp(_forward, _backward)


def _of_kernel(
    strides: Strides, zeros: Zeros, x: jax.Array, sizes: tuple[int, ...], g: jax.Array
) -> jax.Array:
    """(*sizes, I, O): x with its channels as examples and its examples as channels, with g for a
    kernel whose entries are a stride apart."""
    axes, read, around = range(1, x.ndim - 1), [], []
    for axis, size, stride, (before, _) in zip(axes, sizes, strides, zeros, strict=True):
        last = size + (g.shape[axis] - 1) * stride - before  # of x what a stride leaves is not read
        read.append(slice(0, last))
        around.append((before, max(0, last - x.shape[axis])))
    x = x[:, *read].transpose(x.ndim - 1, *axes, 0)
    g = g.transpose(*axes, 0, g.ndim - 1)
    y = _conv(x, g, (1,) * len(strides), tuple(around), strides)
    return y.transpose(*axes, 0, y.ndim - 1)


def _of_input(strides: Strides, zeros: Zeros, kernel: jax.Array, g: jax.Array) -> jax.Array:
    """(B, *space, I) without a stride, and with fewer zeros than kernel: g with it backwards."""
    pairs = zip(kernel.shape, zeros, strict=False)
    around = tuple((size - 1 - before, size - 1 - after) for size, (before, after) in pairs)
    backwards = jnp.flip(kernel, range(len(strides))).swapaxes(-1, -2)
    return _conv(g, backwards, strides, around)


def _by_phase(
    strides: Strides, zeros: Zeros, space: tuple[int, ...], kernel: jax.Array, g: jax.Array
) -> jax.Array:
    """(B, *space, I) from g (B, *space', O): one dense convolution that makes all phases at once.

    Input q * stride + p, with p < stride its phase, met output q - j through kernel entry
    j * stride + p; the phases are the channels of that convolution.
    """
    sizes, inputs = kernel.shape[:-2], kernel.shape[-2]
    reach = [-(-size // stride) for size, stride in zip(sizes, strides, strict=True)]
    phases = _phases(kernel, strides, reach)
    padded = [n + sum(pair) for n, pair in zip(space, zeros, strict=True)]
    count = [-(-n // stride) for n, stride in zip(padded, strides, strict=True)]
    around = tuple((j - 1, q - n) for j, q, n in zip(reach, count, g.shape[1:-1], strict=True))
    y = native((1,) * len(strides), around, g, phases).reshape(-1, *count, *strides, inputs)
    y = y.transpose(0, *_interleaved(1, len(strides)), y.ndim - 1)
    y = y.reshape(-1, *(q * s for q, s in zip(count, strides, strict=True)), inputs)
    inside = (slice(before, before + n) for n, (before, _) in zip(space, zeros, strict=True))
    return y[:, *inside]


def _phases(kernel: jax.Array, strides: Strides, reach: Sequence[int]) -> jax.Array:
    """(*sizes, I, O) -> (*reach, O, prod(strides) * I), latest entries first."""
    ends = [(0, r * s - n) for r, s, n in zip(reach, strides, kernel.shape, strict=False)]
    split = [n for pair in zip(reach, strides, strict=True) for n in pair]
    kernel = jnp.pad(kernel, (*ends, (0, 0), (0, 0))).reshape(*split, *kernel.shape[-2:])
    kernel = jnp.flip(kernel, range(0, len(split), 2))
    inputs, outputs = len(split), len(split) + 1
    order = (*range(0, len(split), 2), outputs, *range(1, len(split), 2), inputs)
    return kernel.transpose(order).reshape(*reach, kernel.shape[-1], -1)


def _interleaved(first: int, count: int) -> Iterator[int]:
    """first, first + count, first + 1, first + count + 1, ..."""
    pairs = zip(range(first, first + count), range(first + count, first + 2 * count), strict=True)
    return itertools.chain.from_iterable(pairs)
