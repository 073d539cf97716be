"""Laws of the check: every fault has its line, sound files have none, training takes the rest."""

import h5py
import numpy as np
import pytest

from tds_jax.forecast.checking import Check
from tests.forecast.files import dataset, hours, write


def quiet(done, total):
    pass


def month(folder, first="2020-01-01", days=10, names=("sm",), change=lambda data: data):
    folder.mkdir(exist_ok=True)
    data = change(dataset(hours(first, 24 * days), names=names))
    return write(data, folder / f"{first}.nc")


def test_a_sound_record_has_a_table_and_no_line(tmp_path):
    def with_sea(data):
        data.sm[:, 0] = np.nan
        data.sm[50, 2, 2] = np.nan
        data.sm.attrs["units"] = "m3 m-3"
        return data

    month(tmp_path, change=with_sea)
    seen = []
    checked = Check().run(tmp_path, lambda done, total: seen.append((done, total)))
    assert checked.usable == 10
    assert checked.findings == {}
    summary = checked.summary
    assert summary["variables"] == "sm (m3 m-3)"
    assert (summary["days"], summary["stretches"]) == (10, 1)
    assert (summary["first"], summary["last"]) == ("2020-01-01", "2020-01-10")
    assert summary["latitude"] == "52 to 49 (4)"
    assert summary["land"] == "9 of 12 cells"
    assert "1.1% missing on land" in summary["sm"]  # 1 of 10 days x 9 cells
    assert seen[-1] == (10, 10)


def _empty_day(data):
    data.sm[24 * 4 : 24 * 5] = np.nan
    return data


def _unsorted(data):
    return data.isel(valid_time=np.r_[0:50, 51, 50, 52:240])


def _cut(data):
    return data.isel(latitude=slice(1, None))


def _renamed(data):
    return data.rename(valid_time="when")


def _hole(data):
    return data.isel(valid_time=np.delete(np.arange(240), np.arange(72, 120)))


SECOND = {
    "gap": (None, "21 days missing between 2020-01-10 and 2020-02-01"),
    "empty": (_empty_day, "sm: no value at all on 2020-02-05"),
    "unreadable": (_unsorted, "runs backwards at step 51"),
    "grid": (_cut, "lat is 51..49"),
    "no time": (_renamed, "holds sm"),
}


@pytest.mark.parametrize("kind", SECOND)
def test_a_fault_of_one_file_has_its_line_and_the_rest_counts(tmp_path, kind):
    change, line = SECOND[kind]
    month(tmp_path)
    month(tmp_path, "2020-02-01", change=change or (lambda data: data))
    checked = Check().run(tmp_path, quiet)
    assert any(line in text for text in checked.findings[kind])
    assert checked.usable == (20 if kind in ("gap", "empty") else 10)


def test_a_file_of_another_kind_is_said_to_hold_nothing(tmp_path):
    month(tmp_path)
    with h5py.File(tmp_path / "b.nc", "w") as file:
        file["emg2pose/timeseries"] = np.zeros(3)
    (line,) = Check().run(tmp_path, quiet).findings["no time"]
    assert line.endswith("b.nc: holds no array outside of groups")


def test_a_hole_in_the_days_is_a_gap(tmp_path):
    month(tmp_path, change=_hole)
    checked = Check().run(tmp_path, quiet)
    assert checked.findings["gap"] == ["2 days missing between 2020-01-03 and 2020-01-06"]
    assert checked.usable == 8


def test_times_that_occur_twice_and_mixed_units_stop_a_variable(tmp_path):
    def metres(data):
        data.sm.attrs["units"] = "m"
        return data

    def feet(data):
        data.sm.attrs["units"] = "ft"
        return data

    month(tmp_path / "a", change=metres)
    month(tmp_path / "a", "2020-02-01", change=feet)
    checked = Check().run(tmp_path / "a", quiet)
    assert checked.usable == 0
    assert "in 'm' in" in checked.findings["units"][0]
    month(tmp_path / "b")
    month(tmp_path / "b", "2020-01-10")
    checked = Check().run(tmp_path / "b", quiet)
    assert checked.usable == 0
    assert "24 times occur twice" in checked.findings["time"][0]


def test_a_variable_that_is_nowhere_has_its_line(tmp_path):
    month(tmp_path)
    checked = Check(("sm", "tp")).run(tmp_path, quiet)
    assert checked.findings["missing"] == ["tp is in no readable file; found sm"]
    assert checked.usable == 10


@pytest.mark.parametrize("running", [True, False])
def test_totals_that_start_again_every_hour_are_told_from_running_ones(tmp_path, running):
    """ERA5 sums over each hour, ERA5-Land from 00 UTC; both say 'accum'."""

    def rain(data):
        amounts = np.abs(data.tp.values)
        if running:
            of_day = np.roll(amounts, -1, axis=0).reshape(10, 24, 4, 3).cumsum(axis=1)
            amounts = np.roll(of_day.reshape(amounts.shape), 1, axis=0)
        data.tp[...] = amounts
        return data

    month(tmp_path, names=("sm", "tp"), change=rain)
    findings = Check(accumulated=("tp",)).run(tmp_path, quiet).findings
    assert findings["incomplete"] == ["tp: 2020-01-10 cannot be made whole"]
    assert ("totals" in findings) is not running
