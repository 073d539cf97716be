"""Configs by name: --config=low_memory is the low_memory.py of those that come with the package."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]  # a clone's, or where pip has put the package and its configs
FOLDER = ROOT / "configs"
FLAGS = ("--config", "-config")


def names() -> list[str]:
    """Every config that trains; those that others build on are left out."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.endswith("base"))


def file_of(value: str) -> str:
    """'low_memory[:ARGUMENT]' -> 'FOLDER/low_memory.py[:ARGUMENT]'; a file of that name wins."""
    name, colon, argument = value.partition(":")
    if name not in names() or Path(name).is_file():
        return value
    return f"{FOLDER / name}.py{colon}{argument}"


def files_in_place_of_names(argv: list[str]) -> list[str]:
    """A command line whose --config=NAME or --config NAME is a file."""
    found, before = [], ""
    for argument in argv:
        flag, equals, value = argument.partition("=")
        if before in FLAGS:
            argument = file_of(argument)
        elif flag in FLAGS and equals:
            argument = f"{flag}={file_of(value)}"
        found.append(argument)
        before = argument
    return found


@contextlib.contextmanager
def importable_first() -> Iterator[None]:
    """Inside, `from configs import default` finds ours, whatever `configs` the folder has."""
    sys.path.insert(0, str(ROOT))
    try:
        yield
    finally:
        sys.path.remove(str(ROOT))
