"""Laws of folders of generated data: whole or absent, built once."""

import errno
import os

import pytest

from tds_jax.data.generated import build_once, cached_folder
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
