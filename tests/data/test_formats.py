"""What a file is, by its bytes, and what to do with one that cannot be read."""

import importlib.util
import zipfile

import h5py
import numpy as np
import pytest

from tds_jax.data.formats import opened
from tds_jax.data.grid_record import open_record
from tds_jax.errors import UserError
from tests.forecast.files import dataset, hours, write

TIMES = hours("2020-02-01", 24)


def _zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("instant.nc", b"")
        archive.writestr("accum.nc", b"")


FOREIGN = {
    "is a zip archive of instant.nc, accum.nc; unzip it": _zip,
    "is CDF-5: pip install netCDF4": lambda path: path.write_bytes(b"CDF\x05" + bytes(60)),
    r"is GRIB: pip install 'tds_jax\[grib\]'": lambda path: path.write_bytes(b"GRIB" + bytes(60)),
    "gunzip it": lambda path: path.write_bytes(b"\x1f\x8b" + bytes(60)),
}


@pytest.mark.parametrize("message", FOREIGN)
def test_a_format_that_is_not_read_here_has_a_line_with_the_remedy(tmp_path, message, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    FOREIGN[message](tmp_path / "download.nc")
    with pytest.raises(UserError, match=message):
        opened(str(tmp_path / "download.nc"))


def test_a_folder_of_a_zip_archive_alone_says_so(tmp_path):
    _zip(tmp_path / "download.zip")
    with pytest.raises(UserError, match="unzip it"):
        open_record(tmp_path, ("t2m",))


def test_fields_in_the_one_group_that_has_any_are_the_files(tmp_path):
    """Axes may stay in the root, as CF has it."""
    data = dataset(TIMES)
    write(data, tmp_path / "flat.nc")
    with h5py.File(tmp_path / "flat.nc") as flat, h5py.File(tmp_path / "a.nc", "w") as file:
        for name in ("valid_time", "latitude", "longitude"):
            flat.copy(name, file)
        group = file.create_group("Geophysical_Data")
        group["t2m"] = flat["t2m"][:]
        for i, name in enumerate(("valid_time", "latitude", "longitude")):
            file[name].make_scale(name)
            group["t2m"].dims[i].attach_scale(file[name])
    found = open_record(tmp_path / "a.nc", ("t2m",)).read("t2m", 3, 9)
    np.testing.assert_array_equal(found, data.t2m[3:9])
    with h5py.File(tmp_path / "b.nc", "w") as file:
        for name in ("AM", "PM"):
            file.create_group(name)["t2m"] = np.zeros((24, 4, 3))
    with pytest.raises(UserError, match=r"fields in 2 groups \(AM, PM\)"):
        open_record(tmp_path / "b.nc", ("t2m",))
