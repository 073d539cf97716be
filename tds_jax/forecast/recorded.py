"""What a run keeps of its grid, as texts in its inputs.json: the axes, and which cells it saw."""

import base64
import zlib

import numpy as np


def grid_words(lat: np.ndarray, lon: np.ndarray) -> str:
    """The axes of a grid, to compare and to read."""
    return f"lat {_span(lat)}, lon {_span(lon)}"


def packed_each(masks: np.ndarray) -> str:
    """Masks (K, H, W) as texts with spaces between, see `packed`."""
    return " ".join(packed(mask) for mask in masks)


def unpacked_each(texts: str, shape: tuple[int, int, int]) -> np.ndarray:
    """(K, H, W) bool: the masks; every cell of all where there is no text."""
    each = texts.split(" ") if texts else [""] * shape[0]
    return np.stack([unpacked(text, shape[1:]) for text in each])


def packed(mask: np.ndarray) -> str:
    """A mask of cells as a text of some bits a cell, or less."""
    return base64.b85encode(zlib.compress(np.packbits(mask).tobytes())).decode()


def unpacked(text: str, shape: tuple[int, int]) -> np.ndarray:
    """bool of this shape: the mask; every cell where there is no text."""
    if not text:
        return np.ones(shape, bool)
    bits = np.unpackbits(np.frombuffer(zlib.decompress(base64.b85decode(text)), np.uint8))
    return bits[: shape[0] * shape[1]].reshape(shape).astype(bool)


def west_of(words: str) -> float:
    """The first longitude in `grid_words`."""
    return float(words.rpartition("lon ")[2].partition("..")[0])


def _span(axis: np.ndarray) -> str:
    return f"{axis[0]:g}..{axis[-1]:g}"
