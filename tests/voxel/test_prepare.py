"""Prepared stores read back as voxelised; a second call goes on, a wrong one stops."""

import dataclasses
import json
import os

import h5py
import numpy as np
import pytest

from tds_jax.errors import UserError
from tds_jax.voxel import prepare as preparing
from tds_jax.voxel.data.clouds import read_cloud
from tds_jax.voxel.data.pairing import nearest_pairs, pair_clouds
from tds_jax.voxel.data.resize import Grid
from tds_jax.voxel.data.source import VoxelPairs, native_geometry, native_shape
from tds_jax.voxel.data.volumes import VolumeFiles, find_scenes
from tds_jax.voxel.data.voxelise import NTU_ROTATION, VoxelGrid, radar_volume, target_volume
from tds_jax.voxel.prepare import Prepare, read_calibration
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
    cloud = source / "a" / "livox_lidar" / "0.300000.npy"
    np.save(cloud, np.load(cloud) * np.float32(0.5))
    os.utime(cloud, (0, 0))  # as large and older than what was made of it
    os.utime(source / "a" / "livox_lidar" / "0.500000.npy")  # touched, the same
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
    assert (written, kept) == (2, 0)
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
    assert (written, len(skipped)) == (1, 1)
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
    np.testing.assert_array_equal(JOB.matrix()[:3, :3].ravel(), NTU_ROTATION)
    np.testing.assert_array_equal(VOD.matrix(), np.eye(4))
    shifted = dataclasses.replace(JOB, translation=(1, 2, 3)).matrix()
    np.testing.assert_array_equal(shifted[:3, :3], np.eye(3))
    np.testing.assert_array_equal(shifted[:3, 3], [1, 2, 3])
    lines = {"radar": "1 0 0 1 0 1 0 2 0 0 1 3", "lidar": "0 -1 0 5 1 0 0 0 0 0 1 0"}
    for name, line in lines.items():
        (tmp_path / name).write_text(f"P0: 1 2 3\nTr_velo_to_cam: {line}\n")
    files = {f"{name}_calibration": str(tmp_path / name) for name in lines}
    found = dataclasses.replace(VOD, **files).matrix()
    # camera = radar + (1, 2, 3); lidar x = camera y, lidar y = 5 - camera x
    np.testing.assert_allclose(found @ [0, 0, 0, 1], [2, 4, 3, 1], atol=1e-12)
    (tmp_path / "radar").write_text("Tr_velo_to_cam: 1 2 3\n")
    with pytest.raises(UserError, match=r"expected one line 'Tr_velo_to_cam: 12 numbers'"):
        read_calibration(str(tmp_path / "radar"))


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
    (tmp_path / "in" / "a").rename(tmp_path / "in" / "b")
    with pytest.raises(UserError, match=r"out holds a, which --input does not lead to"):
        JOB.run(tmp_path / "in", tmp_path / "out", quiet)
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


def test_what_pairs_with_nothing_is_counted_and_named(tmp_path):
    write_vod(tmp_path / "in" / "a", frames=4)
    for number in (1, 3):
        (tmp_path / "in" / "a" / "lidar" / f"{number:05d}.bin").unlink()
    (tmp_path / "in" / "b" / "radar").mkdir(parents=True)
    (tmp_path / "in" / "b" / "Lidar").mkdir()
    written, _, lines = VOD.run(tmp_path / "in", tmp_path / "out", quiet)
    assert written == 1
    assert "b: no lidar/ in it (it holds Lidar, radar); left out" in lines[0]
    assert "radar: 2 of 4 clouds are in no pair (00001, 00003)" in lines[1]
    assert len(lines) == 2


def test_sensors_on_two_clocks_are_refused(tmp_path):
    write_ntu(tmp_path / "a", [0.1, 0.2, 0.3], [1700.1, 1700.2, 1700.3])
    with pytest.raises(UserError, match=r"are 1699.9 s apart in the median, .* two clocks"):
        pair_clouds(tmp_path / "a", "radar_pcl", "livox_lidar", 0)


def spoil(path, column, value, rows):
    cloud = np.load(path)
    cloud[rows, column] = value
    np.save(path, cloud)


def test_points_without_a_place_or_intensity_are_counted_and_refused_beyond_a_limit(tmp_path):
    write_ntu(tmp_path / "in" / "a")
    radar, lidar = (tmp_path / "in" / "a" / name for name in ("radar_pcl", "livox_lidar"))
    spoil(radar / "0.100000.npy", 0, np.nan, slice(20))
    spoil(lidar / "0.110000.npy", 3, np.inf, slice(None))
    spoil(lidar / "0.210000.npy", 1, np.nan, slice(1, None))
    written, _, lines = JOB.run(tmp_path / "in", tmp_path / "out", quiet)
    assert written == 2
    assert "59 of 60 points have NaN or Inf for a coordinate, more than 90%" in lines[0]
    assert lines[1:] == [
        "radar: 20 of 180 points have NaN or Inf for a coordinate and are left out",
        "LiDAR: 60 of 120 points have NaN or Inf for an intensity, which is 0 in the volumes",
    ]
    (scene,) = find_scenes(tmp_path / "out")
    first = VolumeFiles(1, 2**20).read(scene.frames[0].target, "target")
    assert len(first.coords) > 30
    assert not first.features[:, 1].any()
