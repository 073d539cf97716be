"""A folder's files as they were when it was whole: sizes and sums, to tell damage by name."""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from tds_jax.data import json_file

SEAL = "sums.json"
BLOCK = 2**22


def seal(folder: Path, part: str) -> None:
    """Notes size and CRC-32 of every file below folder/part, in folder/sums.json."""
    files = sorted(path for path in (folder / part).rglob("*") if path.is_file())
    sums = {str(path.relative_to(folder)): [path.stat().st_size, _sum(path)] for path in files}
    json_file.write(folder / SEAL, sums)


def damage(folder: Path) -> str | None:
    """What differs from the seal, the first file in a few words; None if nothing or no seal."""
    if not (folder / SEAL).exists():
        return None  # written by an older version, or killed before it was sealed
    try:
        sums = json.loads((folder / SEAL).read_text())
        return next(_differences(folder, sums), None)
    except (ValueError, TypeError, AttributeError):
        return f"{SEAL} cannot be read"


def _differences(folder: Path, sums: dict[str, list[int]]) -> Iterator[str]:
    for name, (size, crc) in sums.items():
        path = folder / name
        if not path.is_file():
            yield f"{name} is missing"
        elif path.stat().st_size != size:
            yield f"{name} has {path.stat().st_size} of {size} bytes"
        elif _sum(path) != crc:
            yield f"{name} holds other bytes than were written"


def _sum(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            crc = zlib.crc32(block, crc)
    return crc
