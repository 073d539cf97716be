"""Names of frames in their order, and which files of a folder are frames."""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path

from tds_jax.data.order import NUMBER, by_number
from tds_jax.errors import UserError


def numbers_in(name: str) -> tuple[Decimal, ...]:
    """The numbers of a name, whatever stands between: lidar_007 and 7 have the same."""
    return tuple(map(Decimal, NUMBER.findall(name)))


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
        if path.is_symlink() and path.exists() and path.resolve().parent == folder.resolve():
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
