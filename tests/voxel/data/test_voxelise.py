"""Points stay within half a voxel, moments are those of the points, targets take Doppler."""

import itertools

import numpy as np
import pytest

from tds_jax.errors import UserError
from tds_jax.voxel.data.calibration import NTU_ROTATION, NTU_TRANSLATION_M, moved, rigid
from tds_jax.voxel.data.clouds import Cloud, read_cloud
from tds_jax.voxel.data.resize import Geometry
from tds_jax.voxel.data.volumes import Volume
from tds_jax.voxel.data.voxelise import (
    VoxelGrid,
    need_words,
    radar_volume,
    stored,
    target_volume,
)
from tests.voxel.files import write_kitti, write_vod_radar

GRID = VoxelGrid.of((0, 12, -4, 4, -2, 2), 0.4)
STAY = np.eye(4)


def cloud_of(points, intensity=None, doppler=None):
    nothing = np.zeros(len(points))
    return Cloud.of(
        np.asarray(points, float).reshape(-1, 3),
        nothing if intensity is None else intensity,
        nothing if doppler is None else doppler,
    )


def test_who_chooses_a_large_grid_is_told_what_a_step_needs():
    assert need_words((64, 128, 127)) == []
    (words,) = need_words(VoxelGrid.of((0, 120, -20, 20, -6, 10), 0.2).shape)
    assert words.startswith("a grid of 600 x 200 x 80 voxels is large: voxel_light needs 27.07 GiB")


def test_a_doppler_that_is_absent_is_no_doppler_of_zero():
    """Of a voxel's three points one has none; another voxel's has none at all."""
    points = [[1, 0, 0], [1, 0, 0], [1, 0, 0], [8, 0, 0]]
    radar = radar_volume(cloud_of(points, doppler=[2.0, 4.0, np.nan, np.nan]), GRID, STAY)
    np.testing.assert_array_equal(stored(radar).features[:, 2:], [[3, 1], [0, 0]])
    target = target_volume(cloud_of([[1, 0, 0], [8, 0, 0]]), radar, GRID, 1)
    np.testing.assert_array_equal(target.features[:, 2:], [[3, 1], [0, 0]])


def centres(volume, grid=GRID):
    """Centres of a volume's voxels in the order of its coords."""
    lower = np.array(grid.ranges[::2])
    return lower + (volume.coords + 0.5) * (np.array(grid.ranges[1::2]) - lower) / grid.shape


@pytest.mark.parametrize("kind", ["kitti", "vod_radar"])
def test_voxels_and_points_are_within_half_a_voxel_both_ways(tmp_path, kind):
    rng = np.random.default_rng(0)
    # Points of all ranges and outside of them, several to a voxel.
    points = rng.uniform((-2, -5, -3), (14, 5, 3), (3000, 3))
    if kind == "kitti":
        write_kitti(tmp_path / "a.bin", points, np.zeros(3000))
    else:
        write_vod_radar(tmp_path / "a.bin", points, np.zeros(3000), np.zeros(3000))
    cloud = read_cloud(tmp_path / "a.bin", kind)
    volume = radar_volume(cloud, GRID, STAY)
    geometry = Geometry.of(GRID.ranges, GRID.shape)
    decoded = geometry.points(volume.dense()[..., 0] > 0)
    assert len(decoded) == len(volume.coords)
    low, high = np.array(GRID.ranges[::2]), np.array(GRID.ranges[1::2])
    inside = cloud.points[((cloud.points >= low) & (cloud.points < high)).all(axis=1)]
    assert 0 < len(inside) < 3000
    apart = np.abs(inside[:, None].astype(float) - decoded[None]).max(axis=2)
    half = 0.2 + 1e-5  # f32 points of ~10 m: 1e-6
    assert apart.min(axis=1).max() <= half  # every point has its voxel
    assert apart.min(axis=0).max() <= half  # every voxel has a point


def test_channels_are_the_moments_of_the_points_in_a_voxel():
    rng = np.random.default_rng(1)
    points, intensity = rng.uniform((0, -1, -1), (2, 1, 1), (400, 3)), rng.normal(20, 5, 400)
    # |mean| >> spread: E[v²] - E[v]² in f32 would be wrong by 1e4² · 6e-8 = 6
    doppler = 1e4 + rng.normal(0, 0.1, 400)
    cloud = cloud_of(points, intensity, doppler)
    volume = radar_volume(cloud, GRID, STAY)
    key = np.floor((cloud.points - GRID.ranges[::2]) / 0.4).astype(int)
    for coords, features in zip(volume.coords, volume.features, strict=True):
        here = (key == coords).all(axis=1)
        assert here.any()
        v = cloud.doppler[here].astype(float)
        expected = [1, cloud.intensity[here].mean(dtype=float), v.mean(), v.var()]
        np.testing.assert_allclose(features, expected, rtol=1e-6, atol=1e-9)
    # in order of x, y, z without doubles
    keys = np.ravel_multi_index(tuple(volume.coords.T), GRID.shape)
    assert (np.diff(keys) > 0).all()


