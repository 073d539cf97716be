"""The check of a folder says of every fault which file has it, and nothing of a sound folder."""

import itertools
import json
import re
import tracemalloc

import h5py
import numpy as np
import pytest

from tds_jax.data.hdf5 import RowFiles
from tds_jax.data.scan import scan_file
from tds_jax.errors import UserError
from tds_jax.pose import reading
from tds_jax.pose.checking import Check
from tds_jax.pose.quality import Quality
from tds_jax.pose.table import layout
from tests.data.sessions import make_rows, write_rows

HEAD = "filename,user,session,stage,side,generalization,split\n"
# Two users in train, a third in val and test: nothing is shared.
LINES = (
    "s0,ann,r0,fist,left,none,train\n",
    "s1,bob,r1,fist,right,none,train\n",
    "s2,cleo,r2,fist,left,user,val\n",
    "s3,dan,r3,pinch,left,user_stage,test\n",
)


@pytest.fixture
def folder(tmp_path):
    """Four sound recordings of 500 rows, with metadata.csv."""
    made = tmp_path / "data"
    made.mkdir()
    for i in range(4):
        write_rows(made / f"s{i}.hdf5", make_rows(500, seed=i))
    describe(made, *LINES)
    return made


def describe(folder, *lines):
    (folder / "metadata.csv").write_text(HEAD + "".join(lines))


def checked(folder):
    return Check("emg2pose").run(folder, lambda done, total, name: None)


def spoil(field, where, value, name="s1.hdf5"):
    def change(folder):
        with h5py.File(folder / name, "r+") as file:
            rows = file["emg2pose/timeseries"][:]
            rows[field][where] = value
            file["emg2pose/timeseries"][:] = rows

    return change


def test_a_sound_folder_has_numbers_and_no_finding(folder):
    spoil("joint_angles", slice(0, 100), 0)(folder)
    found = checked(folder)
    assert found.findings == {}
    assert found.usable == 4
    rows = [make_rows(500, seed=i)["emg"].astype(np.float64) for i in range(4)]
    rms = np.sqrt(np.mean(np.square(rows), axis=1))
    low, middle, high = found.summary.pop("emg_rms")
    assert (low, high) == tuple(float(f"{x:.4g}") for x in (rms.min(), rms.max()))
    assert middle == pytest.approx(np.median(rms), rel=1e-3)  # four digits are shown
    assert found.summary == {
        "files": 4, "usable": 4, "users": 4, "sessions": 4, "stages": 2, "sides": 2,
        "hours": 0.0056, "rate_hz": "100", "channels": "4", "joints": "3",
        "row": "36 bytes: time f8, joint_angles f4[3], emg f4[4]", "storage": "contiguous",
        "bad_emg_values": 0, "bad_label_values": 0,
        "failed_rows_median": 0.0, "failed_rows_max": 0.2,
        "train": {"files": 2, "users": 2, "hours": 0.0028},
        "val": {"files": 1, "users": 1, "hours": 0.0014},
        "test": {"files": 1, "users": 1, "hours": 0.0014},
    }  # fmt: skip
    json.dumps(found.summary)
    low, high = (f"{limit(make_rows(500)['joint_angles'][100:]):.3g}" for limit in (np.min, np.max))
    assert found.files["s0.hdf5"] == {
        "seconds": "5.0", "rate_hz": "100", "labels_rad": f"{low} to {high}",
        "emg_spread": f"{np.median(rows[0].std(axis=0)):.4g}",
        "offset": f"{np.max(np.abs(rows[0].mean(axis=0)) / rows[0].std(axis=0)):.2g}",
        "repeated_rows": "0.0%",
    }  # fmt: skip


def write_again(rate=100.0, **kinds):
    def change(folder):
        rows = make_rows(500, seed=1, **kinds)
        write_rows(folder / "s1.hdf5", rows, attributes={"sample_rate": rate})

    return change


def metadata(*lines):
    return lambda folder: describe(folder, *lines)


