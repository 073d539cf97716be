"""Tensors from .safetensors files: a header of names, types and places, and raw bytes."""

from pathlib import Path

import numpy as np
import safetensors

from tds_jax.errors import UserError

HEADER_BYTES = 8  # the header's length, little-endian; then the header, which is JSON
TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}


def is_safetensors(path: Path) -> bool:
    """By its first bytes, or where those are missing by its name."""
    with path.open("rb") as file:
        start = file.read(HEADER_BYTES + 1)
    return path.suffix == ".safetensors" or start[HEADER_BYTES:] == b"{"


def read(path: Path) -> dict[str, np.ndarray]:
    """Name -> array of every tensor, bfloat16 as float32; or UserError, in one line."""
    try:
        found = safetensors.deserialize(path.read_bytes())
    except safetensors.SafetensorError as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"--checkpoint={path} is no whole safetensors file ({reason}); fetch or save it again"
        ) from error
    return {name: _array(path, name, **about) for name, about in sorted(found)}


def _array(path: Path, name: str, dtype: str, shape: list[int], data: bytes) -> np.ndarray:
    if dtype == "BF16":  # the upper half of a float32
        wide = np.frombuffer(data, "<u2").astype(np.uint32) << np.uint32(16)
        return wide.view(np.float32).reshape(shape)
    if dtype not in TYPES:
        raise UserError(
            f"--checkpoint={path}: tensor {name!r} is of type {dtype}, known are BF16, "
            f"{', '.join(TYPES)}; save it as F32"
        )
    values = np.frombuffer(data, TYPES[dtype]).reshape(shape)
    return values.astype(values.dtype.newbyteorder("="))
