"""Names of frames in their order, and which files of a folder are frames."""

import re
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)")


def by_number(name: str) -> list[tuple[int, str | Decimal]]:
    """A sort key under which 2 comes before 10, and 1.25 before 1.5; exact for any digits."""
    parts = _NUMBER.split(name)
    key: list[tuple[int, str | Decimal]] = [
        (1, Decimal(part)) if place % 2 else (0, part) for place, part in enumerate(parts)
    ]
    return [*key, (0, name)]  # 7 and 007 are two names


def frames_of(folder: Path, endings: Iterable[str]) -> dict[str, Path]:
    """{name without ending: file}, in order; endings count in any case, hidden files do not."""
    wanted = tuple(endings)
    paths = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in wanted and not path.name.startswith(".")
    ]
    return {path.stem: path for path in sorted(paths, key=lambda path: by_number(path.stem))}
