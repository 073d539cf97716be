"""Whole files: a writer that ends badly changes nothing, and writers do not meet."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tds_jax.data.whole_file import (
    FULL,
    OLD,
    _sweep_once,
    naming,
    set_aside,
    sweep,
    temporary_of,
    was_killed,
    whole_file,
    whole_folder,
)
from tests.test_cli import ROOT

WRITER = """
import os, sys
from tds_jax.data.whole_file import whole_file
with whole_file(sys.argv[1]) as temporary:
    temporary.write_text(sys.argv[2])
    if sys.argv[2] == "half":
        os.kill(os.getpid(), 9)
"""
DEAD = 2**30  # more than any process


def other_process(path, text):
    """The exit code of another process that writes the file; 'half' kills it while it writes."""
    return subprocess.run([sys.executable, "-c", WRITER, path, text], cwd=ROOT).returncode


def test_a_writer_that_raises_leaves_the_old_file_and_no_temporary(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def writes():
        with whole_file(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writes()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_writer_leaves_the_old_file_and_its_temporary_can_be_swept(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    assert other_process(path, "half") == -signal.SIGKILL
    assert path.read_text() == "old"
    assert len(list(tmp_path.glob("*.tmp"))) == 1
    with whole_file(path) as temporary:
        temporary.write_text("new")
        sweep(tmp_path)
        assert list(tmp_path.glob("*.tmp")) == [temporary]  # of a writer that lives
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


REPLACER = """
import os, pathlib, sys
from tds_jax.data.whole_file import whole_folder
rename, calls = pathlib.Path.rename, []
def killed(self, target):
    calls.append(self)
    if len(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
    return rename(self, target)
pathlib.Path.rename = killed
with whole_folder(sys.argv[1]) as temporary:
    (temporary / "a").write_text("new")
"""


@pytest.mark.parametrize("again", ["a.zarr", "b.zarr"])
@pytest.mark.parametrize("moment", [1, 2])  # before the old folder's name changes, and after
def test_a_folder_whose_writer_was_killed_while_names_change_is_there_again(
    tmp_path, moment, again
):
    path = tmp_path / "a.zarr"
    path.mkdir()
    (path / "a").write_text("old")
    done = subprocess.run([sys.executable, "-c", REPLACER, path, str(moment)], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert path.exists() == (moment == 1)
    _sweep_once.cache_clear()
    with whole_folder(tmp_path / again) as temporary:
        assert (path / "a").read_text() == "old"
        (temporary / "a").write_text("newer")
    assert {one.name: (one / "a").read_text() for one in tmp_path.iterdir()} == {
        "a.zarr": "old",
        again: "newer",
    }


@pytest.mark.parametrize("moment", [1, 2])  # before the old folder's name changes, and after
@pytest.mark.parametrize("error", [OSError(errno.EIO, "of the drive"), KeyboardInterrupt()])
def test_what_raises_while_names_change_leaves_the_old_folder(tmp_path, monkeypatch, moment, error):
    path, calls, rename = tmp_path / "a.zarr", [], Path.rename
    path.mkdir()
    (path / "a").write_text("old")

    def failing(self, target):
        calls.append(self)
        if len(calls) == moment:
            raise error
        return rename(self, target)

    def replace():
        with whole_folder(path) as temporary:
            (temporary / "a").write_text("new")

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(type(error)):
        replace()
    assert list(tmp_path.iterdir()) == [path]
    assert (path / "a").read_text() == "old"


@pytest.mark.parametrize("renamed", [False, True])  # the old folder, when the writer was killed
def test_a_folder_is_replaced_though_a_killed_writer_had_our_number(tmp_path, renamed):
    path = tmp_path / "a.zarr"
    old = temporary_of(path, os.getpid(), OLD) if renamed else path
    left = temporary_of(path, os.getpid())
    for folder, text in ((old, "old"), (left, "half")):
        folder.mkdir()
        (folder / "a").write_text(text)
    with whole_folder(path) as temporary:
        assert (path / "a").read_text() == "old"
        assert not any(temporary.iterdir())
        (temporary / "a").write_text("new")
    assert list(tmp_path.iterdir()) == [path]
    assert (path / "a").read_text() == "new"


def test_what_was_to_be_replaced_goes_if_its_name_is_taken_or_was_cut(tmp_path):
    taken = temporary_of(tmp_path / "a", DEAD, OLD)
    cut = temporary_of(tmp_path / ("b" * 250), DEAD, OLD)
    for folder in (tmp_path / "a", taken, cut):
        folder.mkdir()
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_what_the_killed_left_in_a_folder_goes_when_anything_is_written_there(tmp_path):
    left, alive = temporary_of(tmp_path / "b[1]", DEAD), temporary_of(tmp_path / "c", 1)
    elsewhere = tmp_path / f"d.elsewhere-{DEAD}.tmp"
    for path in (left, alive, elsewhere):
        path.touch()
    with whole_file(tmp_path / "a") as temporary:
        temporary.touch()
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "a", alive, elsewhere])


def test_of_two_writers_at_once_either_leaves_a_whole_file(tmp_path):
    path = tmp_path / "a.txt"
    with whole_file(path) as temporary, temporary.open("w") as file:
        file.write("first, ")
        file.flush()
        assert other_process(path, "second") == 0
        assert path.read_text() == "second"
        file.write("whole")
    assert path.read_text() == "first, whole"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path, full_disk):
    path = tmp_path / "a"
    path.write_text("old")

    def save():
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, x=np.ones(100_000))

    with pytest.raises(OSError, match="File too large") as caught, full_disk(10_000):
        save()
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_hdf5_says_of_a_full_disk_becomes_one_line(tmp_path):
    said = OSError(errno.ENOSPC, "Can't write data (file write failed: time\n, filename = ...")
    with pytest.raises(OSError) as caught, whole_file(tmp_path / "a.h5"):
        raise said
    assert str(caught.value) == f"[Errno 28] No space left on device: '{tmp_path / 'a.h5'}'"


def test_what_hdf5_says_of_a_file_that_it_may_not_make_names_the_users(tmp_path):
    def save(named):
        with whole_file(tmp_path / "a.h5") as temporary:
            raise PermissionError(errno.EACCES, f"Unable to create (name = '{named or temporary}')")

    with pytest.raises(PermissionError) as caught:
        save("")
    assert caught.value.filename == str(tmp_path / "a.h5")
    with pytest.raises(PermissionError, match="another") as caught:
        save("another")
    assert caught.value.filename is None


def test_a_place_that_cannot_be_written_is_named_as_the_user_knows_it(tmp_path):
    for path in (tmp_path / "none" / "a", tmp_path / "file" / "a"):
        (tmp_path / "file").touch()
        with pytest.raises(OSError) as caught, whole_file(path) as temporary:
            temporary.write_text("new")
        assert caught.value.filename == str(path)


def test_other_errors_within_the_block_stay_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, whole_file(tmp_path / "a"):
        (tmp_path / "source").read_text()
    assert caught.value.filename == str(tmp_path / "source")


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127])
def test_the_longest_name_can_be_written(tmp_path, name):
    with whole_file(tmp_path / name) as temporary:
        temporary.write_text("whole")
    assert (tmp_path / name).read_text() == "whole"
    assert was_killed(temporary_of(tmp_path / name, DEAD).name.removesuffix(".tmp"))


@pytest.fixture
def synced(monkeypatch):
    """(device's number of a file, its size) of all that were written to the disk, names as they
    change."""
    found, fsync, replace, rename = [], os.fsync, os.replace, Path.rename

    def note(descriptor):
        stat = os.fstat(descriptor)
        found.append((stat.st_ino, stat.st_size))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "replace", lambda *args: (found.append("name"), replace(*args)))
    monkeypatch.setattr(Path, "rename", lambda *args: (found.append("name"), rename(*args)))
    return found


def test_a_file_is_on_the_disk_before_it_takes_its_name(tmp_path, synced):
    with whole_file(tmp_path / "a") as temporary:
        temporary.write_text("whole")
    assert synced == [((tmp_path / "a").stat().st_ino, 5), "name"]


def test_a_folder_is_on_the_disk_before_it_takes_its_name(tmp_path, synced):
    with whole_folder(tmp_path / "a.zarr") as temporary:
        (temporary / "b").mkdir()
        for name in ("x", "b/y"):
            (temporary / name).write_text("whole")
    places = (tmp_path / "a.zarr" / name for name in ("x", "b/y"))
    assert sorted(synced[:2]) == sorted((place.stat().st_ino, 5) for place in places)
    assert synced[2:] == ["name"]


@pytest.mark.parametrize(("number", "said"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_file_system_that_knows_no_fsync_is_no_fault_and_one_that_fails_is(
    tmp_path, monkeypatch, number, said
):
    def fail(descriptor):
        raise OSError(number, os.strerror(number))

    def save():
        with whole_file(tmp_path / "a") as temporary:
            temporary.write_text("new")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError) if said else contextlib.nullcontext():
        save()
    assert (tmp_path / "a").exists() != said


def test_temporaries_of_processes_differ(tmp_path):
    assert temporary_of(tmp_path / "a", os.getpid()) != temporary_of(tmp_path / "a", 1)


def test_files_are_renamed_in_one_place_only():
    renaming = ("os.replace(", "os.rename(", "shutil.move(", ".rename(")
    found = {
        path.relative_to(ROOT / "tds_jax").as_posix()
        for path in (ROOT / "tds_jax").rglob("*.py")
        if any(word in path.read_text() for word in renaming)
    }
    assert found == {"data/whole_file.py", "data/generated.py"}  # the latter renames a folder


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("Can't write data (errno = 28, error message = 'No space left on device')"),
        ValueError("RESOURCE_EXHAUSTED: Error writing: No space left on device"),
        RuntimeError("Can't decrement id ref count (error message = 'File too large')"),
    ],
)
def test_a_full_disk_names_the_file_whatever_library_says_so(tmp_path, error):
    with pytest.raises(OSError, match=r"No space left|File too large") as caught, naming(tmp_path):
        raise error
    assert caught.value.filename == str(tmp_path)
    assert caught.value.errno in FULL


def test_other_errors_of_a_writer_are_left_as_they_are(tmp_path):
    with pytest.raises(ValueError, match="odd"), naming(tmp_path):
        raise ValueError("odd")


def test_what_is_set_aside_replaces_nothing(tmp_path):
    for words in ("first", "second"):
        (tmp_path / "8").write_text(words)
        set_aside(tmp_path / "8", tmp_path / "damaged")
    kept = {path.name: path.read_text() for path in (tmp_path / "damaged").iterdir()}
    assert kept == {"8": "first", "8.1": "second"}
    assert not (tmp_path / "8").exists()
