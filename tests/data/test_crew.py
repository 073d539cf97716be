"""Work that is divided is done once, heard by all, and is what one alone makes."""

import dataclasses
import os

import numpy as np
import pytest

from tds_jax.data import generated
from tds_jax.data.crew import ALONE, ROUND, require_same
from tds_jax.data.hdf5 import RowFiles
from tds_jax.data.index import index_folder
from tds_jax.errors import UserError
from tds_jax.forecast import synthetic as fields
from tds_jax.pose import synthetic as recordings
from tds_jax.progress import silent
from tds_jax.voxel.data import synthetic as drives
from tds_jax.voxel.data.looking import usable
from tds_jax.voxel.data.volumes import VolumeFiles, find_scenes
from tests.data.crews import together
from tests.data.sessions import write_folder
from tests.data.test_index import LAYOUT

RECIPES = [
    recordings.Simulation(users=1, sessions=3, seconds=1.0, units=2),
    fields.Simulation(months=4, missing_month="2019-02", height=2, width=3),
    drives.Simulation(scenes=3, frames=2, depth=4, height=8, width=8),
]


def contents(folder):
    """Every file of a folder, by its name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("count", [1, 2, 5])
def test_each_thing_is_done_once_and_all_hear_of_all_in_their_order(count):
    items, done = [f"item{i}" for i in range(2 * ROUND + 3)], []

    def work(crew):
        made = [*crew.rounds(items, lambda item: (done.append(item), item.upper())[1])]
        return [pair for some in made for pair in some.items()], items[crew.span(len(items))]

    found = together(count, work)
    assert sorted(done) == sorted(items)
    for heard, _ in found:
        assert heard == [(item, item.upper()) for item in items]
    assert [item for _, span in found for item in span] == items


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.kind)
def test_generated_data_are_the_same_bytes_by_however_many(tmp_path, recipe):
    alone = contents(generated.synthesize(tmp_path / "alone", recipe))
    shared = tmp_path / "new" / "shared"
    places = together(3, lambda crew: generated.synthesize(shared, recipe, silent, crew))
    assert places == [shared] * 3
    assert contents(shared) == alone
    assert [path.name for path in shared.parent.iterdir()] == ["shared"]
    again = together(3, lambda crew: generated.synthesize(shared, recipe, silent, crew))
    assert again == places


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.kind)
def test_each_file_of_generated_data_is_written_by_one(tmp_path, recipe):
    parts = []

    def work(crew):
        own = tmp_path / str(crew.index)
        own.mkdir()
        recipe.build(own, silent, crew)
        parts.append(set(contents(own)))

    together(3, work)
    names = [name for part in parts for name in part]
    assert len(names) == len(set(names))
    assert min(map(len, parts)) > 0


def test_machines_with_a_folder_each_build_it_each(tmp_path):
    built = []

    def work(crew):
        def build(folder, near):
            built.append((crew.index, near.index, near.count))
            (folder / f"part{near.index}").write_text("made")

        return generated.build_once(tmp_path / "ab"[crew.index // 2] / "data", "x", build, crew)

    together(4, work)
    assert sorted(built) == [(0, 0, 2), (1, 1, 2), (2, 0, 2), (3, 1, 2)]
    for machine in "ab":
        names = sorted(path.name for path in (tmp_path / machine / "data").iterdir())
        assert names == ["part0", "part1", "simulation.json"]


@pytest.mark.parametrize("who", [0, 1])
def test_a_build_that_one_cannot_finish_leaves_nothing(tmp_path, who):
    def build(folder, near):
        (folder / f"part{near.index}").write_text("made")
        if near.index == who:
            raise KeyboardInterrupt

    with pytest.raises(BaseException):  # noqa: B017 - what the others hear is theirs
        together(2, lambda crew: generated.build_once(tmp_path / "data", "x", build, crew))
    assert [*tmp_path.iterdir()] == []


def indexed(folder, cache, crew, seen):
    files = RowFiles(4, 1 << 20, 0.75)
    names = sorted(name for name in os.listdir(folder) if name.endswith(".hdf5"))
    note = lambda done, total, name: seen.append(name)  # noqa: E731
    try:
        return index_folder(str(folder), names, LAYOUT, files, str(cache), note, crew)[0]
    finally:
        files.close()


def columns(index):
    """Its arrays by name, those of its runs too."""
    plain = dataclasses.asdict(index)
    runs = {f"{n}_{part}": v for n in ("valid", "broken") for part, v in plain.pop(n).items()}
    return plain | runs


def test_an_index_is_that_of_one_and_each_file_is_read_once(tmp_path):
    write_folder(tmp_path / "d", [50, 60, 70, 80, 90])
    alone = columns(indexed(tmp_path / "d", tmp_path / "c1", ALONE, []))
    seen = []
    found = together(2, lambda crew: indexed(tmp_path / "d", tmp_path / "c2", crew, seen))
    assert sorted(seen) == sorted(os.listdir(tmp_path / "d"))
    for one in found:
        for name, value in columns(one).items():
            np.testing.assert_array_equal(value, alone[name])
    seen.clear()
    together(2, lambda crew: indexed(tmp_path / "d", tmp_path / "c2", crew, seen))
    indexed(tmp_path / "d", tmp_path / "c2", ALONE, seen)
    assert seen == []


def test_each_volume_is_looked_at_once(tmp_path):
    root = generated.synthesize(tmp_path / "made", RECIPES[2])
    scenes, seen = find_scenes(root), []

    def work(crew):
        note = lambda done, total, name: seen.append(name)  # noqa: E731
        return usable(root, scenes, VolumeFiles(4, 1 << 20), 0, tmp_path / "c", note, crew)

    first, second = together(2, work)
    assert first == second == (scenes, [])
    assert len(seen) == len(set(seen)) == 12
    work(ALONE)
    assert len(seen) == 12


def test_a_process_that_finds_other_files_says_so():
    with pytest.raises(UserError, match=r"x: process 0 finds 1 files here, process 0 2 \(first: b"):
        require_same(ALONE, "x", ["a"], ["a", "b"])
