"""Sweeps merged by the poses of their frames."""

import numpy as np
import pytest

from tds_jax.errors import UserError
from tds_jax.voxel.data.calibration import rigid
from tds_jax.voxel.data.poses import write_poses
from tds_jax.voxel.data.resize import Geometry
from tds_jax.voxel.data.sweeps import before, merged, with_earlier
from tds_jax.voxel.data.volumes import Volume, VolumeFiles, find_scenes
from tests.voxel.files import SHAPE, make_volume, write_scene
from tests.voxel.small import small_task

GEOMETRY = Geometry.of((0.0, 3.0, -2.0, 2.0, -1.0, 1.0), SHAPE)  # voxels of half a metre
TURN = (0, -1, 0, 1, 0, 0, 0, 0, 1)


def volume(*cells, value=0.0):
    features = np.tile(np.float32([1, value, 0, 0]), (len(cells), 1))
    return Volume(np.array(cells, int).reshape(-1, 3), features, SHAPE)


def test_what_stands_still_falls_on_itself_however_the_sensors_moved():
    """A corner seen from two places: each sweep has it where it was from there."""
    then = volume((4, 4, 2), (3, 4, 2), value=1)
    # 1 m further on along x, everything is two voxels nearer; the sensors are turned by nothing.
    matrix = rigid((1, 0, 0, 0, 1, 0, 0, 0, 1), (-1.0, 0.0, 0.0))
    both = merged(volume((2, 4, 2), value=7), [(then, matrix)], 2, GEOMETRY)
    assert both.coords.tolist() == [[2, 4, 2], [1, 4, 2]]
    # the newest has its own values; channel 0 tells the age
    np.testing.assert_array_equal(both.features[:, :2], [[1, 7], [0.5, 1]])


def test_a_turn_is_about_the_sensors_not_about_the_grid():
    matrix = rigid(TURN, (0.0, 0.0, 0.0))
    # (x, y) = (1.25, 0.25) m -> (-y, x) is outside, as x < 0; (1.25, -0.75) -> (0.75, 1.25)
    one = merged(volume(), [(volume((2, 4, 2), (2, 2, 2)), matrix)], 3, GEOMETRY)
    assert one.coords.tolist() == [[1, 6, 2]]
    np.testing.assert_allclose(one.features[:, 0], 2 / 3, rtol=1e-6)


def scenes(root):
    write_scene(root, "a", frames=4)
    steps = {f"{i:06d}": rigid(np.eye(3).ravel(), (0.5 * i, 0.0, 0.0)) for i in range(4)}
    write_poses(root / "a", steps)
    return root


def test_frames_know_those_before_them_and_how_far_away_they_are(tmp_path):
    (scene,) = find_scenes(scenes(tmp_path))
    known = with_earlier(scene, tmp_path / "a", 3).frames
    assert [len(frame.earlier) for frame in known] == [0, 1, 2, 2]
    places = [one.radar.path[-10:] for one in known[3].earlier]
    assert places == ["000002.npz", "000001.npz"]
    ways = [np.reshape(one.matrix, (4, 4))[0, 3] for one in known[3].earlier]
    np.testing.assert_allclose(ways, [-0.5, -1.0])  # what stood at x is now nearer
    asked = before(tmp_path / "a" / "radar_voxel" / "000003.npz", 3)
    assert [one.radar for one in asked] == [one.radar for one in known[3].earlier]
    np.testing.assert_allclose([one.matrix for one in asked], [one[1] for one in known[3].earlier])
    lines = (tmp_path / "a" / "poses.txt").read_text().splitlines()
    (tmp_path / "a" / "poses.txt").write_text("\n".join(lines[:-1]))
    with pytest.raises(UserError, match=r"poses.txt has no line of frame '000003'; add it"):
        with_earlier(scene, tmp_path / "a", 3)


def test_a_run_of_several_sweeps_sees_them_merged_and_its_target_alone(tmp_path):
    for name in "bcd":
        scenes(tmp_path / "x")
        (tmp_path / "x" / "a").rename(tmp_path / name)
    given = {"data__path": str(tmp_path), "data__multiple": (1, 1, 1), "data__grid": "pad"}
    given |= {"model__multipliers": (1,), "data__ranges": (0.0, 3.0, -2.0, 2.0, -1.0, 1.0)}
    one, two = (small_task(tmp_path, **given, data__sweeps=n) for n in (1, 2))
    alone, both = (task.data.pairs("train").example(1, None) for task in (one, two))
    np.testing.assert_array_equal(alone["target"], both["target"])
    files = VolumeFiles(2, 2**20)
    first, second = (frame.radar for frame in two.data.pairs("train").frames[:2])
    (_, earlier), matrix = (files.read(second, "radar"), files.read(first, "radar")), np.eye(4)
    matrix[0, 3] = -0.5
    expected = merged(make_volume(2), [(earlier, matrix)], 2, GEOMETRY)
    np.testing.assert_array_equal(both["radar"], expected.dense())
    assert (both["radar"][..., 0] > 0).sum() > (alone["radar"][..., 0] > 0).sum()
