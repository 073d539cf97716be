"""Recordings at another rate: what a whole-file resampler would give, block by block."""

import os

import h5py
import numpy as np
import pytest
from scipy import signal

from tds_jax.data.hdf5 import RowFiles
from tds_jax.errors import UserError
from tds_jax.pose import prepare as preparing
from tds_jax.pose.labels import valid_rows
from tds_jax.pose.prepare import filtered_blocks, prepare, ratio
from tests.data.sessions import make_rows, write_rows

RATIOS = ((1, 1), (2, 1), (1, 2), (8, 1), (125, 128), (9, 10), (3, 7))


def quiet(done, total, name):
    pass


def read(folder, name):
    with h5py.File(folder / name) as file:
        return file["emg2pose/timeseries"][:], dict(file["emg2pose"].attrs)


@pytest.mark.parametrize(("up", "down"), RATIOS)
@pytest.mark.parametrize("block_rows", [1, 500, 10_000])
def test_blocks_join_to_the_resampling_of_the_whole(up, down, block_rows):
    if block_rows == 1 and up > 100:
        block_rows = 200
    whole = np.random.default_rng(0).normal(size=(1777, 2))
    blocks = filtered_blocks(lambda a, b: whole[a:b], len(whole), up, down, block_rows)
    found = np.concatenate(list(blocks))
    expected = signal.resample_poly(whole, up, down, axis=0)
    # scipy goes on past the last source row, where there is nothing to interpolate labels from.
    assert 0 <= len(expected) - len(found) <= -(-up // down)
    # f64 sums of the same products; the filter is at most 2,561 taps long.
    np.testing.assert_allclose(found, expected[: len(found)], rtol=0, atol=1e-12)


def test_a_tone_keeps_its_shape_and_one_beyond_the_new_band_is_gone(tmp_path):
    (tmp_path / "in").mkdir()
    rows = make_rows(4000, rate=2000.0)
    time = rows["time"]
    rows["emg"] = 0
    rows["emg"][:, 0] = np.sin(2 * np.pi * 60 * time)
    rows["emg"][:, 1] = np.sin(2 * np.pi * 700 * time)
    rows["joint_angles"] = (1 + time)[:, None]
    write_rows(tmp_path / "in" / "a.hdf5", rows, attributes={"sample_rate": 2000.0, "user": "ann"})
    assert prepare(tmp_path / "in", tmp_path / "out", 500.0, "emg2pose", quiet) == (1, 0, [])
    found, attributes = read(tmp_path / "out", "a.hdf5")
    assert (attributes["sample_rate"], attributes["user"]) == (500.0, "ann")
    np.testing.assert_allclose(np.diff(found["time"]), 1 / 500, rtol=1e-9)
    middle = slice(50, -50)  # the filter reaches 20 output samples beyond the ends
    tone = np.sin(2 * np.pi * 60 * found["time"])
    # The Kaiser window of 5.0 leaves 3e-3 in the pass band and in the stop band.
    assert np.abs(found["emg"][middle, 0] - tone[middle]).max() < 3e-3
    assert np.abs(found["emg"][middle, 1]).max() < 3e-3
    np.testing.assert_allclose(found["joint_angles"][:, 0], 1 + found["time"], rtol=1e-6)


def test_labels_are_interpolated_and_failed_rows_stay_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "BLOCK_ROWS", 33)
    (tmp_path / "in").mkdir()
    rows = make_rows(301)
    rows["joint_angles"][100:110] = 0
    rows["joint_angles"][200, 1] = np.nan
    rows["emg"][250, 2] = np.inf
    write_rows(tmp_path / "in" / "a.hdf5", rows)
    prepare(tmp_path / "in", tmp_path / "out", 250.0, "emg2pose", quiet)
    found, _ = read(tmp_path / "out", "a.hdf5")
    assert len(found) == 751
    at = np.arange(751) / 2.5
    good = valid_rows(rows["joint_angles"])
    lower, upper = np.floor(at).astype(int), np.ceil(at).astype(int)
    np.testing.assert_array_equal(valid_rows(found["joint_angles"]), good[lower] & good[upper])
    for joint in range(3):
        expected = np.interp(at, np.arange(301), rows["joint_angles"][:, joint])
        kept = good[lower] & good[upper]
        found_joint = found["joint_angles"][kept, joint]
        np.testing.assert_allclose(found_joint, expected[kept], rtol=1e-6)
    broken = np.flatnonzero(~np.isfinite(found["emg"]).all(axis=1))
    assert broken.min() >= 625 - 26
    assert broken.max() <= 625 + 26
    assert 625 in broken


