"""Prepared stores read back as voxelised; a second call goes on, a wrong one stops."""

import dataclasses
import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from tds_jax.errors import UserError
from tds_jax.voxel import prepare as preparing
from tds_jax.voxel.data.calibration import NTU_ROTATION, read_calibration
from tds_jax.voxel.data.clouds import read_cloud
from tds_jax.voxel.data.pairing import far_apart, nearest_pairs, pair_clouds
from tds_jax.voxel.data.resize import Grid
from tds_jax.voxel.data.source import VoxelPairs, native_geometry, native_shape
from tds_jax.voxel.data.volumes import VolumeFiles, find_scenes
from tds_jax.voxel.data.voxelise import VoxelGrid, radar_volume, target_volume
from tds_jax.voxel.prepare import Prepare
from tests.voxel.files import write_kitti, write_vod_radar

RANGES = (0.0, 8.0, -4.0, 4.0, -2.0, 2.0)
JOB = Prepare(ranges=RANGES, resolution=0.5, frames_per_file=2)
VOD = dataclasses.replace(
    JOB, radar="radar", lidar="lidar", radar_layout="vod_radar", lidar_layout="vod_lidar"
)


def quiet(done, total):
    pass


def points(seed, count=60):
    return np.random.default_rng(seed).uniform((0, -4, -2), (8, 4, 2), (count, 3))


def write_ntu(scene, radar_s=(0.1, 0.2, 0.3), lidar_s=(0.11, 0.21, 0.31), seed=0):
    """Raw clouds of a scene, named by their time."""
    for folder, times, columns in (
        ("radar_pcl", radar_s, 2),
        ("livox_lidar", lidar_s, 1),
    ):
        (scene / folder).mkdir(parents=True)
        for i, time in enumerate(times):
            cloud = points(seed + i)
            more = np.random.default_rng(i).normal(size=(len(cloud), columns))
            rows = np.column_stack([cloud, more]).astype(np.float32)
            np.save(scene / folder / f"{time:.6f}.npy", rows)


def write_vod(scene, frames=3):
    for folder in ("radar", "lidar"):
        (scene / folder).mkdir(parents=True)
    for i in range(frames):
        speed = np.linspace(-3, 3, 20)
        write_vod_radar(scene / "radar" / f"{i:05d}.bin", points(i, 20), np.arange(20), speed)
        write_kitti(scene / "lidar" / f"{i:05d}.bin", points(100 + i), np.ones(60))


def pairs_of(root):
    files = VolumeFiles(2, 2**20)
    frames = [frame for scene in find_scenes(root) for frame in scene.frames]
    shape = native_shape(frames, files)
    return VoxelPairs(frames, files, Grid("native", (0, 0, 0), (2, 4, 4)), shape, None)


@pytest.mark.parametrize("store", ["hdf5", "npz"])
def test_both_stores_hold_what_voxelising_gives(tmp_path, store):
    write_vod(tmp_path / "in" / "delft")
    job = dataclasses.replace(VOD, store=store)
    files = {"hdf5": 2, "npz": 6}[store]
    assert job.run(tmp_path / "in", tmp_path / "out", quiet) == (files, 0, [])
    assert job.run(tmp_path / "in", tmp_path / "out", quiet) == (0, files, [])
    source = pairs_of(tmp_path / "out")
    assert [frame.name for frame in source.frames] == ["000000", "000001", "000002"]
    grid = VoxelGrid.of(RANGES, 0.5)
    assert native_geometry(tmp_path / "out", grid.shape, ()).size == (0.5, 0.5, 0.5)
    for i in range(3):
        clouds = [
            read_cloud(tmp_path / "in" / "delft" / side / f"{i:05d}.bin", f"vod_{side}")
            for side in ("radar", "lidar")
        ]
        radar = radar_volume(clouds[0], grid, np.eye(4))
        target = target_volume(clouds[1], radar, grid, 1)
        example = source.example(i, None)
        np.testing.assert_array_equal(example["radar"], radar.dense())
        np.testing.assert_array_equal(example["target"], target.dense())
        assert example["radar"][..., 0].sum() > 10


