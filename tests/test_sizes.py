"""Sizes read and written as people write them."""

import pytest

from tds_jax.errors import UserError
from tds_jax.sizes import GIB, MIB, format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 KiB"), (1024, "1 KiB"), (312 * MIB, "312 MiB"), (1.5 * GIB, "1.50 GiB")],
)
def test_bytes_are_written_in_binary_units(count, text):
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1GiB", GIB),
        ("512 MiB", 512 * MIB),
        ("1.5GB", 1_500_000_000),
        ("800", 800),
        ("2gib", 2 * GIB),
    ],
)
def test_sizes_are_read_with_binary_and_decimal_units(text, count):
    assert parse_bytes("memory.budget", text) == count


@pytest.mark.parametrize("text", ["", "lots", "1 GiBB", "-1GiB", "GiB"])
def test_what_is_not_a_size_is_named(text):
    with pytest.raises(UserError, match=r"memory.budget='.*' is not a size; write it like 1GiB"):
        parse_bytes("memory.budget", text)
