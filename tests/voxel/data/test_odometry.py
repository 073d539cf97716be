"""A recorded track becomes the poses of a prepared scene's frames."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tds_jax.errors import UserError
from tds_jax.voxel.data.odometry import read_track
from tds_jax.voxel.data.poses import POSES, read_poses
from tds_jax.voxel.data.sweeps import with_earlier
from tds_jax.voxel.data.volumes import SETTINGS, find_scenes
from tests.voxel.raw import JOB, quiet, write_ntu

SPEED, TURN = 10.0, 0.5  # m/s along x, rad/s to the left


def lines(times):
    for time in times:
        turn = Rotation.from_rotvec([0, 0, TURN * time]).as_quat()
        yield " ".join(map(repr, map(float, (time, SPEED * time, 0, 0, *turn))))


@pytest.fixture
def scene(tmp_path):
    write_ntu(tmp_path / "in" / "a")  # radar at 0.1, 0.2 and 0.3 s, LiDAR 0.01 s later
    return tmp_path / "in" / "a"


def prepared(scene, **changes):
    target = scene.parents[1] / "out"
    dataclasses.replace(JOB, **changes).run(scene.parent, target, quiet)
    return target / "a"


@pytest.mark.parametrize("store", ["hdf5", "npz"])
def test_a_point_that_stands_still_is_found_where_an_earlier_sweep_saw_it(scene, store):
    (scene / "gt_odom.txt").write_text("# time x y z qx qy qz qw\n" + "\n".join(lines([0, 0.4])))
    place = prepared(scene, store=store)
    (found,) = find_scenes(place.parent)
    earlier = with_earlier(found, place, 2).frames[2].earlier[0]
    point = np.array([20.0, 3.0, 1.0])

    def seen(time):
        turned = Rotation.from_rotvec([0, 0, TURN * time])
        return turned.inv().apply(point - [SPEED * time, 0, 0])

    matrix = np.reshape(earlier.matrix, (4, 4))
    # poses.txt holds nine digits of metres
    np.testing.assert_allclose(matrix[:3, :3] @ seen(0.2) + matrix[:3, 3], seen(0.3), atol=1e-6)


def test_frames_far_outside_a_track_have_no_pose_and_are_counted(scene, capsys):
    (scene / "own.txt").write_text("\n".join(lines([0.15, 0.20])))
    place = prepared(scene, poses="own.txt")
    assert set(read_poses(place)) == {"000000", "000001"}  # 0.1 s is one step before its start
    assert "1 of 3 frames lie outside its times" in capsys.readouterr().err
    np.testing.assert_allclose(read_poses(place)["000000"][0, 3], SPEED * 0.15)


@pytest.mark.parametrize(
    ("text", "changes", "words"),
    [
        ("\n".join(lines([1e9, 1e9 + 1])), {}, "are not those of the clouds"),
        (None, {"poses": "odom.txt"}, "no odom.txt in it"),
    ],
)
def test_a_track_that_is_not_used_is_said(scene, capsys, text, changes, words):
    if text:
        (scene / "gt_odom.txt").write_text(text)
    place = prepared(scene, **changes)
    assert words in capsys.readouterr().err
    assert not (place / POSES).exists()


LINE = "0 0 0 0 0 0 0 1\n"


@pytest.mark.parametrize(
    "text", ["0 1 2 3\n1 1 2 3", LINE, LINE * 2, LINE + "1", "a b", "", LINE + "1" + " 0" * 7]
)
def test_what_is_no_track_is_refused_with_its_form(tmp_path, text):
    path = tmp_path / "gt_odom.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=r"is no track .*write lines 'time x y z"):
        read_track(path)


def test_a_folder_of_before_the_option_goes_on(scene):
    place = prepared(scene)
    path = place.parent / SETTINGS
    before = json.loads(path.read_text())
    del before["poses"]
    path.write_text(json.dumps(before))
    (scene / "gt_odom.txt").write_text("\n".join(lines([0, 0.4])))
    assert read_poses(prepared(scene))  # clouds are not read again, poses are
    with pytest.raises(UserError, match="made with other settings"):
        prepared(scene, resolution=0.25)
