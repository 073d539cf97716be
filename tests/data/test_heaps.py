"""A heap that HDF5 would read for ever is one line; others are read as ever."""

import h5py
import pytest

from tds_jax.data.formats import opened
from tds_jax.data.hdf5 import RowFiles
from tds_jax.data.heaps import EDGE, require_ends
from tds_jax.data.session_files import SessionFiles
from tds_jax.errors import UserError
from tests.data.sessions import make_rows, write_rows

GOOD = {"user": "ann", "session": "a"}


def spoil(path, index, size):
    """Writes index and size of the first object of the file's only heap."""
    content = bytearray(path.read_bytes())
    at = content.index(b"GCOL") + 16
    content[at : at + 2] = index.to_bytes(2, "little")
    content[at + 8 : at + 16] = size.to_bytes(8, "little")
    path.write_bytes(content)


@pytest.fixture(params=[50, 20_000])
def path(request, tmp_path):
    """Its heap lies before the rows, or after them beyond the first edge."""
    rows = make_rows(request.param)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("emg2pose")
        group["timeseries"] = rows
        file.flush()
        for name, text in GOOD.items():
            group.attrs.create(name, text, dtype=h5py.string_dtype())
    content = (tmp_path / "a.h5").read_bytes()
    assert content.index(b"GCOL") < EDGE or content.index(b"GCOL") > len(content) - EDGE
    return tmp_path / "a.h5"


def header(path):
    return RowFiles(1, 0, 1.0).header(str(path), "emg2pose", "timeseries")


def test_a_whole_heap_is_read(path):
    require_ends(str(path))
    assert header(path).attributes == GOOD


# Free space of no bytes, and an object whose end comes round to its beginning.
@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 2**64 - 16), (7, 2**64 - 20)])
@pytest.mark.parametrize("read", [header, lambda path: opened(str(path))])
def test_a_heap_without_an_end_is_one_line(path, index, size, read):
    spoil(path, index, size)
    with pytest.raises(UserError, match=r"a\.h5: a heap in it is damaged"):
        read(path)


def test_so_is_one_of_separate_arrays(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["emg"] = make_rows(50)["emg"]
        file.attrs.create("user", "ann", dtype=h5py.string_dtype())
    spoil(path, 0, 0)
    with pytest.raises(UserError, match=r"a\.h5: a heap in it is damaged"):
        SessionFiles(1, 0, 1.0).header(str(path), "emg2pose", "timeseries")


def test_what_no_heap_has_may_be_anything(tmp_path):
    path = tmp_path / "a.h5"
    write_rows(path, make_rows(50))
    path.write_bytes(path.read_bytes() + b"GCOL" + bytes(40))
    require_ends(str(path))