def test_the_radar_is_moved_into_the_lidars_frame():
    matrix = rigid(NTU_ROTATION, NTU_TRANSLATION_M)
    points = np.array([[5.0, 1.0, 0.5], [10.0, -2.0, 1.0]])
    expected = points @ np.reshape(NTU_ROTATION, (3, 3)).T + NTU_TRANSLATION_M
    np.testing.assert_allclose(moved(points, matrix), expected)
    volume = radar_volume(cloud_of(points), GRID, matrix)
    np.testing.assert_allclose(centres(volume), expected, atol=0.2 + 1e-6)
    turned = rigid((0, -1, 0, 1, 0, 0, 0, 0, 1), (0, 0, 0))
    np.testing.assert_allclose(moved(np.array([[1.0, 0, 0]]), turned), [[0, 1, 0]])


@pytest.mark.parametrize("reach", [0, 1, 2])
def test_a_target_takes_the_mean_doppler_of_the_radar_voxels_around(reach):
    rng = np.random.default_rng(2)
    # Both touch all borders of the grid, where neighbours must not wrap over.
    radar = radar_volume(
        cloud_of(rng.uniform((0, -4, -2), (12, 4, 2), (300, 3)), None, rng.normal(size=300)),
        GRID,
        STAY,
    )
    lidar = cloud_of(rng.uniform((0, -4, -2), (12, 4, 2), (900, 3)), rng.uniform(size=900))
    target = target_volume(lidar, radar, GRID, reach)
    known = dict(zip(map(tuple, radar.coords.tolist()), radar.features[:, 2], strict=True))
    steps = list(itertools.product(range(-reach, reach + 1), repeat=3))
    valid = 0
    for coords, features in zip(target.coords.tolist(), target.features, strict=True):
        around = [tuple(a + b for a, b in zip(coords, step, strict=True)) for step in steps]
        found = [known[place] for place in around if place in known]
        expected = np.mean(found, dtype=float) if found else 0
        np.testing.assert_allclose(features[[0, 2, 3]], [1, expected, bool(found)], atol=1e-6)
        valid += bool(found)
    assert 0 < valid < len(target.coords)


def test_without_points_there_are_no_voxels():
    nothing = radar_volume(cloud_of([]), GRID, STAY)
    assert nothing.coords.shape == (0, 3)
    assert nothing.features.shape == (0, 4)
    target = target_volume(cloud_of([[1, 1, 1]]), nothing, GRID, 1)
    assert target.features[:, 2:].tolist() == [[0, 0]]
    assert isinstance(nothing, Volume)
    far = radar_volume(cloud_of([[50, 0, 0], [12, 0, 0], [-1e-6, 0, 0]]), GRID, STAY)
    assert len(far.coords) == 0  # the upper end is outside


@pytest.mark.parametrize(
    ("ranges", "resolution", "text"),
    [
        ((0, 12, -4, 4, -2), 0.4, "must be x0,x1"),
        ((0, 12, 4, -4, -2, 2), 0.4, "each pair rising"),
        ((0, 12, -4, 4, -2, 2), 0.0, "--resolution=0.0 must be above 0"),
        ((0, 12, -4, 4, -2, 2), 0.7, r"does not divide .*17.1"),
    ],
)
def test_impossible_grids_are_refused(ranges, resolution, text):
    with pytest.raises(UserError, match=text):
        VoxelGrid.of(ranges, resolution)
    assert VoxelGrid.of((0, 120, -20, 20, -6, 10), 0.2).shape == (600, 200, 80)


@pytest.mark.parametrize(
    ("rotation", "translation", "text"),
    [
        ((1, 0, 0, 0, 1, 0, 0, 0), (0, 0, 0), "has 8 rotation and 3 translation"),
        ((1, 0, 0, 0, 1, 0, 0, 0, 2), (0, 0, 0), "is no rotation"),
        ((1, 0, 0, 0, 1, 0, 0, 0, -1), (0, 0, 0), "is no rotation"),
    ],
)
def test_impossible_calibrations_are_refused(rotation, translation, text):
    with pytest.raises(UserError, match=text):
        rigid(rotation, translation)
