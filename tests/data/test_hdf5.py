import errno
import multiprocessing
import os
import pickle
import threading

import h5py
import numpy as np
import pytest

from tds_jax.data import hdf5
from tds_jax.data.hdf5 import RowFiles
from tds_jax.data.stored_rows import ContiguousRows, HDF5Rows, Wanted, stretches
from tds_jax.errors import UserError
from tests.data.sessions import make_rows, write_rows

WHERE = ("emg2pose", "timeseries")


def make_files(max_open_files=3):
    return RowFiles(max_open_files, 1 << 20, 0.75)


def write_many(folder, count, **storage):
    rows = [make_rows(50, seed=i) for i in range(count)]
    return [write_rows(folder / f"f{i}.hdf5", one, **storage) for i, one in enumerate(rows)]


@pytest.mark.parametrize(
    ("dtype", "storage"),
    [
        ("<f4", {}),
        ("<f8", {}),
        ("<f4", {"chunks": (7,)}),
        ("<f8", {"chunks": (16,), "compression": "gzip", "shuffle": True}),
        (">f4", {"chunks": (50,), "compression": "lzf"}),
    ],
)
def test_every_storage_gives_the_same_float32_rows(tmp_path, dtype, storage):
    rows = make_rows(50)
    path = write_rows(tmp_path / "a.hdf5", make_rows(50, dtype=dtype), **storage)
    emg, angles = make_files().rows(path, *WHERE, 5, 33, ("emg", "joint_angles"))
    assert emg.dtype == angles.dtype == np.float32
    np.testing.assert_array_equal(emg, rows["emg"][5:33])
    np.testing.assert_array_equal(angles, rows["joint_angles"][5:33])


def test_open_handles_stay_bounded_and_the_oldest_goes_first(tmp_path):
    files, paths = make_files(3), write_many(tmp_path, 5, chunks=(7,))
    opened = len(os.listdir("/proc/self/fd"))
    for path in [*paths, paths[2], paths[0]]:
        files.rows(path, *WHERE, 0, 2, ("emg",))
        assert files.open_files <= 3
    assert len(os.listdir("/proc/self/fd")) - opened == 3
    kept = [key[0] for key in files._open.held()]
    assert kept == [paths[4], paths[2], paths[0]]
    files.close()
    assert len(os.listdir("/proc/self/fd")) == opened
    assert files.rows(paths[0], *WHERE, 0, 2, ("emg",))[0].shape == (2, 4)


def test_contiguous_files_stay_open_beyond_that_within_a_bound_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5, "PLAIN", 4)
    files, paths = make_files(1), write_many(tmp_path, 6)
    opened = []
    monkeypatch.setattr(
        hdf5, "ContiguousRows", lambda *of: opened.append(of) or ContiguousRows(*of)
    )
    for path in 3 * paths[:4]:
        files.rows(path, *WHERE, 0, 2, ("emg",))
    assert len(opened) == 4 + 3  # found, the last of them held; opened to stay; and then neither
    for path in 2 * paths:
        files.rows(path, *WHERE, 0, 2, ("emg",))
        assert files.open_files <= 1 + 4


def test_a_pickle_holds_no_handle_and_reads_again(tmp_path):
    files, (path,) = make_files(), write_many(tmp_path, 1)
    before = files.rows(path, *WHERE, 0, 9, ("emg",))[0]
    copy = pickle.loads(pickle.dumps(files))
    assert copy.open_files == 0
    assert files.open_files == 1
    np.testing.assert_array_equal(copy.rows(path, *WHERE, 0, 9, ("emg",))[0], before)


def _report(files, path, connection):
    before = files.open_files
    files.rows(path, *WHERE, 0, 2, ("emg",))
    connection.send((before, files.open_files))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*fork:RuntimeWarning")
