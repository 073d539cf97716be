"""Names of frames in their order, and which files of a folder are frames."""

from collections.abc import Iterable
from pathlib import Path

from tds_jax.data.order import by_number


def frames_of(folder: Path, endings: Iterable[str]) -> dict[str, Path]:
    """{name without ending: file}, in order; endings count in any case, hidden files do not."""
    wanted = tuple(endings)
    paths = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in wanted and not path.name.startswith(".")
    ]
    return {path.stem: path for path in sorted(paths, key=lambda path: by_number(path.stem))}
