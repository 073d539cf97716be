"""Ways in which a file comes damaged: by disks, by networks, and by people who want harm."""

import io
import zipfile
from pathlib import Path

import numpy as np

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
HEADER = 4096  # where formats keep what they believe


def damage(target: Path, rng: np.random.Generator) -> str:
    """Changes one file in place, of those below a folder; says what was done, for a reader."""
    files = [target] if target.is_file() else sorted(p for p in target.rglob("*") if p.is_file())
    path = files[rng.integers(len(files))]
    content = path.read_bytes()
    inside = zipfile.is_zipfile(path) and rng.random() < 0.6
    changed, how = _inside_zip(content, rng) if inside else _bytes(content, rng)
    path.write_bytes(changed)
    return f"{path.name}: {how}"


def _inside_zip(content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """Damages a member and packs it anew, so that checksums are right and the content is not."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = list(members)[rng.integers(len(members))]
    members[name], how = _bytes(members[name], rng)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for member, value in members.items():
            archive.writestr(member, value)
    return packed.getvalue(), f"{name}: {how}"


def _bytes(content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    ways = (_flip, _extreme, _zero_page, _cut, _repeat, _noise)
    way = ways[rng.integers(len(ways))]
    values = bytearray(content or b"\0")
    where = _place(len(values), rng)
    return bytes(way(values, where, rng)), f"{way.__name__[1:]} at {where} of {len(values)}"


def _place(size: int, rng: np.random.Generator) -> int:
    """Mostly in the header: a changed sample is another sample."""
    return int(rng.integers(min(size, HEADER) if rng.random() < 0.8 else size))


def _flip(values: bytearray, where: int, rng: np.random.Generator) -> bytearray:
    for place in (where, *(_place(len(values), rng) for _ in range(rng.integers(3)))):
        values[place] ^= 1 << int(rng.integers(8))
    return values


def _extreme(values: bytearray, where: int, rng: np.random.Generator) -> bytearray:
    """A number as counts, sizes and offsets are written, set to one that breaks arithmetic."""
    size = int(rng.choice([1, 2, 4, 8]))
    number = EXTREMES[rng.integers(len(EXTREMES))] % 256**size
    values[where : where + size] = number.to_bytes(size, "little" if rng.random() < 0.5 else "big")
    return values


def _zero_page(values: bytearray, where: int, rng: np.random.Generator) -> bytearray:
    size = int(rng.choice([16, 512, 4096]))
    values[where : where + size] = bytes(len(values[where : where + size]))
    return values


def _cut(values: bytearray, where: int, rng: np.random.Generator) -> bytearray:
    return values[:where]


def _repeat(values: bytearray, where: int, rng: np.random.Generator) -> bytearray:
    size = int(rng.integers(1, 64))
    return values[:where] + values[where : where + size] + values[where:]


def _noise(values: bytearray, where: int, rng: np.random.Generator) -> bytearray:
    size = int(rng.integers(1, 32))
    values[where : where + size] = rng.bytes(len(values[where : where + size]))
    return values
