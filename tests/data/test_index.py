import dataclasses
import os

import numpy as np
import pytest

from tds_jax.data import index as module
from tds_jax.data.hdf5 import RowFiles
from tds_jax.data.index import index_folder
from tds_jax.data.scan import Layout, Runs, scan_file
from tds_jax.errors import UserError
from tds_jax.progress import silent
from tests.data.sessions import make_rows, write_folder, write_rows


def not_all_zero(label):
    return np.any(label != 0, axis=1)


LAYOUT = Layout(
    "emg2pose", "timeseries", "emg", "joint_angles", "time", "sample_rate", ("session",),
    not_all_zero, (),
)  # fmt: skip


@pytest.fixture
def files():
    made = RowFiles(4, 1 << 20, 0.75)
    yield made
    made.close()


def index_of(folder, files, cache, seen=None):
    names = sorted(name for name in os.listdir(folder) if name.endswith(".hdf5"))
    note = silent if seen is None else lambda done, total, name: seen.append((done, total, name))
    return index_folder(str(folder), names, LAYOUT, files, str(cache), note)


@pytest.mark.parametrize("block_rows", [1, 7, 64, 1000])
def test_a_scan_finds_the_same_runs_in_blocks_of_any_size(tmp_path, files, block_rows):
    rows = make_rows(300)
    rows["joint_angles"][[0, 1, 2, 50, 298, 299]] = 0
    rows["joint_angles"][100:110, 1] = np.nan
    rows["emg"][[63, 64, 200], 2] = np.inf
    path = write_rows(tmp_path / "a.hdf5", rows)
    found = scan_file(files, path, LAYOUT, block_rows)
    assert (found.samples, found.channels, found.labels, found.rate_hz) == (300, 4, 3, 100.0)
    assert found.valid.tolist() == [[3, 50], [51, 100], [110, 298]]
    assert found.broken.tolist() == [[63, 65], [200, 201]]
    assert (found.bad_labels, found.backwards) == (10, -1)


@pytest.mark.parametrize("block_rows", [7, 64, 1000])
@pytest.mark.parametrize("value", [0.1, np.nan])
def test_the_first_row_whose_time_runs_backwards_is_found(tmp_path, files, block_rows, value):
    rows = make_rows(300)
    rows["time"][70] = rows["time"][69]  # equal stamps are rounding, not disorder
    rows["time"][128] = value
    path = write_rows(tmp_path / "a.hdf5", rows)
    assert scan_file(files, path, LAYOUT, block_rows).backwards == 128


def test_the_rate_comes_from_time_without_an_attribute(tmp_path, files):
    path = write_rows(tmp_path / "a.hdf5", make_rows(300, rate=250.0), attributes={})
    assert scan_file(files, path, LAYOUT).rate_hz == 250.0


def test_the_rate_may_be_stored_as_an_array_of_one(tmp_path, files):
    path = write_rows(tmp_path / "a.hdf5", make_rows(9), attributes={"sample_rate": np.array([50])})
    assert scan_file(files, path, LAYOUT).rate_hz == 50.0


def test_a_second_start_reads_nothing_and_finds_the_same(tmp_path, files):
    write_folder(tmp_path / "d", [50, 60, 70])
    seen = []
    first, _ = index_of(tmp_path / "d", files, tmp_path / "c", seen)
    assert seen == [(0, 3, "s0.hdf5"), (1, 3, "s1.hdf5"), (2, 3, "s2.hdf5")]
    second, warnings = index_of(tmp_path / "d", files, tmp_path / "c", seen)
    assert len(seen) == 3
    assert not warnings
    for name, value in vars(first).items():
        other = getattr(second, name)
        if isinstance(value, Runs):
            np.testing.assert_array_equal(value.start, other.start)
            np.testing.assert_array_equal(value.offsets, other.offsets)
        else:
            np.testing.assert_array_equal(value, other, err_msg=name)


def test_only_new_and_changed_files_are_read_again(tmp_path, files):
    write_folder(tmp_path / "d", [50, 60, 70])
    index_of(tmp_path / "d", files, tmp_path / "c")
    files.close()
    write_rows(tmp_path / "d" / "s1.hdf5", make_rows(65))
    write_rows(tmp_path / "d" / "s9.hdf5", make_rows(80))
    os.remove(tmp_path / "d" / "s2.hdf5")
    seen = []
    index, _ = index_of(tmp_path / "d", files, tmp_path / "c", seen)
    assert [name for _, _, name in seen] == ["s1.hdf5", "s9.hdf5"]
    assert index.samples.tolist() == [50, 65, 80]