def test_the_same_call_goes_on_where_it_stopped(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for i in range(3):
        write_rows(tmp_path / "in" / f"s{i}.hdf5", make_rows(100, seed=i))
    (tmp_path / "in" / "metadata.csv").write_text("filename,split\ns0,train\n")
    write = preparing.write_rows

    def die_at_s1(path, *args):
        if path.name == "s1.hdf5":
            raise KeyboardInterrupt
        write(path, *args)

    monkeypatch.setattr(preparing, "write_rows", die_at_s1)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "in", tmp_path / "out", 50.0, "emg2pose", quiet)
    assert os.listdir(tmp_path / "out") == ["s0.hdf5"]
    monkeypatch.setattr(preparing, "write_rows", write)
    assert prepare(tmp_path / "in", tmp_path / "out", 50.0, "emg2pose", quiet) == (2, 1, [])
    assert (tmp_path / "out" / "metadata.csv").read_text() == "filename,split\ns0,train\n"
    write_rows(tmp_path / "in" / "s2.hdf5", make_rows(102, seed=9))
    assert prepare(tmp_path / "in", tmp_path / "out", 50.0, "emg2pose", quiet) == (1, 2, [])
    changed = tmp_path / "in" / "s1.hdf5"
    time = changed.stat().st_mtime
    with h5py.File(changed, "r+") as file:  # other EMG, as large and as old
        file["emg2pose/timeseries"][...] = make_rows(100, seed=5)
    os.utime(changed, (time, time))
    os.utime(tmp_path / "in" / "s0.hdf5", (0, 0))  # touched, the same
    assert prepare(tmp_path / "in", tmp_path / "out", 50.0, "emg2pose", quiet) == (1, 2, [])
    with pytest.raises(UserError, match=r"holds recordings at 50 Hz, which --rate_hz=25 would"):
        prepare(tmp_path / "in", tmp_path / "out", 25.0, "emg2pose", quiet)
    assert prepare(tmp_path / "in", tmp_path / "out", 50.0, "emg2pose", quiet) == (0, 3, [])
    assert len(read(tmp_path / "out", "s2.hdf5")[0]) == 51
    (tmp_path / "in" / "s0.hdf5").unlink()
    with pytest.raises(UserError, match=r"holds s0.hdf5, which --input does not lead to"):
        prepare(tmp_path / "in", tmp_path / "out", 25.0, "emg2pose", quiet)