def test_a_forked_process_opens_its_own_handles(tmp_path):
    files, (path,) = make_files(), write_many(tmp_path, 1)
    files.rows(path, *WHERE, 0, 2, ("emg",))
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_report, args=(files, path, theirs))
    child.start()
    assert ours.recv() == (0, 1)
    child.join()


def test_threads_reading_more_files_than_may_be_open_get_their_own_rows(tmp_path):
    files, paths = make_files(2), write_many(tmp_path, 6, chunks=(7,))
    wrong = []

    def read(first):
        for i in range(60):
            number = (first + i) % 6
            found = files.rows(paths[number], *WHERE, 3, 9, ("emg",))[0]
            if not np.array_equal(found, make_rows(50, seed=number)["emg"][3:9]):
                wrong.append(number)

    threads = [threading.Thread(target=read, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert files.open_files <= 2


def test_chunk_cache_settings_reach_hdf5(tmp_path):
    path = write_rows(tmp_path / "a.hdf5", make_rows(50), chunks=(8,))
    files = RowFiles(1, 123_456, 0.25)
    files.rows(path, *WHERE, 0, 9, ("emg",))
    (found,) = files._open.held().values()
    _, _, size, preemption = found.dataset.file.id.get_access_plist().get_cache()
    assert (size, preemption) == (123_456, 0.25)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ((0, 1, 0.5), "data.max_open_files=0 must be at least 1"),
        ((1, -1, 0.5), "data.chunk_cache_bytes=-1 must not be negative"),
        ((1, 1, 1.5), "data.chunk_cache_preemption=1.5 must be between 0 and 1"),
    ],
)
def test_wrong_settings_are_named_with_their_value(settings, text):
    with pytest.raises(UserError) as error:
        RowFiles(*settings)
    assert text in str(error.value)


def test_doubles_beyond_float32_become_infinite_without_a_warning(tmp_path):
    rows = make_rows(4, dtype="<f8")
    rows["emg"][2, 1] = 1e300
    path = write_rows(tmp_path / "a.hdf5", rows)
    (emg,) = make_files().rows(path, *WHERE, 0, 4, ("emg",))
    assert np.isinf(emg[2, 1])
    assert np.isfinite(emg).sum() == emg.size - 1


@pytest.mark.parametrize("broken", ["h5py.Dataset.read_direct", "os.preadv", "h5py.File.__init__"])
def test_a_drive_that_fails_is_no_bad_file(tmp_path, monkeypatch, broken):
    chunks = {"chunks": (7,)} if "Dataset" in broken else {}
    path = write_rows(tmp_path / "a.hdf5", make_rows(50), **chunks)

    def fail(*args, **kwargs):
        raise OSError(number, "Can't synchronously read data")

    monkeypatch.setattr(broken, fail)
    number = errno.ESTALE
    with pytest.raises(OSError, match="Stale file handle") as caught:
        make_files().raw(path, *WHERE, 0, 5)
    assert caught.value.filename == path
    number = errno.EINVAL
    with pytest.raises(UserError, match="copy"):
        make_files().raw(path, *WHERE, 0, 5)


def wanted_of(count, length, labels, columns=(2, 0)):
    return (
        Wanted("emg", slice(None), (), np.full((count, length, 4), np.nan, np.float32)),
        Wanted("emg", slice(None), columns, np.full((count, length, 2), np.nan, np.float32)),
        Wanted("joint_angles", labels, (), np.full((count, 4, 3), np.nan, np.float32)),
    )


