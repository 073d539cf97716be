"""Laws of voxels: points are where their voxels say, and stores give back what they got."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as extra

from tds_jax.voxel.data.calibration import moved, rigid
from tds_jax.voxel.data.clouds import Cloud
from tds_jax.voxel.data.volumes import Volume, read_volume, write_npz
from tds_jax.voxel.data.voxelise import VoxelGrid, radar_volume

SHAPES = st.tuples(*[st.integers(1, 6)] * 3)
SIZES = st.floats(0.05, 2.0)
VALUES = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
METRES = st.floats(-8, 8, width=32, allow_subnormal=False)
CLOUDS = extra.arrays(np.float32, st.tuples(st.integers(0, 30), st.just(3)), elements=METRES)


@st.composite
def grids(draw):
    """A grid of any size anywhere."""
    lower, size = draw(st.tuples(*[st.floats(-5, 5)] * 3)), draw(SIZES)
    shape = draw(SHAPES)
    ranges = [end for x, n in zip(lower, shape, strict=True) for end in (x, x + n * size)]
    return VoxelGrid(tuple(ranges), shape)


@st.composite
def volumes(draw):
    """Any occupied voxels with any features."""
    shape = draw(SHAPES)
    cells = draw(st.lists(st.integers(0, int(np.prod(shape)) - 1), unique=True, max_size=8))
    coords = np.stack(np.unravel_index(np.array(sorted(cells), int), shape), axis=1)
    features = draw(extra.arrays(np.float32, (len(cells), 4), elements=VALUES))
    features[:, 0] = 1
    return Volume(coords, features, shape)


@given(grids())
def test_the_centre_of_a_voxel_is_in_it(grid):
    size = (np.array(grid.ranges[1::2]) - grid.ranges[::2]) / grid.shape
    cells = np.arange(np.prod(grid.shape))
    centres = np.array(grid.ranges[::2]) + (grid.coords(cells) + 0.5) * size
    found, inside = grid.cells(centres)
    assert inside.all()
    np.testing.assert_array_equal(found, cells)


@given(grids(), CLOUDS)
def test_every_point_inside_is_in_one_voxel_and_their_means_are_those_of_all(grid, points):
    lower, upper = np.array(grid.ranges[::2]), np.array(grid.ranges[1::2])
    cloud = Cloud.of(points, np.arange(len(points)), np.zeros(len(points)))
    volume = radar_volume(cloud, grid, np.eye(4))
    cells, inside = grid.cells(cloud.points)
    of_voxels = np.ravel_multi_index(tuple(volume.coords.T), grid.shape)
    np.testing.assert_array_equal(np.unique(cells), of_voxels)
    clear = ((points > lower + 1e-6) & (points < upper - 1e-6)).all(axis=1)
    beyond = ((points < lower - 1e-6) | (points > upper + 1e-6)).any(axis=1)
    assert inside[clear].all()
    assert not inside[beyond].any()
    counts = np.unique(cells, return_counts=True)[1]
    # f32 means of up to 30 numbers below 30.
    total = (volume.features[:, 1] * counts).sum()
    np.testing.assert_allclose(total, cloud.intensity[inside].sum(), rtol=1e-5, atol=1e-5)


@given(st.floats(-np.pi, np.pi), st.tuples(METRES, METRES, METRES))
def test_a_rigid_transform_and_its_inverse_leave_points_where_they_were(angle, translation):
    c, s = np.cos(angle), np.sin(angle)
    matrix = rigid((c, -s, 0, s, c, 0, 0, 0, 1), translation)
    points = np.random.default_rng(0).normal(size=(5, 3))
    back = moved(moved(points, matrix), np.linalg.inv(matrix))
    np.testing.assert_allclose(back, points, atol=1e-12)  # a few products of numbers up to 8


@settings(max_examples=25)
@given(volumes())
def test_a_stored_volume_comes_back_as_it_was(volume):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "volume.npz"
        write_npz(path, volume)
        found = read_volume(str(path))
    assert found.shape == volume.shape
    np.testing.assert_array_equal(found.dense(), volume.dense())