def test_a_file_cut_short_while_written_leaves_nothing_behind(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    write_rows(tmp_path / "in" / "a.hdf5", make_rows(100))

    def blocks(*args):
        raise RuntimeError
        yield

    monkeypatch.setattr(preparing, "resampled_rows", blocks)
    with pytest.raises(RuntimeError):
        prepare(tmp_path / "in", tmp_path / "out", 50.0, "emg2pose", quiet)
    assert os.listdir(tmp_path / "out") == []


def test_rates_time_stamps_and_labels_may_be_missing(tmp_path):
    """A recording to predict from: emg alone, its rate in the attribute."""
    (tmp_path / "in").mkdir()
    rows = np.zeros(100, [("emg", "<i2", (4,))])
    write_rows(tmp_path / "in" / "a.hdf5", rows)
    prepare(tmp_path / "in", tmp_path / "out", 200.0, "emg2pose", quiet)
    found, _ = read(tmp_path / "out", "a.hdf5")
    assert found.dtype.names == ("time", "emg")
    np.testing.assert_allclose(found["time"], np.arange(199) / 200)


def test_wrong_files_are_skipped_and_foreign_ones_never_overwritten(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.hdf5").write_text("hello")
    for name in ("b.hdf5", "c.hdf5"):
        write_rows(tmp_path / "in" / name, make_rows(100))
    (tmp_path / "out").mkdir()
    foreign = write_rows(tmp_path / "out" / "b.hdf5", make_rows(7))
    written, kept, lines = prepare(tmp_path / "in", tmp_path / "out", 50.0, "emg2pose", quiet)
    assert (written, kept) == (1, 0)
    assert "a.hdf5: not an HDF5 file" in lines[0]
    assert "exists and was not made by prepare; move it away" in lines[1]
    files = RowFiles(1, 1 << 20, 0.75)
    assert files.header(foreign, "emg2pose", "timeseries").rows == 7
    files.close()
    with pytest.raises(UserError, match="must be a folder other than --input"):
        prepare(tmp_path / "in", tmp_path / "in", 50.0, "emg2pose", quiet)
    (tmp_path / "in" / "c.csv").write_text("time,emg_0\n0,1\n")
    with pytest.raises(UserError, match=r"c.csv, c.hdf5 would become one file"):
        prepare(tmp_path / "in", tmp_path / "new", 50.0, "emg2pose", quiet)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("unit", ["auto", "deg", "rad"])
def test_labels_that_look_like_degrees_are_said_to_and_a_unit_that_is_given_is_kept(tmp_path, unit):
    (tmp_path / "in").mkdir()
    rows = make_rows(400)
    rows["joint_angles"] = np.degrees(np.linspace(0.1, 1.5, 400))[:, None]
    write_rows(tmp_path / "in" / "a.hdf5", rows)
    lines = prepare(tmp_path / "in", tmp_path / "out", 50.0, "emg2pose", quiet, unit)[2]
    said = {
        "auto": "joint angles reach 85.74, which looks like degrees; declare them with",
        "deg": "its labels are in degrees and converted to radians",
    }
    assert [line.startswith("note: ") for line in lines] == [True] * (unit in said)
    assert said.get(unit, "") in "".join(lines)
    found, attributes = read(tmp_path / "out", "a.hdf5")
    assert attributes.get("angle_unit") == {"auto": None}.get(unit, "rad")
    assert (found["joint_angles"].max() > 80) == (unit != "deg")


def test_ratios_are_of_small_whole_numbers():
    assert ratio(2222.22, 2000.0) == (9, 10)
    assert ratio(2048.0, 2000.0) == (125, 128)
    assert ratio(250.0, 2000.0) == (8, 1)
    assert ratio(2000.0, 2000.0) == (1, 1)
    for rate, wanted in ((2000.0, 0.5), (0.5, 2000.0)):
        with pytest.raises(UserError, match=f"--rate_hz={wanted:g} is no ratio of whole numbers"):
            ratio(rate, wanted)


def test_sparse_labels_come_out_at_every_rate_and_lone_ones_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "BLOCK_ROWS", 128)
    (tmp_path / "in").mkdir()
    rows = make_rows(400)
    line = rows["time"][:, None] + [1.0, 2.0, 3.0]
    rows["joint_angles"] = np.where((np.arange(400) % 4 == 1)[:, None], line, np.nan)
    write_rows(tmp_path / "in" / "a.hdf5", rows)
    for rate in (125.0, 100.0, 50.0):
        out = tmp_path / f"out{rate:g}"
        written = prepare(tmp_path / "in", out, rate, "emg2pose", quiet, "rad")
        assert written[:2] == (1, 0)
        assert written[2] == [
            f"note: {tmp_path}/in/a.hdf5: its labels are sparse, those between are interpolated"
        ]
        found, _ = read(out, "a.hdf5")
        # From the first label, at row 1, to the last, at row 397.
        inside = (found["time"] >= 0.0101) & (found["time"] <= 3.9699)
        np.testing.assert_array_equal(valid_rows(found["joint_angles"])[inside], True)
        expected = found["time"][inside, None] + [1.0, 2.0, 3.0]
        np.testing.assert_allclose(found["joint_angles"][inside], expected, rtol=1e-6)  # f32
    rows["joint_angles"][np.arange(400) % 40 != 1] = np.nan
    write_rows(tmp_path / "in" / "a.hdf5", rows)
    _, _, (refused,) = prepare(tmp_path / "in", tmp_path / "lone", 50.0, "emg2pose", quiet)
    assert "a.hdf5: its 10 labelled rows stand too far apart to interpolate between" in refused
    assert os.listdir(tmp_path / "lone") == []
