"""Names of frames in their order, and which files of a folder are frames."""

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path

from tds_jax.errors import UserError

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)")


def by_number(name: str) -> list[tuple[int, str | Decimal]]:
    """A sort key under which 2 comes before 10, and 1.25 before 1.5; exact for any digits."""
    parts = _NUMBER.split(name)
    key: list[tuple[int, str | Decimal]] = [
        (1, Decimal(part)) if place % 2 else (0, part) for place, part in enumerate(parts)
    ]
    return [*key, (0, name)]  # 7 and 007 are two names


def numbers_in(name: str) -> tuple[Decimal, ...]:
    """The numbers of a name, whatever stands between: lidar_007 and 7 have the same."""
    return tuple(map(Decimal, _NUMBER.findall(name)))


def frames_of(folder: Path, endings: Iterable[str]) -> dict[str, Path]:
    """{name without ending: file}, in order; endings count in any case, hidden files do not.

    UserError for two files of one frame: of one name, or one of them a link to the other.
    """
    wanted = tuple(endings)
    paths = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in wanted and not path.name.startswith(".")
    ]
    found: dict[str, Path] = {}
    for path in sorted(paths, key=lambda path: by_number(path.stem)):
        first = found.setdefault(path.stem, path)
        if first is not path:
            raise UserError(f"{path} and {first.name} are of one frame; remove one")
        if path.is_symlink() and path.resolve().parent == folder.resolve():
            raise UserError(
                f"{path}: a link to {path.resolve().name} beside it, and would count twice; "
                "remove it"
            )
    return found


def require_apart(folders: Sequence[Path]) -> None:
    """Raises UserError where two folders are one, by a link."""
    seen: dict[Path, Path] = {}
    for folder in folders:
        first = seen.setdefault(folder.resolve(), folder)
        if first is not folder:
            raise UserError(
                f"{folder}: the same folder as {first} by a link, and would count twice; remove one"
            )