def test_only_other_content_is_read_again(tmp_path, files, monkeypatch):
    write_folder(tmp_path / "d", [50, 60])
    index_of(tmp_path / "d", files, tmp_path / "c")
    files.close()
    changed, rows = tmp_path / "d" / "s0.hdf5", make_rows(50)
    time = changed.stat().st_mtime
    rows["joint_angles"][:9] = 0
    write_rows(changed, rows)
    os.utime(changed, (time, time))  # as large and as old
    os.utime(tmp_path / "d" / "s1.hdf5", (0, 0))
    scanned = []
    monkeypatch.setattr(
        module, "scan_file", lambda *args: scanned.append(args[1]) or scan_file(*args)
    )
    index, _ = index_of(tmp_path / "d", files, tmp_path / "c")
    assert scanned == [str(changed)]
    assert index.valid.of(0).tolist() == [[9, 50]]
    assert index.samples.tolist() == [50, 60]


def test_files_with_a_problem_are_looked_at_again(tmp_path, files):
    write_folder(tmp_path / "d", [50])
    (tmp_path / "d" / "bad.hdf5").write_text("no")
    for _ in range(2):
        seen = []
        index, _ = index_of(tmp_path / "d", files, tmp_path / "c", seen)
    assert [name for _, _, name in seen] == ["bad.hdf5"]
    assert [bool(problem) for problem in index.problem] == [True, False]


def test_a_bad_file_may_have_any_name(tmp_path, files):
    name = os.fsdecode(b"\xff\xc3\xbc.hdf5")
    (tmp_path / name).write_text("no recording")
    index, _ = index_of(tmp_path, files, tmp_path / "cache")
    assert name in os.fsdecode(index.problem[0])


def test_a_scan_cut_short_keeps_what_it_and_earlier_scans_found(tmp_path, files):
    write_folder(tmp_path / "d", [50, 60, 70])
    index_of(tmp_path / "d", files, tmp_path / "c")
    write_rows(tmp_path / "d" / "a.hdf5", make_rows(40))
    write_rows(tmp_path / "d" / "b.hdf5", make_rows(40))

    def stop(done, total, name):
        if done == 1:
            raise KeyboardInterrupt

    names = sorted(os.listdir(tmp_path / "d"))
    with pytest.raises(KeyboardInterrupt):
        index_folder(str(tmp_path / "d"), names, LAYOUT, files, str(tmp_path / "c"), stop)
    seen = []
    index_of(tmp_path / "d", files, tmp_path / "c", seen)
    assert [name for _, _, name in seen] == ["b.hdf5"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken"])
def test_an_unreadable_cache_is_rebuilt_with_a_warning(tmp_path, files, content):
    write_folder(tmp_path / "d", [50])
    index_of(tmp_path / "d", files, tmp_path / "c")
    (cache,) = (tmp_path / "c").iterdir()  # and no temporary file beside it
    cache.write_bytes(content)
    index, warnings = index_of(tmp_path / "d", files, tmp_path / "c")
    assert index.samples.tolist() == [50]
    assert len(warnings) == 1
    assert "unreadable index" in warnings[0]
    assert index_of(tmp_path / "d", files, tmp_path / "c")[1] == []


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path, files):
    write_folder(tmp_path / "d", [50])
    (tmp_path / "c").write_text("a file where the folder should be")
    index, warnings = index_of(tmp_path / "d", files, tmp_path / "c" / "x")
    assert index.samples.tolist() == [50]
    assert "cannot be written" in warnings[0]


def test_files_left_out_for_once_are_not_read_again(tmp_path, files):
    write_folder(tmp_path / "d", [50, 60, 70])
    index_of(tmp_path / "d", files, tmp_path / "c")
    few, _ = index_folder(str(tmp_path / "d"), ["s1.hdf5"], LAYOUT, files, str(tmp_path / "c"))
    assert few.names.tolist() == [b"s1.hdf5"]
    assert few.samples.tolist() == [60]
    write_rows(tmp_path / "d" / "s3.hdf5", make_rows(80))  # makes the cache stale
    (tmp_path / "d" / "s0.hdf5").unlink()
    index_folder(str(tmp_path / "d"), ["s3.hdf5"], LAYOUT, files, str(tmp_path / "c"))
    seen = []
    index, _ = index_of(tmp_path / "d", files, tmp_path / "c", seen)
    assert seen == []
    assert index.samples.tolist() == [60, 70, 80]


def test_only_the_columns_used_can_break_a_row(tmp_path, files):
    rows = make_rows(300)
    rows["emg"][100:110, 2] = np.nan
    path = write_rows(tmp_path / "a.hdf5", rows)
    chosen = dataclasses.replace(LAYOUT, columns=(3, 0))
    assert chosen.fingerprint != LAYOUT.fingerprint
    assert len(scan_file(files, path, chosen).broken) == 0
    assert len(scan_file(files, path, LAYOUT).broken) == 1
    beyond = dataclasses.replace(LAYOUT, columns=(4,))
    with pytest.raises(UserError, match=r"a\.hdf5 has 4 channels, .* asks for 4; use 0 to 3"):
        scan_file(files, path, beyond)


def test_a_visitor_sees_every_row_once(tmp_path, files):
    rows, seen = make_rows(100), []
    path = write_rows(tmp_path / "a.hdf5", rows)
    scan_file(files, path, LAYOUT, 33, seen.append)
    np.testing.assert_array_equal(np.concatenate(seen), rows)
