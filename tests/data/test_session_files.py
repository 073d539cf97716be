"""Recordings in other formats are read as the same rows, or refused in a line that says why."""

import h5py
import numpy as np
import pandas
import pytest
from scipy import io

from tds_jax.data.columns import columns_of
from tds_jax.data.session_files import SessionFiles
from tds_jax.errors import UserError
from tests.data.sessions import make_rows, write_rows

ROWS = make_rows(300, dtype="<f8")
PLACE = ("emg2pose", "timeseries")


@pytest.fixture
def files():
    made = SessionFiles(4, 1 << 20, 0.75)
    yield made
    made.close()


def arrays(file, turned=False, **names):
    for name, array in {**{n: ROWS[n] for n in ROWS.dtype.names}, **names}.items():
        if array is not None:
            file[name] = array.T if turned and array.ndim == 2 else array


def in_root(path):
    with h5py.File(path, "w") as file:
        arrays(file)


def in_a_group(path):
    with h5py.File(path, "w") as file:
        arrays(file.create_group("session"))


def of_matlab_73(path):
    with h5py.File(path, "w", userblock_size=512) as file:
        arrays(file, turned=True, time=ROWS["time"][None], fs=np.array([[100.0]]))


def of_matlab_5(path):
    io.savemat(path, {"EMG": ROWS["emg"], "angles": ROWS["joint_angles"], "t": ROWS["time"]})


def as_csv(path):
    parts = {"time": ROWS["time"]} | {f"emg_{i}": ROWS["emg"][:, i] for i in range(4)}
    parts |= {f"joint_{i}": ROWS["joint_angles"][:, i] for i in range(3)}
    pandas.DataFrame(parts).to_csv(path, index=False, sep=";")


FORMATS = {
    "a.hdf5": in_root, "b.h5": in_a_group, "c.mat": of_matlab_73, "d.mat": of_matlab_5,
    "e.csv": as_csv,
}  # fmt: skip


@pytest.mark.parametrize(("name", "write"), FORMATS.items(), ids=FORMATS.keys())
def test_separate_arrays_are_rows(tmp_path, files, name, write):
    path = str(tmp_path / name)
    write(path)
    header = files.header(path, *PLACE)
    assert (header.rows, header.width(path, "emg"), header.width(path, "joint_angles")) == (
        300,
        4,
        3,
    )
    for start, stop in ((0, 300), (7, 100), (290, 400)):
        raw = files.raw(path, *PLACE, start, stop)
        for field in ROWS.dtype.names:  # what a CSV's digits are read back to, exactly
            np.testing.assert_array_equal(raw[field], ROWS[field][start:stop])
    emg, angles = files.rows(path, *PLACE, 5, 9, ("emg", "joint_angles"))
    np.testing.assert_array_equal(angles, ROWS["joint_angles"][5:9].astype(np.float32))
    assert emg.dtype == np.float32
    assert header.attributes == ({"sample_rate": 100.0} if name == "c.mat" else {})


def test_labels_with_a_clock_of_their_own_come_to_the_times_of_the_emg(tmp_path, files):
    """30 Hz from 0.1 s on, one of them lost, beside 100 Hz."""
    clock = np.delete(np.arange(0.1, 2.5, 1 / 30), [20, 21])
    line = clock[:, None] * [1.0, -2.0, 3.0]
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        arrays(file, joint_angles=line, joint_angles_time=clock)
    found = files.raw(str(tmp_path / "a.hdf5"), *PLACE, 0, 300)
    time = ROWS["time"]
    inside = (time >= 0.1) & (time <= clock[-1])
    inside &= ~((time > clock[19] + 1e-9) & (time < clock[20] - 1e-9))
    np.testing.assert_array_equal(np.isfinite(found["joint_angles"]).all(axis=1), inside)
    expected = time[inside, None] * [1.0, -2.0, 3.0]
    np.testing.assert_allclose(found["joint_angles"][inside], expected, rtol=0, atol=1e-14)
    for start, stop in ((0, 7), (70, 140), (150, 150), (290, 300)):
        part = files.raw(str(tmp_path / "a.hdf5"), *PLACE, start, stop)
        np.testing.assert_array_equal(part["joint_angles"], found["joint_angles"][start:stop])


class Stored:
    """An array of a file: how many entries have been read of it."""

    def __init__(self, array):
        self._array, self.shape, self.dtype, self.read = array, array.shape, array.dtype, 0

    def __getitem__(self, place):
        found = self._array[place]
        self.read += found.size
        return found


@pytest.mark.parametrize("shape", [(300,), (300, 1), (1, 300)])
@pytest.mark.parametrize("dtype", ["f8", "f4", "i8"])
def test_of_an_array_of_times_is_read_what_is_asked_for(shape, dtype):
    """Of hours at 2 kHz each open file held 57 MB."""
    times = (1000 * ROWS["time"]).astype(dtype)
    time = Stored(times.reshape(shape))
    found = columns_of("a", {"emg": ROWS["emg"], "time": time}, {})
    block = np.empty(7, found.dtype)
    found.read(40, block)
    assert time.read == 7
    assert block["time"].dtype == np.float64
    np.testing.assert_array_equal(block["time"], times[40:47].astype(np.float64))


