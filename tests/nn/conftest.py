"""Layers must not change types silently; optax itself does, so this holds here only."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True)
def strict_promotion() -> Iterator[None]:
    """No implicit mixing of types."""
    with jax.numpy_dtype_promotion("strict"):
        yield
