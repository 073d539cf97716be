"""A drive that fails is one line that names the file, wherever files are read; none is left out."""

import contextlib
import errno
import gc
import os
import resource

import h5py
import numpy as np
import pytest

from tds_jax.data import formats, hdf5, identity, json_file
from tds_jax.data.drive import blame_the_drive, reading
from tds_jax.data.grid_record import open_record
from tds_jax.data.gridded import read_static
from tds_jax.data.index import index_folder
from tds_jax.data.session_files import SessionFiles
from tds_jax.engine.checkpoint import Checkpoints
from tds_jax.errors import UserError
from tds_jax.pose import baselines, metadata
from tds_jax.voxel.data import stores, volumes
from tds_jax.voxel.data.calibration import read_calibration
from tds_jax.voxel.data.clouds import read_cloud
from tests.data.sessions import make_rows, write_rows
from tests.data.test_index import LAYOUT
from tests.forecast.files import dataset, dates, write
from tests.voxel.files import make_volume, write_kitti

WORDS = os.strerror(errno.EIO)
QUOTED = f"Unable to open object (file read failed: errno = 5, error message = '{WORDS}')"


@pytest.fixture
def few_files():
    """A context in which so many files can be opened, and no more."""

    @contextlib.contextmanager
    def limited(more):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        numbers = [os.open(os.devnull, os.O_RDONLY) for _ in range(more + 1)]  # lowest free ones
        for number in numbers:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (numbers[-1], hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    return limited


def failing(kind=OSError, *words):
    """A function that the drive makes fail, as libraries say it."""

    def fail(*args, **kwargs):
        raise kind(*(words or (errno.EIO, WORDS)))

    return fail


def of_rows(folder):
    path = write_rows(folder / "a.hdf5", make_rows(50))
    return path, lambda: SessionFiles(1, 0, 1.0).header(path, "emg2pose", "timeseries")


def of_separate_arrays(folder):
    path = folder / "a.h5"
    with h5py.File(path, "w") as file:
        file["emg"] = np.zeros((9, 2))
        file["time"] = np.arange(9.0)
    return path, lambda: SessionFiles(1, 0, 1.0).header(str(path), "emg2pose", "timeseries")


def of_attributes(folder):
    path = folder / "a.h5"
    with h5py.File(path, "w") as file:
        file.attrs["user"] = "a"

    def read():
        with h5py.File(path) as file:
            hdf5.attributes_of(file)

    return path, read


def of_bytes(folder):
    path = folder / "a.bin"
    path.write_bytes(b"12")
    return path, lambda: identity.of_file(str(path))


def of_metadata(folder):
    path = folder / metadata.FILE
    path.write_text("filename,split\na.hdf5,train\n")
    return path, lambda: metadata.read_metadata(str(folder), ["a.hdf5"])


def of_baselines(folder):
    path = folder / "baselines.npz"
    np.savez(path, form=1)
    return path, lambda: baselines.Fitted.read(path)


def _grid(folder):
    return write(dataset(dates("2020-01-01", 4), names=("sm",)), folder / "a.nc")


def of_a_grid(folder):
    path = _grid(folder)
    return path, lambda: formats.opened(str(path))


def of_json(folder):
    path = folder / "a.json"
    path.write_text("{}")
    return path, lambda: json_file.read(path, "restore it")


def of_a_record(folder):
    path = _grid(folder)
    write(dataset(dates("2020-02-01", 4), names=("sm",)), folder / "b.nc")
    write(dataset(dates("2020-03-01", 4), names=("sm",)), folder / "c.nc")
    return path, lambda: open_record(folder, ("sm",))


def of_fields(folder):
    path = _grid(folder)
    record = open_record(path, ("sm",))
    return path, lambda: record.read("sm", 0, 4)


def of_land(folder):
    path = write(dataset(dates("2020-01-01", 1), names=("sm",)).isel(valid_time=0), folder / "a.nc")
    axes = np.array([52.0]), np.array([5.0])
    return path, lambda: read_static(str(path), "sm", *axes)


def of_a_volume(folder):
    path = folder / "a.npz"
    volumes.write_npz(path, make_volume(0))
    return path, lambda: volumes.read_volume(str(path))


def of_what_is_prepared(folder):
    path = folder / "a.npz"
    np.savez(path, prepared_from="x")
    return path, lambda: stores.origin_of(path)


def of_a_cloud(folder):
    path = folder / "a.bin"
    write_kitti(path, np.ones((4, 3)), np.ones(4))
    return path, lambda: read_cloud(path, "kitti")


def of_a_calibration(folder):
    path = folder / "a.txt"
    path.write_text("Tr_velo_to_cam: 1 0 0 0 0 1 0 0 0 0 1 0\n")
    return path, lambda: read_calibration(path)


# What is read, and what fails in it. HDF5 says it in words, h5py as a name that is not there.
NO_NAME = failing(KeyError, QUOTED)
READS = [
    (of_rows, "h5py.Group.__getitem__", NO_NAME),
    (of_separate_arrays, "h5py.Group.__getitem__", NO_NAME),
    (of_separate_arrays, "h5py.is_hdf5", failing()),
    (of_attributes, "h5py.AttributeManager.__getitem__", failing()),
    (of_bytes, "os.stat", failing()),
    (of_metadata, "csv.DictReader", failing()),
    (of_baselines, "numpy.load", failing()),
    (of_json, "pathlib.Path.read_text", failing()),
    (of_a_grid, "builtins.open", failing()),
    (of_a_grid, "xarray.open_dataset", failing()),
    (of_a_record, "tds_jax.data.formats._engine", failing()),
    (of_a_record, "xarray.open_dataset", failing(RuntimeError, QUOTED)),
    (of_a_record, "tds_jax.data.grid_record.header", failing()),
    (of_fields, "tds_jax.data.grid_record.field_values", failing()),
    (of_land, "tds_jax.data.gridded._places", failing()),
    (of_a_volume, "numpy.load", failing()),
    (of_what_is_prepared, "numpy.load", failing()),
    (of_a_cloud, "numpy.fromfile", failing()),
    (of_a_calibration, "pathlib.Path.read_text", failing()),
]


@pytest.mark.parametrize(("what", "broken", "fail"), READS)
def test_a_drive_that_fails_names_the_file_and_none_is_bad(
    tmp_path, monkeypatch, what, broken, fail
):
    path, read = what(tmp_path)
    monkeypatch.setattr(broken, fail)
    with pytest.raises(OSError, match=WORDS) as caught:
        read()
    assert caught.value.errno == errno.EIO
    assert caught.value.filename == str(path)


def test_a_file_that_is_one_too_many_is_not_left_out(tmp_path, few_files):
    names = [f"{i}.hdf5" for i in range(9)]
    for name in names:
        write_rows(tmp_path / name, make_rows(50))
    with few_files(6), pytest.raises(OSError) as caught:
        index_folder(str(tmp_path), names, LAYOUT, SessionFiles(16, 0, 1.0), None)
    assert caught.value.errno == errno.EMFILE
    assert caught.value.filename.startswith(str(tmp_path))


# Reading begins with a file; then Orbax makes a loop, which takes three, and opens more.
@pytest.mark.parametrize("more", range(4))
@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning", "ignore:unclosed:ResourceWarning")
def test_a_checkpoint_is_not_damaged_where_it_has_one_file_too_many(
    tmp_path, few_files, said, more
):
    state = {"a": np.zeros(3)}
    with contextlib.closing(Checkpoints.open(tmp_path / "kept", 1)) as kept:
        kept.save(8, state, {}, None)
        kept.wait()
        with few_files(more), pytest.raises(OSError) as caught:
            kept.restore(8, state)
        assert caught.value.errno == errno.EMFILE
        del caught
        gc.collect()
    assert said() == []


def test_what_hdf5_does_not_tell_of_a_drive_is_read_again(tmp_path, monkeypatch):
    path, real, calls = _grid(tmp_path), formats.xr.open_dataset, []

    def once(*args, **kwargs):
        calls.append(args)
        if len(calls) == 1:
            raise RuntimeError("Unspecified error in H5DSget_num_scales")
        return real(*args, **kwargs)

    monkeypatch.setattr("xarray.open_dataset", once)
    assert open_record(path, ("sm",)).read("sm", 0, 4).shape == (4, 4, 3)


@pytest.mark.parametrize(
    ("broken", "fail"),
    [
        ("pathlib.Path.read_text", failing()),
        ("tds_jax.engine.seal._sum", failing()),
        ("orbax.checkpoint.CheckpointManager.item_metadata", failing()),
        ("orbax.checkpoint.CheckpointManager.restore", failing(ValueError, QUOTED)),
    ],
)
def test_a_drive_that_fails_damages_no_checkpoint(tmp_path, monkeypatch, broken, fail):
    state = {"a": np.zeros(3)}
    with contextlib.closing(Checkpoints.open(tmp_path / "kept", 1)) as kept:
        kept.save(8, state, {}, None)
        kept.wait()
        monkeypatch.setattr(broken, fail)
        with pytest.raises(OSError, match=WORDS) as caught:
            kept.restore(8, state)
        assert caught.value.filename.startswith(str(tmp_path / "kept" / "8"))


def test_other_errors_are_the_files_fault():
    blame_the_drive(ValueError("cut short"), "a")
    with pytest.raises(UserError, match="bad"), reading("a"):
        raise UserError("bad") from OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def test_a_drives_error_is_found_below_what_was_made_of_it():
    told = UserError("bad")
    told.__cause__ = ValueError("damaged")
    told.__cause__.__context__ = OSError(errno.EIO, WORDS)
    with pytest.raises(OSError, match=WORDS), reading("a"):
        raise told
