"""The same bytes are the same data, wherever and whenever; other bytes are not."""

import os
import shutil

import numpy as np
import pytest

from tds_jax.data import identity
from tds_jax.errors import UserError

LARGE = 2**22


def written(folder, size=LARGE):
    path = folder / "data.bin"
    path.write_bytes(np.random.default_rng(0).bytes(size))
    return path


def identity_of(path, known=""):
    return identity.of_files({"x": str(path)}, {"x": known})["x"]


def flip(where):
    def change(values):
        values[where] ^= 1

    return change


def double(values):
    values[:] = (2 * np.frombuffer(bytes(values), np.uint8)).tobytes()


@pytest.mark.parametrize("change", [flip(0), flip(-1), flip(60_000), double])
def test_a_header_a_footer_and_all_values_count(tmp_path, change):
    path = written(tmp_path)
    before, values = identity_of(path), bytearray(path.read_bytes())
    change(values)
    path.write_bytes(values)
    assert identity.differences({"x": before}, {"x": identity_of(path)}) == ["x has changed"]


@pytest.mark.parametrize("where", range(0, 1000, 111))
def test_every_byte_of_a_small_file_counts(tmp_path, where):
    path = written(tmp_path, 1000)
    before, values = identity_of(path), bytearray(path.read_bytes())
    flip(where)(values)
    path.write_bytes(values)
    assert identity.content(before) != identity.content(identity_of(path))


def test_a_copy_is_the_same_and_a_file_of_another_size_is_not(tmp_path):
    path, copy = written(tmp_path), tmp_path / "copy"
    shutil.copyfile(path, copy)
    os.utime(copy, (1, 1))
    first, second = identity_of(path), identity_of(copy)
    assert first != second
    assert identity.differences({"x": first}, {"x": second}) == []
    os.truncate(copy, LARGE - 1)
    assert identity.content(identity_of(copy)) != identity.content(first)


def test_a_file_of_known_size_and_time_is_not_read(tmp_path, monkeypatch):
    path = written(tmp_path)
    known = identity_of(path)
    monkeypatch.setattr(identity, "_sampled", lambda *args: pytest.fail("it was read"))
    assert identity_of(path, known) == known


def test_other_bytes_under_the_old_size_and_time_of_modification_are_seen(tmp_path):
    path, other = written(tmp_path), tmp_path / "other"
    known, stat = identity_of(path), path.stat()
    other.write_bytes(path.read_bytes()[::-1])
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    os.replace(other, path)
    assert identity.differences({"x": known}, {"x": identity_of(path, known)})


def test_little_of_a_large_file_is_read_and_all_over_it():
    size = 10**12
    blocks = identity._blocks(size)
    assert sum(length for _, length in blocks) <= 200_000
    starts = [start for start, _ in blocks]
    assert starts == sorted(set(starts))
    assert np.diff(starts).max() < size / 6
    assert sum(blocks[-1]) == size


def test_files_of_folders_are_named_from_what_they_share(tmp_path):
    (tmp_path / "a.zarr" / "t").mkdir(parents=True)
    (tmp_path / "a.zarr" / "t" / "0").touch()
    (tmp_path / "b.nc").touch()
    found = identity.below([str(tmp_path / "a.zarr"), str(tmp_path / "b.nc")])
    assert sorted(found) == ["a.zarr/t/0", "b.nc"]


def test_a_file_that_is_gone_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"none: cannot be read .*; restore the file"):
        identity_of(tmp_path / "none")
