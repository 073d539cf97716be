"""Stored integers that can only mean "missing" are missing; those that may be values are said."""

import numpy as np
import pytest
import xarray as xr

from tds_jax.data.grid_record import open_record
from tds_jax.data.packing import packing_of
from tests.forecast.files import LAT, LON, dates, write

SEA = (slice(None), slice(0, 2), 0)  # two of twelve cells


def soil(count=6, seed=0):
    return np.random.default_rng(seed).uniform(0.1, 0.5, (count, len(LAT), len(LON)))


def packed(values, kind, scale, offset, mark, first="2020-01-01", **attributes):
    """The file of a program that packs values, and writes `mark` in the sea and no attribute."""
    stored = np.round((values - offset) / scale).astype(kind)
    stored[SEA] = mark
    attributes |= {"scale_factor": scale} if scale != 1 else {}
    attributes |= {"add_offset": offset} if offset else {}
    dims = "time", "latitude", "longitude"
    axes = dates(first, len(values)).astype("datetime64[ns]"), LAT, LON
    return xr.Dataset({"sm": (dims, stored, attributes)}, dict(zip(dims, axes, strict=True)))


@pytest.mark.parametrize(
    ("kind", "scale", "offset", "mark"),
    [
        ("i2", 1e-4, 0.25, -32767),
        ("i2", 1e-4, 0.25, -32768),
        ("i1", 0.01, 0.0, -127),
        ("u1", 0.01, 0.0, 255),
        ("u2", 1e-4, 0.0, 65535),
        ("i4", 1e-6, 0.0, -2147483647),
        ("u2", 1, 0.0, 65535),
        ("f4", 0.01, 0.0, np.float32(1e20)),
    ],
)
def test_a_number_at_the_end_of_its_type_is_missing_where_it_is_far_from_all_values(
    tmp_path, capsys, kind, scale, offset, mark
):
    values = soil() * (1000 if scale == 1 else 1)
    record = open_record(
        write(packed(values, kind, scale, offset, mark), tmp_path / "a.nc"), ["sm"]
    )
    read = record.read("sm", 0, 6)
    assert np.isnan(read[SEA]).all()
    assert np.isfinite(read).sum() == values.size - 12
    read[SEA] = values[SEA]
    np.testing.assert_allclose(read, values, rtol=0, atol=0.501 * scale + 1e-6)
    (line,) = record.notes
    assert f"stored as {mark:.0f}, stands for what is missing in 12 of 72 cells on 6 steps" in line
    assert capsys.readouterr().err == ""
    named = packed(values, kind, scale, offset, mark, _FillValue=np.array(7, kind))
    other = open_record(write(named, tmp_path / "b.nc"), ["sm"])
    assert np.isfinite(other.read("sm", 0, 6)).all()  # the file knows a mark, which is another


def test_each_file_has_a_packing_of_its_own_and_what_both_hold_is_the_same(tmp_path):
    values = soil(8)
    write(packed(values[:5], "i2", 1e-4, 0.25, -32767), tmp_path / "a.nc")
    write(packed(values[3:], "i2", 5e-5, 0.5, -32768, "2020-01-04"), tmp_path / "b.nc")
    record = open_record(tmp_path, ["sm"])
    read = record.read("sm", 0, 8)
    assert np.isnan(read[SEA]).all()
    assert np.isfinite(read).sum() == 8 * 10
    assert [line.split(" ", 4)[1:4] for line in record.notes[:2]] == [
        ["-1.1384,", "stored", "as"], ["-3.0267,", "stored", "as"]
    ]  # fmt: skip
    assert "2 times are in several files with the same values" in record.notes[2]


def test_where_packing_ends_with_the_values_the_number_is_said_and_kept(tmp_path):
    """The least value is the least number; that it stays in some cells is no proof."""
    values = soil()
    values[SEA] = 0.09
    scale = float(values.max() - values.min()) / 65534
    offset = float(values.min()) + 32767 * scale
    record = open_record(
        write(packed(values, "i2", scale, offset, -32767), tmp_path / "a.nc"), ["sm"]
    )
    assert np.isfinite(record.read("sm", 0, 6)).all()
    (line,) = record.notes
    assert "0.09, stored as -32767, is in the same 2 of 12 cells on all 6 steps looked at" in line


def test_an_extreme_that_does_not_repeat_and_rain_that_ends_where_its_type_does_are_values(
    tmp_path,
):
    """One storm fills the last number; days without rain, here and there, fill the first."""
    rain = np.random.default_rng(0).exponential(1.0, (6, len(LAT), len(LON)))
    rain[rain < 0.5] = 0
    rain[3, 2, 2] = 60
    for kind, first in (("i2", -32768), ("u2", 0)):
        scale = 60 / 65535
        data = packed(rain, kind, scale, -first * scale, 5)
        record = open_record(write(data, tmp_path / f"{kind}.nc"), ["sm"])
        assert np.isfinite(record.read("sm", 0, 6)).all()
        assert record.notes == []


def test_unsigned_numbers_of_classic_files_are_known_by_their_attribute():
    array = xr.DataArray(np.zeros(3, "f4"))
    array.encoding = {"dtype": np.dtype("i1"), "_Unsigned": "true", "scale_factor": 0.5}
    assert packing_of(array).suspects == (255.0,)
    np.testing.assert_array_equal(
        packing_of(array).stored(np.float32([127.5, 127, 0])), [255, 0, 0]
    )
    array.encoding = {"dtype": np.dtype("i2")}
    assert packing_of(array).suspects == ()  # as values they are MARKS