def test_a_second_call_writes_what_is_missing_or_has_changed(tmp_path):
    write_ntu(tmp_path / "in" / "a", [0.1, 0.2, 0.3, 0.4, 0.5], [0.1, 0.2, 0.3, 0.4, 0.5])
    source, target = tmp_path / "in", tmp_path / "out"
    assert JOB.run(source, target, quiet) == (3, 0, [])
    names = ["000000-000001.h5", "000002-000003.h5", "000004-000004.h5"]
    assert sorted(path.name for path in (target / "a").iterdir()) == names
    assert JOB.run(source, target, quiet) == (0, 3, [])
    (target / "a" / names[0]).unlink()
    later = os.stat(target / "a" / names[1]).st_mtime_ns + 10**9
    os.utime(source / "a" / "livox_lidar" / "0.300000.npy", ns=(later, later))
    assert JOB.run(source, target, quiet) == (2, 1, [])
    # Another frame: the last store ends elsewhere, and the old one goes.
    rows = np.load(source / "a" / "livox_lidar" / "0.100000.npy")
    np.save(source / "a" / "livox_lidar" / "0.600000.npy", rows)
    np.save(source / "a" / "radar_pcl" / "0.600000.npy", np.zeros((1, 5)))
    written, _, _ = JOB.run(source, target, quiet)
    assert written >= 1
    assert sorted(path.name for path in (target / "a").iterdir()) == [
        *names[:2],
        "000004-000005.h5",
    ]
    assert len(pairs_of(target)) == 6


def test_a_killed_call_leaves_whole_files_only(tmp_path, monkeypatch):
    write_ntu(tmp_path / "in" / "a", [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4])

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        JOB.run(tmp_path / "in", tmp_path / "out", stop)
    assert [path.name for path in (tmp_path / "out" / "a").iterdir()] == ["000000-000001.h5"]
    monkeypatch.setattr(preparing, "write_tables", failing(preparing.write_tables))
    with pytest.raises(KeyboardInterrupt):
        JOB.run(tmp_path / "in", tmp_path / "out", quiet)
    monkeypatch.undo()
    assert JOB.run(tmp_path / "in", tmp_path / "out", quiet) == (1, 1, [])


def without(name):
    return lambda rows: rows[[field for field in rows.dtype.names if field != name]]


@pytest.mark.parametrize(
    ("table", "change", "words"),
    [
        ("radar/frames", without("start"), "radar lacks 'start'"),
        ("target/voxels", without("features"), "target lacks 'features'"),
        ("target", None, "target lacks 'shape'"),
    ],
)
def test_a_store_of_another_kind_is_named(tmp_path, table, change, words):
    write_ntu(tmp_path / "in" / "a", [0.1], [0.1])
    JOB.run(tmp_path / "in", tmp_path / "out", quiet)
    (path,) = (tmp_path / "out" / "a").glob("*.h5")
    with h5py.File(path, "r+") as file:
        if change:
            rows = change(file[table][:])
            del file[table]
            file[table] = rows
        else:
            del file[table].attrs["shape"]
    with pytest.raises(UserError, match=f"{path.name}: {words}; voxelise with"):
        find_scenes(tmp_path / "out")


def test_frames_of_one_side_of_a_store_are_unpaired(tmp_path):
    write_ntu(tmp_path / "in" / "a", [0.1, 0.2], [0.1, 0.2])
    JOB.run(tmp_path / "in", tmp_path / "out", quiet)
    (path,) = (tmp_path / "out" / "a").glob("*.h5")
    with h5py.File(path, "r+") as file:
        rows = file["radar/frames"][:]
        rows["name"][1] = b"other"
        file["radar/frames"][:] = rows
    (scene,) = find_scenes(tmp_path / "out")
    assert [frame.name for frame in scene.frames] == ["000000"]
    assert scene.unpaired == ("000001", "other")


def failing(write):
    def half(path, tables, attrs, compression):
        write(path.with_suffix(".h5.tmp"), tables, attrs, compression)
        raise KeyboardInterrupt

    return half


def test_a_cloud_that_cannot_be_read_or_is_elsewhere_costs_its_frame_only(tmp_path):
    scene = tmp_path / "in" / "a"
    write_ntu(scene)
    (scene / "radar_pcl" / "0.100000.npy").write_bytes(b"broken")
    np.save(scene / "livox_lidar" / "0.210000.npy", np.full((5, 4), 100.0))
    written, kept, skipped = JOB.run(tmp_path / "in", tmp_path / "out", quiet)
    assert (written, kept) == (1, 0)
    assert JOB.run(tmp_path / "in", tmp_path / "out", quiet) == (0, 1, skipped)
    assert [line.split(":")[0].split("/")[-1] for line in skipped] == [
        "0.100000.npy",
        "0.210000.npy",
    ]
    assert "none of its 5 points is inside --ranges" in skipped[1]
    assert [frame.name for frame in pairs_of(tmp_path / "out").frames] == ["000002"]


