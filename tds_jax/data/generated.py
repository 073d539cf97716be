"""Generated data: recipe -> cache -> folder; whole or absent, and built once however many ask.

Processes that are told of each other build one folder together.
"""

import ast
import dataclasses
import functools
import glob
import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Protocol

from tds_jax.data.crew import ALONE, Crew
from tds_jax.data.whole_file import naming, to_disk, was_killed, writer
from tds_jax.errors import UserError
from tds_jax.progress import Progress, progress_bar, silent

MARKER = "simulation.json"  # written last; holds everything the data depend on
STALE_SECONDS = 3600.0  # a build adds a file every few seconds; silent so long, it is dead


class Recipe(Protocol):
    """A frozen dataclass whose fields, with the code behind it, are all that the data depend on.

    kind: names the folder in a cache.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    kind: ClassVar[str]

    def build(self, folder: Path, progress: Progress, crew: Crew) -> None:
        """Writes a crew member's part of the data into a folder, which is empty at first."""


def synthesize(
    folder: str | Path, recipe: Recipe, progress: Progress = silent, crew: Crew = ALONE
) -> Path:
    """The data of a recipe in `folder`, see `build_once`."""

    def build(place: Path, crew: Crew) -> None:
        recipe.build(place, progress, crew)

    return build_once(folder, _describe(recipe), build, crew)


def cached(
    cache_dir: str | Path, recipe: Recipe, progress: Progress = silent, crew: Crew = ALONE
) -> Path:
    """`synthesize` into the folder of `cache_dir` named after the recipe."""
    folder = cached_folder(cache_dir, recipe.kind, _describe(recipe))
    return synthesize(folder, recipe, progress, crew)


def stand_in(cache: Path, recipe: Recipe, what: str, crew: Crew) -> str:
    """The folder of data that stand in for data.path, generated on first use behind a bar."""
    with progress_bar(f"generating {what} (data.path is not set)") as progress:
        return str(cached(cache / "generated", recipe, progress, crew))


def cache_root(cache_dir: str) -> Path:
    """data.cache_dir, by default in the user's own cache: where what can be made again is kept."""
    return Path(cache_dir or Path.home() / ".cache" / "tds_jax")


def _describe(recipe: Recipe) -> str:
    made_by = code_digest(type(recipe).__module__)
    return json.dumps({"made_by": made_by, **dataclasses.asdict(recipe)}, indent=1)


@functools.cache
def code_digest(module: str) -> str:
    """Changes with the code of a module, and of what it imports of its own room, if not with words.

    Comments and layout are no code; docstrings are. The room: the first two parts of its name.
    """
    room = ".".join(module.split(".")[:2])
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        if (name := waiting.pop()) not in found:
            tree = _parsed(name)
            found[name] = ast.dump(tree)
            waiting += _imported(tree, room)
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()[:12]


def _parsed(module: str) -> ast.Module:
    spec = importlib.util.find_spec(module)
    return ast.parse(Path(spec.origin).read_text()) if spec and spec.origin else ast.Module([], [])


def _imported(tree: ast.Module, room: str) -> Iterator[str]:
    """Modules of a room that code imports from, by their whole names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"{room}."):
            within = importlib.util.find_spec(str(node.module))
            folder = within.submodule_search_locations if within else None
            inside = [f"{node.module}.{alias.name}" for alias in node.names] if folder else []
            yield from [str(node.module), *filter(importlib.util.find_spec, inside)]


def cached_folder(cache_dir: str | Path, name: str, description: str) -> Path:
    """The folder of `cache_dir` for data of this kind and description."""
    digest = hashlib.sha256(description.encode()).hexdigest()[:12]
    return Path(cache_dir) / f"{name}_{digest}"


def build_once(
    folder: str | Path, description: str, build: Callable[[Path, Crew], None], crew: Crew = ALONE
) -> Path:
    """Fills `folder` by `build(empty folder, crew)` unless it holds this description; returns it.

    All files appear at once: the build happens in a hidden sibling folder and ends with a rename,
    so a killed build leaves `folder` absent, and of two builders at once either may win. A crew
    builds together, on each machine those who see the same folder. Raises UserError if `folder`
    holds anything else.
    """
    folder = Path(folder)
    if all(crew.gather(_holds(folder, description))):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    near = crew.seeing(folder.parent)
    begun = _begun(folder, description) if near.first else None
    try:
        building = near.gather(begun)[0]
        if building:
            with naming(folder):
                build(building, near)
        near.gather(None)  # all have written their part
        if begun:
            with naming(folder):
                (begun / MARKER).write_text(description)
                to_disk(begun)
            _publish(begun, folder, description)
    finally:
        if begun:
            shutil.rmtree(begun, ignore_errors=True)
    near.gather(None)  # it is there
    return folder


def _begun(folder: Path, description: str) -> Path | None:
    """A new hidden sibling to build in; None where the folder is there already."""
    if _holds(folder, description):
        return None
    prefix = f".{folder.name}.building-"
    _sweep(folder.parent, prefix)
    with naming(folder, folder.parent / prefix):
        return Path(tempfile.mkdtemp(f".{writer(os.getpid())}", prefix, folder.parent))


def _holds(folder: Path, description: str) -> bool:
    """Whether `folder` is complete; False if it is absent or empty."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    marker = folder / MARKER
    if marker.is_file() and marker.read_text() == description:
        return True
    raise UserError(
        f"{folder} exists and is not this synthetic data set; choose another folder or remove it"
    )


def _sweep(parent: Path, prefix: str) -> None:
    """Removes what killed builds left behind; those of other machines once they are old."""
    for leftover in parent.glob(f"{glob.escape(prefix)}*"):
        silent = time.time() - leftover.stat().st_mtime
        if was_killed(leftover.name) or silent > STALE_SECONDS:
            shutil.rmtree(leftover, ignore_errors=True)


def _publish(building: Path, folder: Path, description: str) -> None:
    building.chmod(0o755)  # mkdtemp makes it private
    try:
        building.rename(folder)
    except OSError:  # another builder was first
        if not _holds(folder, description):
            raise


def settings(kind: type, data: Any) -> dict[str, Any]:
    """The options of a simulation that stand in `data`, there with `synthetic_` before them."""
    names = [field.name for field in dataclasses.fields(kind)]
    return {n: getattr(data, f"synthetic_{n}") for n in names if hasattr(data, f"synthetic_{n}")}
