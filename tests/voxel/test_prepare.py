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
from tds_jax.voxel.data.source import native_geometry
from tds_jax.voxel.data.volumes import VolumeFiles, find_scenes
from tds_jax.voxel.data.voxelise import VoxelGrid, radar_volume, target_volume
from tests.voxel.raw import JOB, RANGES, VOD, pairs_of, quiet, write_ntu, write_vod


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
    monkeypatch.setattr(preparing, "write_store", failing(preparing.write_store))
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
    def half(path, *rest):
        write(path.with_suffix(".h5.tmp"), *rest)
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


@pytest.mark.parametrize("store", ["hdf5", "npz"])
def test_a_frame_that_was_left_out_is_tried_again_and_nothing_stale_stays(tmp_path, store):
    source, target = tmp_path / "in", tmp_path / "out"
    write_ntu(source / "a", [0.1, 0.2], [0.1, 0.2])
    job = dataclasses.replace(JOB, store=store, frames_per_file=1 if store == "npz" else 2)
    job.run(source, target, quiet)
    (source / "a" / "radar_pcl" / "0.100000.npy").write_bytes(b"broken")
    later = max(path.stat().st_mtime_ns for path in target.rglob("*")) + 1
    os.utime(source / "a" / "radar_pcl" / "0.100000.npy", ns=(later, later))
    for _ in range(2):
        written, _, (line,) = job.run(source, target, quiet)
        assert written == (1 if store == "hdf5" else 0)
        assert "0.100000.npy: not a .npy array" in line
        assert [frame.name for frame in pairs_of(target).frames] == ["000001"]


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
    spoil(radar / "0.200000.npy", 4, np.nan, slice(7))
    spoil(lidar / "0.110000.npy", 3, np.inf, slice(None))
    spoil(lidar / "0.210000.npy", 1, np.nan, slice(1, None))
    written, _, (line,) = JOB.run(tmp_path / "in", tmp_path / "out", quiet)
    assert written == 2
    assert "59 of 60 points have NaN or Inf for a coordinate, more than 90%" in line
    assert capsys.readouterr().err.splitlines()[1:] == [
        "note: radar: 20 of 180 points have NaN or Inf for a coordinate and are left out",
        "note: radar: 7 of 180 points have no Doppler, which is absent from their voxels",
        "note: radar: 10 of 180 points are outside of the ranges and left out",
        "note: LiDAR: 60 of 120 points have NaN or Inf for an intensity, which is 0 in the volumes",
    ]
    (scene,) = find_scenes(tmp_path / "out")
    first = VolumeFiles(1, 2**20).read(scene.frames[0].target, "target")
    assert len(first.coords) > 30
    assert not first.features[:, 1].any()
