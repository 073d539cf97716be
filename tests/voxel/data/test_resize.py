"""Grids: the original's resizing to the last digit, padding that loses nothing, honest geometry."""

import pathlib

import numpy as np
import pytest

from tds_jax.errors import UserError
from tds_jax.voxel.data.resize import Geometry, Grid, resized
from tds_jax.voxel.data.volumes import Volume
from tests.voxel.files import SHAPE, make_volume

FIXTURE = pathlib.Path(__file__).parents[3] / "shared" / "parity" / "voxel" / "golden.npz"
has_fixture = pytest.mark.skipif(not FIXTURE.exists(), reason=f"needs {FIXTURE}")


def volume_of(array):
    """A Volume from (C, Z, X, Y)."""
    coords = np.argwhere(array[0] > 0)[:, [1, 2, 0]]
    x, y, z = coords.T
    _, d, h, w = array.shape
    return Volume(coords, array[:, z, x, y].T, (h, w, d))


@has_fixture
@pytest.mark.parametrize(("side", "pooled"), [("radar", ()), ("target", (3,))])
def test_resizing_is_the_originals(side, pooled):
    with np.load(FIXTURE) as arrays:
        volume, expected = volume_of(arrays["resize_in"]), arrays[f"resize_{side}"]
    found = resized(volume, (8, 16, 16), pooled)
    assert len(volume.coords) == 966
    assert np.count_nonzero(found[..., 0]) == 1150
    # f32 rounding of some ten operations on values up to 12: 10 · 6e-8 · 12.
    np.testing.assert_allclose(found, np.moveaxis(expected, 0, -1), rtol=0, atol=7e-6)


def linear(array, axis, size):
    """numpy's interpolation between half-pixel centres along one axis."""
    count = array.shape[axis]
    old, new = np.arange(count) + 0.5, (np.arange(size) + 0.5) * count / size
    return np.apply_along_axis(lambda line: np.interp(new, old, line), axis, array)


def bins(count, size):
    """Bins that together cover all voxels, each wide enough to leave none out."""
    return [slice(i * count // size, -(-(i + 1) * count // size)) for i in range(size)]


@pytest.mark.parametrize("shape", [(2, 4, 5), (3, 9, 8), (4, 5, 11)])
def test_resizing_is_by_its_definition_voxel_by_voxel(shape):
    volume = make_volume(3)
    dense = volume.dense().astype(np.float64)
    found, share = resized(volume, shape, (3,)), dense[..., 0]
    for axis, size in enumerate(shape):
        share = linear(share, axis, size)
        dense = linear(dense, axis, size)
    expected = dense[..., 1:3] / np.maximum(share, 1e-6)[..., None]
    np.testing.assert_allclose(found[..., 1:3], expected, rtol=1e-5, atol=1e-5)  # f32, values ~10
    flags = volume.dense()[..., [0, 3]]
    parts = [bins(count, size) for count, size in zip(flags.shape, shape, strict=False)]
    for d, h, w in np.ndindex(shape):
        here = flags[parts[0][d], parts[1][h], parts[2][w]].max(axis=(0, 1, 2))
        np.testing.assert_array_equal(found[d, h, w, [0, 3]], here)


def test_resizing_keeps_how_long_ago_a_sweep_saw_a_voxel():
    """As padding does; a bin was last seen when the newest of its voxels was."""
    coords, ages = np.array([[0, 0, 0], [1, 0, 0], [3, 3, 3]]), [0.5, 1.0, 0.25]
    features = np.column_stack([ages, np.ones((3, 3))]).astype(np.float32)
    volume = Volume(coords, features, (4, 4, 4))
    np.testing.assert_array_equal(resized(volume, (4, 4, 4), ())[..., 0], volume.dense()[..., 0])
    smaller = resized(volume, (2, 2, 2), ())[..., 0]
    assert (smaller[0, 0, 0], smaller[1, 1, 1], smaller.sum()) == (1.0, 0.25, 1.25)


def test_resizing_to_the_same_grid_changes_nothing():
    volume = make_volume(0)
    np.testing.assert_allclose(resized(volume, (4, 6, 8), (3,)), volume.dense(), rtol=1e-6)


@pytest.mark.parametrize("shape", [(2, 3, 4), (8, 12, 16), (3, 5, 7), (5, 4, 9)])
def test_values_stay_within_those_of_the_voxels_and_flags_flags(shape):
    volume = make_volume(1)
    found = resized(volume, shape, (3,))
    low, high = volume.features[:, 1].min(), volume.features[:, 1].max()
    near = found[found[..., 1] != 0]
    assert near[:, 1].min() >= low - 1e-5
    assert near[:, 1].max() <= high + 1e-5
    assert set(np.unique(found[..., [0, 3]])) <= {0, 1}
    assert found[..., 0].any()


def test_padding_goes_to_the_ends_and_has_no_weight():
    grid = Grid("pad", (0, 0, 0), (4, 4, 16))
    volume = make_volume(2)
    array, weight = grid.arrange(volume, ()), grid.weight(SHAPE)
    assert array.shape == (4, 8, 16, 4)
    np.testing.assert_array_equal(array[:4, :6, :8], volume.dense())
    assert weight.shape == (4, 8, 16)
    assert weight.sum() == 4 * 6 * 8
    assert weight[:4, :6, :8].all()
    assert Grid("pad", (0, 0, 0), (32, 32, 32)).result((600, 200, 80)) == (96, 608, 224)


def test_grids_that_the_model_cannot_halve_are_refused():
    with pytest.raises(UserError, match=r"'native' gives \(Z, X, Y\) = \(4, 6, 8\).*\(2, 4, 4\)"):
        Grid("native", (0, 0, 0), (2, 4, 4)).result(SHAPE)
    with pytest.raises(UserError, match=r"'resize' gives .*\(3, 8, 8\)"):
        Grid("resize", (3, 8, 8), (2, 4, 4)).result(SHAPE)
    assert Grid("native", (0, 0, 0), (2, 2, 4)).result(SHAPE) == (4, 6, 8)


def test_geometry_keeps_the_voxel_when_padding_and_the_range_when_resizing():
    native = Geometry.of((0, 3, -2, 2, -1, 1), SHAPE)
    assert native == Geometry((4, 6, 8), (-1, 0, -2), (0.5, 0.5, 0.5))
    padded = Grid("pad", (0, 0, 0), (4, 4, 16)).geometry(native)
    assert padded == Geometry((4, 8, 16), (-1, 0, -2), (0.5, 0.5, 0.5))
    resize = Grid("resize", (2, 12, 4), (2, 4, 4)).geometry(native)
    assert resize == Geometry((2, 12, 4), (-1, 0, -2), (1.0, 0.25, 1.0))


def test_points_are_the_centres_in_x_y_z():
    occupied = np.zeros((4, 6, 8), bool)
    occupied[0, 5, 7] = occupied[3, 0, 0] = True
    points = Geometry.of((0, 3, -2, 2, -1, 1), SHAPE).points(occupied)
    np.testing.assert_allclose(points, [[2.75, 1.75, -0.75], [0.25, -1.75, 0.75]])