FAULTS = {
    "no HDF5": (
        lambda folder: (folder / "s1.hdf5").write_text("hello"),
        "unreadable", r"s1\.hdf5: not an HDF5 file; replace it or move it away",
    ),
    "backwards": (spoil("time", 300, 0.0), "time", r"s1\.hdf5: time runs backwards at row 300"),
    "gap": (
        spoil("time", slice(300, None), np.arange(200) / 100 + 9),
        "time", r"s1\.hdf5: gaps in time: 1, the longest of 6.01 s",
    ),
    "rate": (
        write_again(rate=200.0),
        "time", r"s1\.hdf5: sample_rate is 200 Hz, the time stamps say 100 on average",
    ),
    "NaN": (spoil("emg", (7, 1), np.nan), "emg", r"s1\.hdf5: NaN or Inf: 1 values"),
    "Inf": (spoil("emg", (slice(7, 9), 1), -np.inf), "emg", r"s1\.hdf5: NaN or Inf: 2 values"),
    "dead": (spoil("emg", (slice(None), 2), 5.0), "emg", r"s1\.hdf5: dead: channel 2"),
    "never finite": (
        spoil("emg", (slice(None), 2), np.nan), "emg", r"NaN or Inf: 500 values; dead: channel 2"
    ),
    "saturated high": (
        spoil("emg", (slice(0, 30), 3), 8.0), "emg", r"s1\.hdf5: saturated: channel 3"
    ),
    "saturated low": (
        spoil("emg", (slice(0, 30), 0), -8.0), "emg", r"s1\.hdf5: saturated: channel 0"
    ),
    "degrees": (
        spoil("joint_angles", slice(None), 86.0),
        "labels", r"s1\.hdf5: joint angles reach 86, which looks like degrees; declare them",
    ),
    "sparse labels": (
        spoil("joint_angles", np.arange(500) % 4 != 1, np.nan),
        "labels", r"s1\.hdf5: on every 4th row \(25 Hz\); those of the rows between are interpol",
    ),
    "offset": (
        spoil("emg", slice(None), make_rows(500, seed=1)["emg"] + [0, -7, 0, 2]),
        "emg", r"s1\.hdf5: offset: [67]\.\d+ times a channel's spread",
    ),
    "held rows": (
        spoil("emg", slice(None), make_rows(500, seed=1)["emg"][np.arange(500) // 2 * 2]),
        "emg", r"s1\.hdf5: repeated: 50\.0% of rows are as the one before",
    ),
    "scale": (
        spoil("emg", slice(None), make_rows(500, seed=1)["emg"] * 1e-6),
        "mixed", r"different EMG scales: the spread is about \S+, but s1\.hdf5 \S+e-0[67]; bring",
    ),
    "ms": (
        lambda folder: write_rows(
            folder / "s1.hdf5", make_rows(500, seed=1, rate=0.1), attributes={"user": "bob"}
        ),
        "time", r"s1\.hdf5: 0\.1 samples per second are none of EMG; are the time stamps in s\?",
    ),
    "NaN label": (spoil("joint_angles", (3, 1), np.nan), "labels", r"s1\.hdf5: 1 values are NaN"),
    "no label": (
        spoil("joint_angles", slice(None), 0), "labels", r"s1\.hdf5: no row has valid joint angles"
    ),
    "rates": (
        write_again(rate=200.0), "mixed",
        r"different rates \(Hz\): 100 \(3 files\), 200 \(1 file\); make them one",
    ),
    "channels": (
        write_again(channels=8), "mixed", r"different channels: 4 \(3 files\), 8 \(1 file\)"
    ),
    "joints": (write_again(joints=5), "mixed", r"different joints: 3 \(3 files\), 5 \(1 file\)"),
    "copy": (
        lambda folder: (folder / "s1.hdf5").write_bytes((folder / "s3.hdf5").read_bytes()),
        "duplicate", r"s3\.hdf5 has the same EMG as s1\.hdf5",
    ),
    "not named": (
        metadata(*LINES[1:]), "metadata", r"s0\.hdf5 is not in metadata\.csv and stays unused"
    ),
    "absent": (
        metadata(*LINES, "s9,ann,r9,fist,left,none,train\n"),
        "metadata", r"s9 is in metadata\.csv but not in the folder",
    ),
    "twice": (
        metadata(*LINES, "s0,ann,r0,fist,left,none,test\n"),
        "metadata", r"line 6 names s0 again; keep one row per file \(it is in train and in test\)",
    ),
    "no metadata": (
        lambda folder: (folder / "metadata.csv").unlink(),
        "metadata", r"there is no metadata\.csv: whole sessions will be dealt",
    ),
    "session": (
        metadata(*LINES[:3], "s3,dan,r1,fist,left,none,test\n"),
        "splits", r"session r1 is in train and in test",
    ),
    "user": (
        metadata(*LINES[:3], "s3,ann,r3,fist,left,none,test\n"),
        "splits", r"users in train and in test: 1 \(ann\)",
    ),
    "promised user": (
        metadata(*LINES[:3], "s3,ann,r3,pinch,left,user_stage,test\n"),
        "splits", r"s3\.hdf5 of test promises a new user, train has it too",
    ),
    "promised stage": (
        metadata(*LINES[:3], "s3,dan,r3,fist,left,user_stage,test\n"),
        "splits", r"s3\.hdf5 of test promises a new stage, train has it too",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make_bad", "kind", "text"), FAULTS.values(), ids=FAULTS.keys())
def test_every_fault_is_a_line_that_names_it(folder, make_bad, kind, text):
    make_bad(folder)
    lines = checked(folder).findings[kind]
    assert any(re.search(text, line) for line in lines), lines
    assert not any("\n" in line for line in lines)


def test_a_new_stage_of_known_users_in_known_sessions_is_no_finding(folder):
    describe(folder, *LINES[:3], "s3,ann,r0,pinch,left,stage,test\n")
    assert checked(folder).findings == {}


def test_what_cannot_be_used_is_counted_out(folder):
    (folder / "s0.hdf5").write_text("hello")
    spoil("time", 300, 0.0)(folder)
    spoil("joint_angles", slice(None), 0, "s2.hdf5")(folder)
    assert checked(folder).usable == 1
    (folder / "s3.hdf5").write_text("hello")
    assert checked(folder).usable == 0


def test_a_folder_without_recordings_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"--input=.*: no session files"):
        checked(tmp_path)
    with pytest.raises(UserError, match=r"--input=.*: no such folder"):
        checked(tmp_path / "x")


@pytest.mark.parametrize("block_rows", [1, 7, 64])
def test_quality_does_not_depend_on_the_blocks(tmp_path, block_rows):
    rows = make_rows(300, dtype="<f8")
    rows["emg"][:, 1] = np.clip(rows["emg"][:, 1], -1, 1)
    rows["emg"][100:120] = rows["emg"][100]
    rows["emg"][50:60, 2], rows["time"][200:] = np.inf, rows["time"][200:] + 5
    path = write_rows(tmp_path / "a.hdf5", rows)
    files = RowFiles(1, 1 << 20, 0.75)
    found, whole = Quality(), Quality()
    scan_file(files, path, layout("emg2pose"), block_rows, found.add)
    whole.add(rows)
    files.close()
    for name in ("bad_emg", "bad_labels", "digest", "last", "repeated"):
        assert getattr(found, name) == getattr(whole, name)
    np.testing.assert_array_equal(found.saturated, [False, True, False, False])
    np.testing.assert_array_equal(whole.saturated, found.saturated)
    np.testing.assert_array_equal(whole.dead, found.dead)
    finite = np.where(np.isfinite(rows["emg"]), rows["emg"], 0)
    counts = np.isfinite(rows["emg"]).sum(axis=0)
    expected = np.sqrt(np.square(finite).sum(axis=0) / counts)
    np.testing.assert_allclose(found.rms, expected, rtol=1e-12)  # f64 sums in another order
    if block_rows > 1:
        assert (found.gaps, found.first) == (whole.gaps, whole.first) == (1, 0.0)


def test_memory_does_not_grow_with_the_rows_of_a_file(tmp_path):
    peaks = []
    for count in (200_000, 600_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        rows = np.zeros(count, make_rows(1).dtype)
        rows["emg"], rows["joint_angles"] = np.arange(count)[:, None] % 97, 0.5
        write_rows(folder / "s0.hdf5", rows)
        del rows
        tracemalloc.start()
        checked(folder)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_compressed_files_that_a_card_would_wait_for_are_said_with_their_speed(folder, monkeypatch):
    with h5py.File(folder / "s1.hdf5", "r+") as file:
        rows = file["emg2pose/timeseries"][:]
        del file["emg2pose/timeseries"]
        made = {"data": rows, "chunks": (100,), "compression": "gzip"}
        file["emg2pose"].create_dataset("timeseries", **made)
    clock = itertools.count(0, 0.25)  # two looks at it for each block that is read
    monkeypatch.setattr(reading.time, "process_time", lambda: next(clock))
    assert "reading" not in checked(folder).findings  # too few rows to say
    monkeypatch.setattr(reading, "LEAST_ROWS", 500)
    (line,) = checked(folder).findings["reading"]
    assert line.startswith(
        "chunks of 100 rows, gzip compression: one core reads 2,000 rows a second"
    )
    monkeypatch.setattr(reading, "WANTED", 2000)
    assert "reading" not in checked(folder).findings