@pytest.mark.parametrize(
    ("dtype", "storage"),
    [
        ("<f4", {}),
        (">f4", {}),
        ("<f8", {}),
        ("<f4", {"chunks": (7,)}),
        ("<f8", {"chunks": (16,), "compression": "gzip"}),
    ],
)
def test_windows_of_many_files_are_their_rows_wherever_they_are_asked_for(tmp_path, dtype, storage):
    """Out of order, overlapping, twice, of files that may not all be open, at the last row too."""
    made = [make_rows(50, seed=i) for i in range(3)]
    paths = [
        write_rows(tmp_path / f"{i}.hdf5", make_rows(50, seed=i, dtype=dtype), **storage)
        for i in range(3)
    ]
    asked = [(2, 30), (0, 5), (2, 3), (0, 9), (1, 30), (0, 5), (2, 29)]
    labels, files = slice(4, None, 5), make_files(2)
    for _ in range(2):  # the second time places are remembered
        wanted = wanted_of(len(asked), 20, labels)
        files.windows(
            *WHERE, [(paths[i], start, n) for n, (i, start) in enumerate(asked)], 20, wanted
        )
        for n, (i, start) in enumerate(asked):
            rows = made[i][start : start + 20]
            np.testing.assert_array_equal(wanted[0].into[n], rows["emg"])
            np.testing.assert_array_equal(wanted[1].into[n], rows["emg"][:, [2, 0]])
            np.testing.assert_array_equal(wanted[2].into[n], rows["joint_angles"][labels])
        assert len(files._open.held()) <= 2


def test_windows_share_reads_where_they_share_chunks_and_within_a_bound():
    at = [(0, 2), (9, 0), (30, 1), (31, 4), (60, 3)]
    whole = [list(part) for part in stretches(at, 10, 8, 1000)]
    assert whole == [at[:2], at[2:4], at[4:]]
    assert [list(part) for part in stretches(at, 10, 8, 12)] == [[one] for one in at[:2]] + [
        at[2:4],
        at[4:],
    ]
    assert [list(part) for part in stretches(at, 10, 0, 1000)] == [[one] for one in at]


def test_contiguous_rows_are_found_behind_a_userblock_and_hdf5_reads_what_only_it_can(tmp_path):
    rows = make_rows(50)
    with h5py.File(tmp_path / "user.hdf5", "w", userblock_size=1024) as file:
        file["emg2pose/timeseries"] = rows
    external = [(str(tmp_path / "rows.bin"), 0, rows.nbytes)]
    write_rows(tmp_path / "external.hdf5", rows, external=external)
    with h5py.File(tmp_path / "unwritten.hdf5", "w") as file:
        file.create_dataset("emg2pose/timeseries", (50,), rows.dtype)
    files, kinds = make_files(), (ContiguousRows, HDF5Rows, HDF5Rows)
    for name, kind in zip(("user", "external", "unwritten"), kinds, strict=True):
        path = os.fspath(tmp_path / f"{name}.hdf5")
        found = files.raw(path, *WHERE, 3, 9)
        np.testing.assert_array_equal(
            found, rows[3:9] if name != "unwritten" else np.zeros_like(rows[3:9])
        )
        assert isinstance(list(files._open.held().values())[-1], kind)


def test_a_file_that_changed_is_looked_at_again_and_one_cut_short_is_named(tmp_path):
    files = make_files(1)
    path, other = write_many(tmp_path, 2)
    files.raw(path, *WHERE, 0, 5)
    files.raw(other, *WHERE, 0, 5)  # closes the first
    longer = make_rows(90, seed=7)
    write_rows(tmp_path / "f0.hdf5", longer, attributes={f"a{i}": 1.0 for i in range(9)})
    np.testing.assert_array_equal(files.raw(path, *WHERE, 40, 80), longer[40:80])
    os.truncate(path, os.path.getsize(path) - 900)
    with pytest.raises(UserError, match=r"f0.hdf5: rows 40 to 90 .*the file ends before them"):
        files.raw(path, *WHERE, 40, 90)


def test_hdf5_opens_a_contiguous_file_once_however_few_may_be_open(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(
        h5py, "File", lambda path, *a, f=h5py.File, **k: opened.append(path) or f(path, *a, **k)
    )
    files, paths = make_files(1), write_many(tmp_path, 3)
    opened.clear()
    for path in paths * 4:
        files.raw(path, *WHERE, 0, 5)
    assert opened == paths
