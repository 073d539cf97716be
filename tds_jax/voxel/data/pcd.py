"""Point clouds of .pcd files (v0.7): columns under the file's own names, and back."""

import re
import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from tds_jax.errors import UserError
from tds_jax.voxel.data.lzf import decompress

Columns = dict[str, np.ndarray]


class Header(NamedTuple):
    """names: of the fields; types and counts: of a point's values in each; kind: of DATA."""

    names: list[str]
    types: list[str]
    counts: list[int]
    points: int
    kind: str


def read(path: Path) -> Columns:
    """Field -> (N,) its first value of every point, f64 from ascii files; or UserError."""
    header, body = _header(path)
    readers = {"binary": _binary, "ascii": _ascii, "binary_compressed": _compressed}
    if header.kind not in readers:
        raise UserError(
            f"{path}: DATA {header.kind} is not supported; write it as ascii, binary or "
            "binary_compressed"
        )
    return readers[header.kind](path, header, body)


def _header(path: Path) -> tuple[Header, bytes]:
    content = path.read_bytes()
    end = re.search(rb"^DATA .*\n", content, re.MULTILINE)
    if end is None:
        raise UserError(f"{path}: no DATA line, this is no PCD file; replace it or move it away")
    lines = content[: end.end()].decode("ascii", "replace").splitlines()
    words = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    found = {first: rest for first, *rest in words}
    found.setdefault("COUNT", ["1"] * len(found.get("FIELDS", [])))
    try:
        names = found["FIELDS"]
        sizes, counts = (list(map(int, found[key])) for key in ("SIZE", "COUNT"))
        types = [f"<{t.lower()}{size}" for t, size in zip(found["TYPE"], sizes, strict=True)]
        for each in map(np.dtype, types):
            assert each.itemsize  # a type that numpy does not know raises
        if not len(names) == len(types) == len(counts):
            raise ValueError("FIELDS, SIZE, TYPE and COUNT differ in length")
        if min(counts, default=0) < 1:
            raise ValueError(f"COUNT is {counts}")
        header = Header(names, types, counts, int(found["POINTS"][0]), found["DATA"][0])
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise UserError(f"{path}: the PCD header is wrong ({error}); write it again") from error
    return header, content[end.end() :]


def _binary(path: Path, header: Header, body: bytes) -> Columns:
    parts = zip(header.types, header.counts, strict=True)
    # The same name may come twice (padding fields are all called '_').
    row = np.dtype([(str(i), kind, (count,)) for i, (kind, count) in enumerate(parts)])
    if len(body) < header.points * row.itemsize:
        raise UserError(
            f"{path}: {len(body)} bytes of points, the header says {header.points} of "
            f"{row.itemsize}; copy the file again"
        )
    rows = np.frombuffer(body, row, header.points)
    return {name: rows[str(i)][:, 0] for i, name in enumerate(header.names)}


def _compressed(path: Path, header: Header, body: bytes) -> Columns:
    """Two sizes (u4, compressed and not), then LZF of one field of all points after another."""
    try:
        small, large = struct.unpack_from("<II", body)
        values = decompress(body[8 : 8 + small])
        ends = np.cumsum([np.dtype(t).itemsize * n * header.points for t, n in _parts(header)])
        if not len(values) == large == (ends[-1] if len(ends) else 0):
            raise ValueError(f"{len(values)} bytes of points, {large} said, {ends[-1]} expected")
    except (struct.error, ValueError) as error:
        raise UserError(
            f"{path}: its compressed points are damaged ({error}); copy the file again"
        ) from error
    found = {}
    for name, (kind, count), start in zip(header.names, _parts(header), [0, *ends], strict=False):
        rows = np.frombuffer(values, kind, header.points * count, int(start))
        found[name] = rows.reshape(header.points, count)[:, 0]
    return found


def _parts(header: Header) -> list[tuple[str, int]]:
    return list(zip(header.types, header.counts, strict=True))


def _ascii(path: Path, header: Header, body: bytes) -> Columns:
    values = np.array(body.split(), dtype="S")
    try:
        matrix = values.astype(np.float64).reshape(header.points, sum(header.counts))
    except ValueError as error:
        raise UserError(
            f"{path}: {len(values)} numbers, the header says {header.points} points of "
            f"{sum(header.counts)}; copy the file again"
        ) from error
    first = np.concatenate([[0], np.cumsum(header.counts)[:-1]])
    return {name: matrix[:, i] for name, i in zip(header.names, first, strict=True)}


def encoded(columns: Columns, about: Mapping[str, str | int] = MappingProxyType({})) -> bytes:
    """A binary file of (N,) columns, all as f32. about: comments, name and value."""
    names, count = " ".join(columns), len(next(iter(columns.values())))
    ones = ["1"] * len(columns)
    lines = [
        *(f"# {name} {value}" for name, value in about.items()),
        *("VERSION 0.7", f"FIELDS {names}", f"SIZE {' '.join(['4'] * len(ones))}"),
        *(f"TYPE {' '.join(['F'] * len(ones))}", f"COUNT {' '.join(ones)}", f"WIDTH {count}"),
        *("HEIGHT 1", "VIEWPOINT 0 0 0 1 0 0 0", f"POINTS {count}", "DATA binary", ""),
    ]
    rows = np.column_stack(list(columns.values())).astype("<f4")
    return "\n".join(lines).encode() + rows.tobytes()
