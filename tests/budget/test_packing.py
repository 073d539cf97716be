"""Products and convolutions are found in compiled programs, with the matrices they amount to."""

import jax
import jax.numpy as jnp
import pytest

from tds_jax.budget.packing import SLICE, packed, products, scratch_bytes


def text(f, *shapes):
    specs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(f).lower(*specs).compile().as_text()


def convolve(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (2, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize(
    ("f", "shapes", "expected"),
    [
        (jnp.matmul, [(60, 70), (70, 80)], (4, 60, 80, 70)),
        (lambda a, b: a.T @ b, [(70, 60), (70, 80)], (4, 60, 80, 70)),
        (
            lambda a, b: jnp.einsum("nbk,bkm->bnm", a, b),
            [(60, 3, 70), (3, 70, 80)],
            (4, 60, 80, 70),
        ),
        # (61 - 5) // 2 + 1 = 29 by 62 - 2 = 60 positions of 2 examples, 5 * 3 * 7 inputs to each
        (convolve, [(2, 61, 62, 7), (5, 3, 7, 11)], (4, 2 * 29 * 60, 11, 105)),
    ],
)
def test_the_matrices_of_a_product(f, shapes, expected):
    size, rows, columns, inner = max(products(text(f, *shapes)))
    if (rows, columns) != expected[1:3]:  # the compiler may have turned it round
        rows, columns = columns, rows
    assert (size, rows, columns, inner) == expected


def test_the_gradient_of_a_convolution_is_two_more():
    """Of its kernel over all positions, and of its input over all outputs."""
    gradient = jax.grad(lambda x, k: jnp.sum(convolve(x, k) ** 2), (0, 1))
    found = [inner for *_, inner in products(text(gradient, (2, 61, 62, 7), (5, 3, 7, 11)))]
    assert {105, 2 * 29 * 60, 5 * 3 * 11} <= set(found)


def test_a_long_inner_dimension_is_packed_in_equal_slices():
    assert packed(100, 20, SLICE) == 120 * SLICE
    assert packed(100, 20, SLICE + 2) == 120 * (SLICE // 2 + 1)


def test_one_product_at_a_time_and_none_is_nothing():
    two = text(lambda a, b: (a @ b) @ b.T, (60, 70), (70, 80))
    assert scratch_bytes(two) == 4 * max(packed(60, 80, 70), packed(60, 70, 80))
    assert scratch_bytes(text(jnp.sin, (60, 70))) == 0
