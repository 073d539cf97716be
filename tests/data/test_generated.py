"""Laws of folders of generated data: whole or absent, built once."""

import errno
import importlib
import os

import pytest

from tds_jax.data.generated import build_once, cached, cached_folder, code_digest
from tds_jax.data.whole_file import writer
from tds_jax.errors import UserError


def fill(folder, crew=None):
    (folder / "data.txt").write_text("made")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_build_leaves_nothing(tmp_path):
    def fail(folder, crew):
        fill(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_once(tmp_path / "data", "a", fail)
    assert names(tmp_path) == []


def test_what_is_built_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    before, fsync = set(), os.fsync

    def note(descriptor):
        assert not (tmp_path / "data").exists()
        before.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    build_once(tmp_path / "data", "x", fill)
    assert before == {path.stat().st_ino for path in (tmp_path / "data").iterdir()}


def test_leftovers_of_dead_builds_go_and_live_ones_stay(tmp_path):
    endings = ("dead", f"x.{writer(2**30)}", f"y.{writer(1)}", "live")
    leftovers = [tmp_path / f".data[1].building-{ending}" for ending in endings]
    for leftover in leftovers:
        leftover.mkdir()
    os.utime(leftovers[0], (0, 0))
    build_once(tmp_path / "data[1]", "a", fill)
    assert names(tmp_path) == sorted([leftovers[2].name, leftovers[3].name, "data[1]"])


def test_a_full_disk_names_the_folder(tmp_path, full_disk):
    def build():
        with full_disk(2):
            build_once(tmp_path / "data", "a description", lambda folder, crew: None)

    with pytest.raises(OSError) as caught:
        build()
    assert caught.value.filename == str(tmp_path / "data")
    assert names(tmp_path) == []


def test_losing_the_race_is_fine(tmp_path):
    def race(folder, crew):
        fill(folder)
        build_once(tmp_path / "data", "a", fill)

    assert build_once(tmp_path / "data", "a", race) == tmp_path / "data"
    assert names(tmp_path) == ["data"]
    assert names(tmp_path / "data") == ["data.txt", "simulation.json"]


def test_a_place_that_cannot_be_written_is_named_as_it_was_given(tmp_path, monkeypatch):
    def forbidden(suffix, prefix, folder):
        path = f"{folder}/{prefix}x{suffix}"
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr("tempfile.mkdtemp", forbidden)
    with pytest.raises(PermissionError) as caught:
        build_once(tmp_path / "made", "", lambda folder, crew: None)
    assert caught.value.filename == str(tmp_path / "made")


def test_a_whole_folder_is_not_built_again_and_another_is_refused(tmp_path):
    build_once(tmp_path / "data", "a", fill)
    build_once(tmp_path / "data", "a", lambda folder, crew: pytest.fail("built again"))
    with pytest.raises(UserError, match="data exists and is not this"):
        build_once(tmp_path / "data", "b", fill)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="mine exists"):
        build_once(tmp_path / "mine", "a", fill)


def test_the_cache_has_one_folder_per_kind_and_description(tmp_path):
    folders = {cached_folder(tmp_path, *key) for key in (("x", "a"), ("x", "b"), ("y", "a"))}
    assert len(folders) == 3
    assert cached_folder(tmp_path, "x", "a") in folders


MODULES = {
    "land/parts": "from made_room.land import rain\n\n\ndef length():\n    return rain.FALLS\n",
    "land/rain": "FALLS = 3\n",
    "land/other": "NOTHING = 1\n",
}


@pytest.fixture
def digest_of(tmp_path, monkeypatch):
    """The digest of a recipe's code, modules of it having been changed."""
    room = tmp_path / "made_room" / "land"
    room.mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)

    def digest(**changed):
        for name, code in (MODULES | changed).items():
            (tmp_path / "made_room" / f"{name}.py").write_text(code)
        code_digest.cache_clear()
        importlib.invalidate_caches()
        return code_digest("made_room.land.parts")

    yield digest
    code_digest.cache_clear()


def test_what_is_generated_is_known_by_the_code_that_made_it(digest_of):
    first = digest_of()
    changes = {name: code.replace("3", "4") + "X = 0\n" for name, code in MODULES.items()}
    for name in ("land/parts", "land/rain"):
        assert digest_of(**{name: changes[name]}) != first, name
    assert digest_of(**{"land/other": changes["land/other"]}) == first
    assert digest_of(**{"land/rain": "# millimetres\nFALLS = 3  # a day\n"}) == first


@pytest.mark.parametrize("family", ["pose", "forecast", "voxel.data"])
def test_every_family_names_its_cache_by_its_generators_code(family, tmp_path, monkeypatch):
    recipe = importlib.import_module(f"tds_jax.{family}.synthetic").Simulation()
    monkeypatch.setattr(type(recipe), "build", lambda self, folder, progress, crew: None)
    one = cached(tmp_path, recipe)
    assert cached(tmp_path, recipe) == one
    monkeypatch.setattr("tds_jax.data.generated.code_digest", lambda module: "another")
    assert cached(tmp_path, recipe) != one
