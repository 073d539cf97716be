"""Who may import whom: no two files in a circle, no wall between rooms broken.

All imports count: at the top of a file, inside functions, and those for the type checker alone.
"""

import ast
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.doors import ROOT

DOMAINS = ("tds_jax.pose", "tds_jax.forecast", "tds_jax.voxel")
ABOVE_ALL = ("tds_jax.cli", "tds_jax.jobs")


class Wall(NamedTuple):
    """Files whose names begin with `inside` (less those of `but`) never import `outside`."""

    inside: str
    outside: tuple[str, ...]
    but: tuple[str, ...] = ()


WALLS = (
    # Layers are functions of arrays: they know no run.
    Wall("tds_jax.nn", (*DOMAINS, *ABOVE_ALL, "tds_jax.engine", "tds_jax.budget", "tds_jax.tasks")),
    Wall("tds_jax.nn", ("tds_jax.data", "tds_jax.interchange")),
    # Foreign formats know tensors, not which layer of whom they are.
    Wall("tds_jax.interchange", (*DOMAINS, *ABOVE_ALL, "tds_jax.engine", "tds_jax.budget")),
    # A domain is a registry entry to those who train and plan.
    Wall("tds_jax.engine", (*DOMAINS, *ABOVE_ALL)),
    Wall("tds_jax.budget", (*DOMAINS, *ABOVE_ALL)),
    # What is trained is anyone's: neither has seen a layer.
    Wall("tds_jax.engine", ("tds_jax.nn", "tds_jax.interchange")),
    Wall("tds_jax.budget", ("tds_jax.nn", "tds_jax.interchange")),
    # Files and batches; data workers never touch jax.
    Wall("tds_jax.data", (*DOMAINS, *ABOVE_ALL, "jax", "flax", "optax")),
    Wall("tds_jax.data", ("tds_jax.engine", "tds_jax.budget", "tds_jax.nn")),
    Wall("tds_jax.pose", ("tds_jax.forecast", "tds_jax.voxel", *ABOVE_ALL)),
    Wall("tds_jax.forecast", ("tds_jax.pose", "tds_jax.voxel", *ABOVE_ALL)),
    Wall("tds_jax.voxel", ("tds_jax.pose", "tds_jax.forecast", *ABOVE_ALL)),
    Wall("tds_jax.voxel.data", ("jax", "flax", "tds_jax.voxel.networks", "tds_jax.voxel.methods")),
    Wall("tds_jax.voxel.networks", ("tds_jax.engine", "tds_jax.budget", "tds_jax.voxel.methods")),
    Wall("tds_jax.voxel.networks", ("tds_jax.voxel.task", "tds_jax.voxel.evaluation")),
    Wall("tds_jax.voxel.methods", ("tds_jax.voxel.task", "tds_jax.voxel.evaluation")),
    # One room for each library that others must be able to do without.
    Wall("tds_jax", ("orbax",), but=("tds_jax.engine.checkpoint",)),
    Wall("tds_jax", ("h5py", "grain"), but=("tds_jax.data",)),
    Wall("tds_jax", ("safetensors",), but=("tds_jax.interchange",)),
    Wall("tds_jax", ("laspy",), but=("tds_jax.voxel.data.las",)),
    Wall("tds_jax", ("torch", "tests", "experiments", "configs")),
)


def files(root: Path) -> dict[str, Path]:
    """Dotted name -> file of every module below a package's folder."""
    found = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: set[str]) -> set[str]:
    """What a file imports: files of ours by their whole name, other packages as written."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in known else node.module)
    return found


def graph(root: Path) -> dict[str, set[str]]:
    """File -> what it imports."""
    known = files(root)
    return {name: imports(path, set(known)) - {name} for name, path in known.items()}


def within(name: str, room: str) -> bool:
    return name == room or name.startswith(f"{room}.")


def broken(edges: dict[str, set[str]], walls: tuple[Wall, ...]) -> list[str]:
    """'file -> import' wherever a wall is broken."""
    return sorted(
        f"{name} -> {target}"
        for wall in walls
        for name, targets in edges.items()
        if within(name, wall.inside) and not any(within(name, room) for room in wall.but)
        for target in targets
        if any(within(target, room) for room in wall.outside)
    )


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of files each of which reaches all the others by imports."""
    reach = {name: set(targets) & edges.keys() for name, targets in edges.items()}
    for middle in edges:
        for name in edges:
            if middle in reach[name]:
                reach[name] |= reach[middle]
    groups = {tuple(sorted(b for b in reach[a] if a in reach[b])) for a in edges if a in reach[a]}
    return [list(group) for group in sorted(groups)]


@pytest.fixture(scope="module")
def ours():
    return graph(ROOT / "tds_jax")


def test_no_two_files_import_each_other_in_a_circle(ours):
    assert circles(ours) == []


def test_no_wall_is_broken(ours):
    assert broken(ours, WALLS) == []


@pytest.mark.parametrize("wall", WALLS, ids=lambda wall: wall.inside)
def test_every_room_in_the_walls_is_there(ours, wall):
    """A room under a new name would be walled off from nothing."""
    for room in (wall.inside, *wall.outside, *wall.but):
        assert not room.startswith("tds_jax") or any(within(name, room) for name in ours), room


def planted(folder: Path, **changes: str) -> dict[str, set[str]]:
    """The graph of a small house of three files, one of them changed."""
    sources = {"low": "import numpy", "middle": "from house import low", "high": ""} | changes
    (folder / "house").mkdir()
    (folder / "house" / "__init__.py").write_text("")
    for name, source in sources.items():
        (folder / "house" / f"{name}.py").write_text(source)
    return graph(folder / "house")


LATE = "def f():\n    from house.middle import x\n"
TYPES = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house import middle\n"


@pytest.mark.parametrize("source", ["import house.middle", LATE, TYPES])
def test_a_circle_is_found_however_it_is_hidden(tmp_path, source):
    assert circles(planted(tmp_path, low=source)) == [["house.low", "house.middle"]]


@pytest.mark.parametrize("source", ["import numpy.linalg as la", "from numpy import ones", TYPES])
def test_a_broken_wall_is_found_by_name(tmp_path, source):
    edges = planted(tmp_path, high=source)
    walls = (Wall("house.high", ("numpy", "house.middle")),)
    target = "house.middle" if source == TYPES else source.split()[1]
    assert broken(edges, walls) == [f"house.high -> {target}"]
    assert broken({"house.high": {"math"}, "house.low": {"numpy"}}, walls) == []
