"""Which clouds of a scene belong together, and where the radar stands beside the LiDAR."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from tds_jax.errors import UserError
from tds_jax.voxel.data.calibration import NTU_ROTATION, read_calibration
from tds_jax.voxel.data.pairing import far_apart, nearest_pairs, pair_clouds, write_names
from tds_jax.voxel.prepare import NTU_RANGES
from tests.voxel.raw import JOB, VOD, pairs_of, quiet, write_ntu, write_vod


def test_frames_pair_by_the_nearest_time_the_earlier_of_two_as_near():
    radar_s, lidar_s = np.array([0.0, 1.0, 2.0]), np.array([0.4, 0.5, 1.5, 2.5, 9.0])
    radar, lidar = nearest_pairs(radar_s, lidar_s, 0)
    assert (radar.tolist(), lidar.tolist()) == ([0, 1, 2], [0, 1, 2])
    lidar, radar = nearest_pairs(lidar_s, radar_s, 0)  # the sensors swapped
    assert (radar.tolist(), lidar.tolist()) == ([0, 1, 2], [0, 1, 2])
    radar, lidar = nearest_pairs(radar_s, np.array([0.4, 0.5, 1.9, 7.0]), 0.45)
    assert (radar.tolist(), lidar.tolist()) == ([0, 2], [0, 2])
    assert [len(part) for part in nearest_pairs(np.zeros(0), lidar_s, 0)] == [0, 0]


def test_pairs_by_time_by_index_files_and_by_name(tmp_path):
    def named(pairs):
        return [(radar.stem, lidar.stem) for radar, lidar in pairs]

    # 9.5 s comes before 10.5 s, as text it would not
    write_ntu(tmp_path / "a", [9.5, 10.5], [9.4, 10.0, 10.6])
    found = named(pair_clouds(tmp_path / "a", "radar_pcl", "livox_lidar", 0))
    assert found == [("9.500000", "9.400000"), ("10.500000", "10.600000")]
    (tmp_path / "a" / "radar_index_sequence.txt").write_text("1\n0\n")
    (tmp_path / "a" / "lidar_index_sequence.txt").write_text("1\n2\n")
    found = named(pair_clouds(tmp_path / "a", "radar_pcl", "livox_lidar", 0))
    assert found == [("10.500000", "10.000000"), ("9.500000", "10.600000")]
    for text, words in (("0\n", "has 2 lines, lidar_index"), ("0\n3\n", "no frame number below 3")):
        (tmp_path / "a" / "lidar_index_sequence.txt").write_text(text)
        with pytest.raises(UserError, match=words):
            pair_clouds(tmp_path / "a", "radar_pcl", "livox_lidar", 0)
    write_vod(tmp_path / "v", frames=3)
    (tmp_path / "v" / "radar" / "00001.bin").unlink()
    found = named(pair_clouds(tmp_path / "v", "radar", "lidar", 0))
    assert found == [("00000", "00000"), ("00002", "00002")]


def renamed(folder, names):
    for path, name in zip(sorted(folder.iterdir()), names, strict=True):
        path.rename(path.with_name(name + path.suffix))


def test_names_pair_by_their_numbers_or_as_whole_nanoseconds_where_none_is_alike(tmp_path, capsys):
    write_vod(tmp_path / "in" / "a", frames=3)
    radar, lidar = (tmp_path / "in" / "a" / name for name in ("radar", "lidar"))
    renamed(radar, ["9", "10", "12"])
    renamed(lidar, ["lidar_000009", "lidar_000010", "lidar_000011"])
    VOD.run(tmp_path / "in", tmp_path / "out", quiet)
    assert "2 clouds pair by their numbers (9 with lidar_000009" in capsys.readouterr().err
    assert (tmp_path / "out" / "frames.csv").read_text().splitlines() == [
        "scene,frame,radar,lidar",
        "a,000000,radar/9.bin,lidar/lidar_000009.bin",
        "a,000001,radar/10.bin,lidar/lidar_000010.bin",
    ]
    start = 1705391169225675899
    renamed(radar, [str(start + i * 10**8) for i in range(3)])
    renamed(lidar, [str(start + 66 * 10**6 + i * 10**8) for i in range(3)])
    found = pair_clouds(tmp_path / "in" / "a", "radar", "lidar", 0)
    # 66 ms later is 34 ms before the next, where there is one.
    assert [int(b.stem) - int(a.stem) for a, b in found] == [66000000, -34000000, -34000000]
    renamed(radar, [f"n015-2018-07-24__RADAR_FRONT__15324029276{i}4178" for i in range(3)])
    renamed(lidar, [f"n015-2018-07-24__LIDAR_TOP__15324029276{i}7951" for i in range(3)])
    found = pair_clouds(tmp_path / "in" / "a", "radar", "lidar", 0)
    assert [(a.stem[-5], b.stem[-5]) for a, b in found] == [(i, i) for i in "012"]
    (line,) = far_apart(tmp_path / "in" / "a", found)
    assert "a: clouds pair by the times in their names, 0.00377 s apart in the median" in line


def test_pairs_further_apart_than_frames_are_counted(tmp_path):
    write_ntu(tmp_path / "a", [0.1, 0.2, 0.3, 0.4], [0.3, 0.4, 0.5, 0.6])
    pairs = pair_clouds(tmp_path / "a", "radar_pcl", "livox_lidar", 0)
    (line,) = far_apart(tmp_path / "a", pairs)
    assert "1 of 4 pairs are further apart than radar frames are (0.1 s), the worst 0.2 s" in line
    kept = pair_clouds(tmp_path / "a", "radar_pcl", "livox_lidar", 0.11)
    assert far_apart(tmp_path / "a", kept) == []


def test_sensors_on_two_clocks_are_refused(tmp_path):
    write_ntu(tmp_path / "a", [0.1, 0.2, 0.3], [1700.1, 1700.2, 1700.3])
    with pytest.raises(UserError, match=r"are 1699.9 s apart in the median, .* two clocks"):
        pair_clouds(tmp_path / "a", "radar_pcl", "livox_lidar", 0)


def test_what_pairs_with_nothing_is_counted_and_named(tmp_path, capsys):
    write_vod(tmp_path / "in" / "a", frames=4)
    for number in (1, 3):
        (tmp_path / "in" / "a" / "lidar" / f"{number:05d}.bin").unlink()
    (tmp_path / "in" / "b" / "radar").mkdir(parents=True)
    (tmp_path / "in" / "b" / "Lidar").mkdir()
    written, _, lines = VOD.run(tmp_path / "in", tmp_path / "out", quiet)
    assert written == 1
    assert "b: no lidar/ in it (it holds Lidar, radar); left out" in lines[0]
    assert len(lines) == 1
    said = capsys.readouterr().err
    assert "radar: 2 of 4 clouds are in no pair (00001, 00003)" in said


def test_calibration_is_by_data_set_by_numbers_or_by_files(tmp_path):
    def matrix(job, name="00000"):
        return job.calibration.matrix(tmp_path, Path(f"r/{name}.bin"), Path(f"l/{name}.bin"))

    np.testing.assert_array_equal(matrix(JOB)[:3, :3].ravel(), NTU_ROTATION)
    np.testing.assert_array_equal(matrix(VOD), np.eye(4))
    np.testing.assert_array_equal(matrix(dataclasses.replace(JOB, radar="radar")), np.eye(4))
    shifted = matrix(dataclasses.replace(JOB, translation=(1, 2, 3)))
    np.testing.assert_array_equal(shifted[:3, :3], np.eye(3))
    np.testing.assert_array_equal(shifted[:3, 3], [1, 2, 3])
    lines = {"radar": "1 0 0 1 0 1 0 2 0 0 1 3", "lidar": "0 -1 0 5 1 0 0 0 0 0 1 0"}
    for name, line in lines.items():
        (tmp_path / name).write_text(f"P0: 1 2 3\nTr_velo_to_cam: {line}\n")
    files = {f"{name}_calibration": str(tmp_path / name) for name in lines}
    found = matrix(dataclasses.replace(VOD, **files))
    # camera = radar + (1, 2, 3); lidar x = camera y, lidar y = 5 - camera x
    np.testing.assert_allclose(found @ [0, 0, 0, 1], [2, 4, 3, 1], atol=1e-12)
    (tmp_path / "each").mkdir()
    (tmp_path / "each" / "00007.txt").write_text(f"Tr_velo_to_cam: {lines['radar']}\n")
    folder = dataclasses.replace(VOD, **files | {"radar_calibration": "each"})
    np.testing.assert_array_equal(matrix(folder, "00007"), found)
    with pytest.raises(UserError, match=r"00008\.txt: cannot be read"):
        matrix(folder, "00008")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Tr_velo_to_cam: 1 2 3", "expected one line 'Tr_velo_to_cam: 12 numbers'"),
        ("Tr_velo_to_cam: 1 0 0 x 0 1 0 0 0 0 1 0", "expected one line"),
        ("Tr_velo_to_cam: 1 0 0 nan 0 1 0 0 0 0 1 0", "translation .* is not within 100 m"),
        ("Tr_velo_to_cam: nan 0 0 0 0 1 0 0 0 0 1 0", "is no rotation"),
        ("Tr_velo_to_cam: 1 0 0 1500 0 1 0 0 0 0 1 0", "is not within 100 m"),
        ("Tr_velo_to_cam: 1 0 0 0 0 -1 0 0 0 0 1 0", "mirrors an axis"),
    ],
)
def test_a_wrong_calibration_is_one_line_of_its_file(tmp_path, line, words):
    (tmp_path / "radar.txt").write_text(line)
    with pytest.raises(UserError, match=f"radar.txt: .*{words}"):
        read_calibration(tmp_path / "radar.txt")


def test_a_calibration_that_changes_moves_the_radar(tmp_path, capsys):
    write_vod(tmp_path / "in" / "a", frames=2)
    files = {
        name: str(tmp_path / f"{name}.txt") for name in ("radar_calibration", "lidar_calibration")
    }
    for path in files.values():
        Path(path).write_text("Tr_velo_to_cam: 1 0 0 0 0 1 0 0 0 0 1 0\n")
    job = dataclasses.replace(VOD, **files)
    job.run(tmp_path / "in", tmp_path / "out", quiet)
    assert capsys.readouterr().err == ""
    before = pairs_of(tmp_path / "out").example(0, None)["radar"]
    assert job.run(tmp_path / "in", tmp_path / "out", quiet) == (0, 1, [])
    Path(files["radar_calibration"]).write_text("Tr_velo_to_cam: 1 0 0 1 0 1 0 0 0 0 1 0\n")
    later = max(path.stat().st_mtime_ns for path in (tmp_path / "out" / "a").iterdir()) + 1
    os.utime(files["radar_calibration"], ns=(later, later))
    assert job.run(tmp_path / "in", tmp_path / "out", quiet) == (1, 0, [])
    moved = pairs_of(tmp_path / "out").example(0, None)["radar"]
    # 1 m along x, the second axis of (Z, X, Y), is two voxels.
    np.testing.assert_array_equal(moved[:, 2:, :, 0], before[:, :-2, :, 0])
    assert "radar: " in (said := capsys.readouterr().err)
    assert "are outside of the ranges and left out" in said


def test_what_calibration_is_used_unasked_is_said(tmp_path, capsys):
    write_vod(tmp_path / "in" / "a", frames=1)
    VOD.run(tmp_path / "in", tmp_path / "out", quiet)
    assert "note: radar to LiDAR: no calibration is given" in capsys.readouterr().err
    write_ntu(tmp_path / "ntu" / "a")
    JOB.run(tmp_path / "ntu", tmp_path / "out2", quiet)
    said = capsys.readouterr().err
    assert "note: radar to LiDAR: the calibration of NTU4DRadLM" in said
    assert "voxels is large" not in said
    fine = dataclasses.replace(JOB, ranges=NTU_RANGES, resolution=0.2)
    fine.run(tmp_path / "ntu", tmp_path / "out3", quiet)
    assert "note: a grid of 600 x 200 x 80 voxels is large" in capsys.readouterr().err


def test_view_of_delft_is_known_by_its_folders(tmp_path, capsys):
    write_vod(tmp_path / "v", frames=2)
    for side in ("radar", "lidar"):
        (tmp_path / "d" / side / "training" / "calib").mkdir(parents=True)
        (tmp_path / "v" / side).rename(tmp_path / "d" / side / "training" / "velodyne")
        (tmp_path / "d" / side / "training" / "calib" / "00000.txt").write_text(
            "Tr_velo_to_cam: 1 0 0 0 0 1 0 0 0 0 1 0\n"
        )
    written, _, (line,) = JOB.run(tmp_path / "d", tmp_path / "out", quiet)
    assert written == 1
    assert "radar/training/calib/00001.txt: cannot be read" in line
    assert "taken for View-of-Delft by its folders: --radar=radar/tr" in capsys.readouterr().err
    assert [frame.name for frame in pairs_of(tmp_path / "out").frames] == ["000000"]


def test_a_scene_whose_clouds_cannot_be_told_is_left_out_and_the_others_are_written(tmp_path):
    for name in "abc":
        write_ntu(tmp_path / "in" / name, [0.1, 0.2], [0.1, 0.2])
    for path in (tmp_path / "in" / "b" / "livox_lidar").iterdir():
        path.unlink()
    gone = tmp_path / "in" / "c" / "livox_lidar" / "0.200000.npy"
    gone.unlink()
    gone.symlink_to("elsewhere.npy")
    written, _, (scene, frame) = JOB.run(tmp_path / "in", tmp_path / "out", quiet)
    assert written == 2
    assert scene.startswith(f"skipped {tmp_path}/in/b/livox_lidar: no cloud, expected")
    assert frame.startswith(f"skipped {gone}")
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == ["a", "c"]
    for name in "ac":
        (tmp_path / "in" / name / "livox_lidar").rename(tmp_path / "in" / name / "moved")
        (tmp_path / "in" / name / "livox_lidar").mkdir()
    with pytest.raises(UserError, match=r"a.livox_lidar: no cloud"):
        JOB.run(tmp_path / "in", tmp_path / "other", quiet)


def test_files_that_tell_no_columns_say_in_which_they_were_read(tmp_path, capsys):
    write_vod(tmp_path / "in" / "a", frames=2)
    job = dataclasses.replace(VOD, lidar_layout=JOB.lidar_layout)
    job.run(tmp_path / "in", tmp_path / "out", quiet)
    assert (
        "note: 2 lidar files (.bin) do not say what their columns are: taken to be 4, x, y, z, "
        "intensity; if they are others, give --lidar_layout or --lidar_columns"
    ) in capsys.readouterr().err.splitlines()


def test_the_table_of_pairs_escapes_what_in_a_name_is_no_utf_8(tmp_path):
    scene = tmp_path / "a"
    radar = scene / os.fsdecode(b"r\xff.bin")
    write_names(tmp_path / "names.csv", {scene: [(radar, None)]})
    assert (tmp_path / "names.csv").read_text().splitlines()[1] == r"a,000000,r\udcff.bin,"
