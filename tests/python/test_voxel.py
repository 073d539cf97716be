"""Volumes in Python are those of the door, whatever form they come in."""

import dataclasses

import numpy as np
import pytest
from flax import nnx

import tds_jax
from tds_jax.voxel import arriving, prediction
from tds_jax.voxel.arrays import Answer
from tds_jax.voxel.data import pcd
from tds_jax.voxel.data.clouds import Cloud, read_cloud
from tds_jax.voxel.data.counting import PointCounts
from tds_jax.voxel.data.volumes import VolumeFiles, read_volume, write_npz
from tds_jax.voxel.data.voxelise import radar_volume, target_volume
from tests.voxel.small import small_task

NAMES = ("x", "y", "z", "rcs", "v_r")


@pytest.fixture(scope="module")
def columns(radar):
    """Columns of a cloud of 20 points, one of them outside."""
    grid = arriving.grid_of(radar[0].data.native_geometry)
    points = np.random.default_rng(0).uniform(grid.ranges[::2], grid.ranges[1::2], (20, 3))
    points[0, 0] = grid.ranges[1] + 1
    values = [*points.astype("f4").T, np.arange(20, dtype="f4"), np.linspace(-3, 3, 20, dtype="f4")]
    return dict(zip(NAMES, values, strict=True))


@pytest.fixture(scope="module")
def run(radar):
    return tds_jax.load(radar[2])


def test_every_form_of_a_cloud_gives_what_the_door_writes(radar, run, columns, tmp_path, capsys):
    task, model, folder = radar
    (tmp_path / "a.pcd").write_bytes(pcd.encoded(columns))
    job = prediction.Predict()
    for name in ("a.npz", "a.ply"):
        job.run(task, model, tmp_path / "a.pcd", tmp_path / "out" / name, folder)
    written = read_volume(str(tmp_path / "out" / "a.npz"))
    points = read_cloud(tmp_path / "out" / "a.ply", "").points
    grid = arriving.grid_of(task.data.native_geometry)
    nothing = radar_volume(Cloud.of(np.zeros((0, 3)), np.zeros(0), np.zeros(0)), grid, np.eye(4))
    volume = target_volume(read_cloud(tmp_path / "a.pcd", ""), nothing, grid, 0)
    write_npz(tmp_path / "b.npz", volume)
    capsys.readouterr()
    matrix = np.column_stack([*columns.values()])
    for x, options in (
        (columns, {}),
        (matrix, {"layout": ",".join(NAMES)}),
        (dict(np.load(tmp_path / "b.npz")), {}),
        (np.moveaxis(volume.dense(), 0, 2), {}),
    ):
        found = run.predict(x, **options)
        np.testing.assert_array_equal(found.coords, written.coords)
        np.testing.assert_array_equal(found.features, written.features)
        np.testing.assert_array_equal(found.points.astype("f4"), points)
        assert found.shape == task.data.volume_shape
        assert len(found.coords) > 0
    said = capsys.readouterr().err
    assert said.count("note: LiDAR: 1 of 20 points are outside of the ranges and left out") == 2
    assert "calibrated for other weights" not in said


def test_a_radar_cloud_is_moved_as_it_is_told(radar, columns):
    """Where the run's scenes have a calibration each, an array must come with one."""
    grid = arriving.grid_of(radar[0].data.native_geometry)
    columns = {name: values[1:] for name, values in columns.items()}
    moved = columns | {"x": columns["x"] - np.float32(8)}

    files = VolumeFiles(1, 2**20)

    def take(x, translation, radar=""):
        calibration = arriving.calibration_of((), translation)
        calibration = dataclasses.replace(calibration, radar=radar, lidar=radar)
        return arriving.Arriving("radar", grid, "", calibration, PointCounts(), files).take("x", x)

    expected = take(columns, ())
    np.testing.assert_array_equal(take(moved, (8, 0, 0)).coords, expected.coords)
    assert not np.array_equal(take(moved, ()).coords, expected.coords)
    with pytest.raises(tds_jax.UserError, match="x: the run's scenes have a calibration each"):
        take(columns, (), radar="calib.txt")


def test_an_array_is_no_more_than_one_sweep(tmp_path):
    """As by the door, where a file is merged with those before it or refused."""
    task = small_task(tmp_path, model__name="direct", data__sweeps=2)
    answer = Answer(task, task.init(nnx.Rngs(0)))
    with pytest.raises(tds_jax.UserError, match=r"x is one sweep, .* data\.sweeps=2"):
        answer(np.zeros((*task.data.volume_shape, 4)))


def test_what_does_not_fit_is_one_line(radar, run, columns):
    grid = radar[0].data.volume_shape
    for x, options, text in (
        (np.zeros((5, 5)), {}, "x: its columns have no names; give layout"),
        (
            np.zeros((5, 5)),
            {"layout": "kitti"},
            r"x: array \(5, 5\) .* choose another of .*, or x,y,z",
        ),
        (np.zeros(5), {}, r"x: shape \(5,\), expected \(X, Y, Z, 4\)"),
        (np.zeros((*(n + 1 for n in grid), 4)), {}, "the model was trained on"),
        ({"x": [0.0], "y": [0.0]}, {}, "x: field 'z' is missing, the file has x, y"),
        (columns | {"z": columns["z"][:3]}, {}, "x: columns must be numbers, one per point"),
        (columns | {"x": columns["x"] + 1000}, {}, "x: none of its 20 points is inside"),
        (columns, {"scale": 2}, "predict of task 'voxel' takes x, layout, rotation, translation"),
    ):
        with pytest.raises(tds_jax.UserError, match=text):
            run.predict(x, **options)
