"""The road goes, hills and all; what stands on it stays."""

import numpy as np
import pytest

from tds_jax.voxel.data.clouds import Cloud
from tds_jax.voxel.data.ground import without_ground

RNG = np.random.default_rng(0)


def cloud_of(*parts):
    points = np.concatenate(parts)
    return Cloud.of(points, np.arange(len(points)), np.zeros(len(points)))


def road(slope, count=20000):
    xy = RNG.uniform((0, -20), (60, 20), (count, 2))
    return np.column_stack([xy, -1.8 + slope * xy[:, 0] + RNG.normal(0, 0.03, count)])


def wall(slope):
    x, z = RNG.uniform(10, 30, 4000), RNG.uniform(0.5, 4, 4000)
    return np.column_stack([x, np.full(4000, 5.0), -1.8 + slope * x + z])


@pytest.mark.parametrize("slope", [0.0, 0.1, -0.1])
def test_a_road_that_climbs_goes_and_the_wall_beside_it_stays(slope):
    both = cloud_of(road(slope), wall(slope))
    kept = without_ground(both, 0.3)
    from_road = kept.intensity < 20000  # the number of the point
    # .3 m is 10 standard deviations of the road, less what it rises within a cell
    assert from_road.sum() < 20
    assert (~from_road).sum() == 4000
    np.testing.assert_array_equal(both.points[kept.intensity.astype(int)], kept.points)


def test_a_roof_that_hides_the_road_is_no_road():
    roof = np.column_stack([RNG.uniform((30, -3), (36, 3), (4000, 2)), np.full(4000, 1.2)])
    around = road(0.0)
    outside = (np.abs(around[:, 0] - 33) > 3) | (np.abs(around[:, 1]) > 3)
    kept = without_ground(cloud_of(around[outside], roof), 0.3)
    assert (kept.points[:, 2] > 1).sum() == 4000
    assert len(kept.points) < 4020


def test_a_few_reflections_from_below_do_not_lower_the_ground():
    below = np.column_stack([RNG.uniform((0, -20), (60, 20), (40, 2)), np.full(40, -6.0)])
    kept = without_ground(cloud_of(road(0.0, 100_000), below), 0.3)
    assert len(kept.points) < 1000


def test_height_0_or_no_points_change_nothing():
    both = cloud_of(road(0.0, 100))
    assert without_ground(both, 0.0) is both
    empty = cloud_of(np.zeros((0, 3)))
    assert without_ground(empty, 0.3) is empty
