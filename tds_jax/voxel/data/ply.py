"""Point clouds of .ply files: columns of 'vertex' under the file's own names, and back."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from tds_jax.errors import UserError

ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}
TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
END = b"end_header"
Columns = dict[str, np.ndarray]


def read(path: Path) -> Columns:
    """Property -> (N,), f64 from ascii files; or UserError. 'vertex' must be the first element."""
    head, _, body = path.read_bytes().partition(END)
    body = body.split(b"\n", 1)[-1]
    try:
        order, count, fields = _header(head.decode("ascii", "replace"))
    except (ValueError, KeyError, IndexError) as error:
        raise UserError(f"{path}: the PLY header is wrong ({error}); write it again") from error
    if not order:
        return _ascii(path, body, count, list(fields))
    row = np.dtype([(name, order + kind) for name, kind in fields.items()])
    if len(body) < count * row.itemsize:
        raise UserError(
            f"{path}: {len(body)} bytes of points, the header says {count} of {row.itemsize}; "
            "copy the file again"
        )
    rows = np.frombuffer(body, row, count)
    return {name: rows[name] for name in fields}


def _header(text: str) -> tuple[str, int, dict[str, str]]:
    """(byte order or '', number of points, type of each property by name)."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if not lines or lines[0] != ["ply"]:
        raise ValueError("it does not begin with 'ply'")
    (order,) = (ORDERS[words[1]] for words in lines if words[0] == "format")
    elements = [i for i, words in enumerate(lines) if words[0] == "element"]
    if not elements or lines[elements[0]][1] != "vertex":
        raise ValueError("its first element is not 'vertex'")
    last = elements[1] if len(elements) > 1 else len(lines)
    properties = [words for words in lines[elements[0] : last] if words[0] == "property"]
    fields = {words[-1]: TYPES[words[1]] for words in properties}
    if len(fields) < len(properties):
        raise ValueError("two properties have one name")
    return order, int(lines[elements[0]][2]), fields


def _ascii(path: Path, body: bytes, count: int, names: list[str]) -> Columns:
    try:
        values = np.array([line.split() for line in body.splitlines()[:count]], np.float64)
        matrix = values.reshape(count, len(names))
    except ValueError as error:
        raise UserError(
            f"{path}: its lines are not {count} points of {len(names)} numbers ({error}); copy the "
            "file again"
        ) from error
    return dict(zip(names, matrix.T, strict=True))


def encoded(columns: Columns, about: Mapping[str, str | int] = MappingProxyType({})) -> bytes:
    """A binary file of (N,) columns, all as f32. about: comments, name and value."""
    count = len(next(iter(columns.values())))
    lines = [
        *("ply", "format binary_little_endian 1.0"),
        *(f"comment {name} {value}" for name, value in about.items()),
        f"element vertex {count}",
        *(f"property float {name}" for name in columns),
        *(END.decode(), ""),
    ]
    return (
        "\n".join(lines).encode() + np.column_stack(list(columns.values())).astype("<f4").tobytes()
    )