REFUSED = {
    "times of two axes": (
        {"time": ROWS["time"].reshape(2, 150)}, "time has shape (2, 150), expected (rows,)"
    ),
    "times that are words": (
        {"time": np.full(300, b"x")}, "time is of type |S1, expected numbers"
    ),
    "two could be": ({"EMG": ROWS["emg"]}, "EMG and emg could each be the signal; leave one"),
    "no clock": (
        {"joint_angles": ROWS["joint_angles"][:77]},
        "joint_angles has shape (77, 3), of which neither, or either, axis is of 300 times; give",
    ),
    "text": ({"joint_angles": np.full((300, 3), b"x")}, "joint_angles is of type |S1, expected"),
    "no times": (
        {"time": None, "label_time": ROWS["time"]}, "labels have times, the EMG has none; add an"
    ),
    "a clock that begins anew": (
        {"label_time": np.concatenate([ROWS["time"][:150], ROWS["time"][:150]])},
        "times of labels run backwards at 150 (1.49, 0); sort the labels or cut the file there",
    ),
    "a clock with a gap": (
        {"label_time": np.where(np.arange(300) == 7, np.nan, ROWS["time"])},
        "times of labels run backwards at 7 (0.06, nan)",
    ),
    "a single label": (
        {"joint_angles": ROWS["joint_angles"][:1], "label_time": ROWS["time"][:1]},
        "labels have 1 times, expected two or more",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_ambiguous_is_one_line(tmp_path, files, changes, text):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        arrays(file, **changes)
    with pytest.raises(UserError) as error:
        files.header(str(tmp_path / "a.hdf5"), *PLACE)
    assert f"a.hdf5: {text}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("time,force\n1,2\n", "no column begins with emg; the columns are time, force"),
        ("emg_0,emg_1\n1,two\n", "emg_1 holds text; the columns are emg_0, emg_1"),
        ("", "expected a CSV with a line of names"),
    ],
)
def test_a_table_without_a_signal_names_its_columns(tmp_path, files, content, text):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(UserError) as error:
        files.header(str(tmp_path / "a.csv"), *PLACE)
    assert text in str(error.value)
    (tmp_path / "b.mat").write_text("no MATLAB")
    with pytest.raises(UserError, match=r"b\.mat: cannot be read"):
        files.header(str(tmp_path / "b.mat"), *PLACE)


def test_a_table_of_rows_is_read_as_ever(tmp_path, files):
    path = write_rows(tmp_path / "a.hdf5", ROWS)
    assert files.header(path, *PLACE).row_bytes == ROWS.dtype.itemsize
    np.testing.assert_array_equal(files.raw(path, *PLACE, 0, 300), ROWS)
    with pytest.raises(UserError, match=r"group 'other' is missing"):
        files.header(path, "other", "timeseries")


def test_a_table_that_becomes_separate_arrays_while_it_is_open_is_named(tmp_path, files):
    path = write_rows(tmp_path / "a.hdf5", ROWS)
    files.raw(path, *PLACE, 0, 5)
    in_root(tmp_path / "b.hdf5")
    (tmp_path / "b.hdf5").replace(path)
    with pytest.raises(UserError, match=r"a\.hdf5: changed while it was open; start again"):
        files.header(path, *PLACE)
    files.close()
    assert files.header(path, *PLACE).storage == "separate arrays (.hdf5)"


NAMED = "emg=bands/left/raw, joint_angles = kin/q, time=clock"


def named_h5(path):
    with h5py.File(path, "w") as file:
        file["bands/left/raw"], file["kin/q"] = ROWS["emg"], ROWS["joint_angles"]
        file["clock"], file["emg"] = ROWS["time"], np.zeros((7, 2))  # not what is asked for
        file.attrs["user"], file["bands/left"].attrs["side"] = "anna", "left"


def named_mat(path):
    io.savemat(path, {"raw": ROWS["emg"], "q": ROWS["joint_angles"], "clock": ROWS["time"]})


@pytest.mark.parametrize(
    ("name", "write", "group"),
    [("a.h5", named_h5, NAMED), ("b.mat", named_mat, "emg=raw,joint_angles=q,time=clock")],
)
def test_arrays_of_other_names_are_read_where_they_are_said_to_lie(
    files, tmp_path, name, write, group
):
    path = str(tmp_path / name)
    write(path)
    header = files.header(path, group, PLACE[1])
    assert header.rows == len(ROWS)
    if name == "a.h5":
        assert header.attributes == {"user": "anna", "side": "left"}
    found = files.rows(path, group, PLACE[1], 10, 200, ("emg", "joint_angles", "time"))
    for one, field in zip(found, ("emg", "joint_angles", "time"), strict=True):
        np.testing.assert_array_equal(one, ROWS[field][10:200].astype("f4"))


@pytest.mark.parametrize(
    ("group", "text"),
    [
        ("emg=bands/right/raw", r"a\.h5: no array bands/right/raw for emg \(data\.group\); it has "
         "bands/left/raw, clock, emg, kin/q"),
        ("emg=bands", "no array bands for emg"),
        ("emg=a, pose=b", "'pose' says no place of a part; write 'emg=PLACE, joint_angles=PLACE"),
        ("emg=a, emg=b", "each part once, and emg"),
        ("joint_angles=kin/q", "each part once, and emg"),
        ("emg=a,", "'' says no place of a part"),
        ("emg=", "'emg' says no place of a part"),
    ],
)  # fmt: skip
def test_places_that_are_not_there_are_named(files, tmp_path, group, text):
    path = str(tmp_path / "a.h5")
    named_h5(path)
    with pytest.raises(UserError, match=text):
        files.header(path, group, PLACE[1])