def test_one_folder_is_one_scene_and_lidar_alone_is_enough(tmp_path):
    write_ntu(tmp_path / "drive")
    job = dataclasses.replace(JOB, radar="")
    assert job.run(tmp_path / "drive", tmp_path / "out", quiet) == (2, 0, [])
    source = pairs_of(tmp_path / "out")
    assert {frame.scene for frame in source.frames} == {"drive"}
    example = source.example(0, None)
    assert not example["radar"].any()
    assert example["target"][..., 0].any()
    assert not example["target"][..., 2:].any()


def test_the_ground_is_left_out_when_asked(tmp_path):
    write_ntu(tmp_path / "drive", [0.1], [0.1])
    job = dataclasses.replace(JOB, ground_m=10.0)  # higher than the ranges
    written, _, skipped = job.run(tmp_path / "drive", tmp_path / "out", quiet)
    assert (written, len(skipped)) == (0, 1)
    assert "none of its 0 points" in skipped[0]


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
    assert "note: radar to LiDAR: the calibration of NTU4DRadLM" in capsys.readouterr().err


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


def test_a_target_with_other_settings_or_contents_is_refused(tmp_path):
    write_ntu(tmp_path / "in" / "a")
    JOB.run(tmp_path / "in", tmp_path / "out", quiet)
    with pytest.raises(UserError, match=r"prepared.json: made with other settings"):
        dataclasses.replace(JOB, resolution=1.0).run(tmp_path / "in", tmp_path / "out", quiet)
    assert json.loads((tmp_path / "out" / "prepared.json").read_text())["resolution"] == 0.5
    with pytest.raises(UserError, match="must be a folder other than --input"):
        JOB.run(tmp_path / "in", tmp_path / "in", quiet)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="not empty and not from prepare"):
        JOB.run(tmp_path / "in", tmp_path / "mine", quiet)
    with pytest.raises(UserError, match="neither it nor a folder in it has radar/ and lidar/"):
        VOD.run(tmp_path / "in", tmp_path / "new", quiet)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"radar_layout": "mine"}, "--radar_layout='mine'"),
        ({"store": "zarr"}, "--store='zarr'"),
        ({"frames_per_file": 0}, "--frames_per_file=0"),
        ({"lidar": ""}, "--lidar=''"),
        ({"radar_calibration": "a.txt"}, "go together"),
    ],
)
def test_impossible_settings_are_refused(change, text):
    with pytest.raises(UserError, match=text):
        dataclasses.replace(JOB, **change)


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


def spoil(path, column, value, rows):
    cloud = np.load(path)
    cloud[rows, column] = value
    np.save(path, cloud)


def test_points_without_a_place_or_intensity_are_counted_and_refused_beyond_a_limit(
    tmp_path, capsys
):
    write_ntu(tmp_path / "in" / "a")
    radar, lidar = (tmp_path / "in" / "a" / name for name in ("radar_pcl", "livox_lidar"))
    spoil(radar / "0.100000.npy", 0, np.nan, slice(20))
    spoil(lidar / "0.110000.npy", 3, np.inf, slice(None))
    spoil(lidar / "0.210000.npy", 1, np.nan, slice(1, None))
    written, _, (line,) = JOB.run(tmp_path / "in", tmp_path / "out", quiet)
    assert written == 2
    assert "59 of 60 points have NaN or Inf for a coordinate, more than 90%" in line
    assert capsys.readouterr().err.splitlines()[1:] == [
        "note: radar: 20 of 180 points have NaN or Inf for a coordinate and are left out",
        "note: radar: 10 of 180 points are outside of the ranges and left out",
        "note: LiDAR: 60 of 120 points have NaN or Inf for an intensity, which is 0 in the volumes",
    ]
    (scene,) = find_scenes(tmp_path / "out")
    first = VolumeFiles(1, 2**20).read(scene.frames[0].target, "target")
    assert len(first.coords) > 30
    assert not first.features[:, 1].any()
