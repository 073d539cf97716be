"""The check of a folder says of every fault which frame has it, and nothing of a sound folder."""

import dataclasses
import json

import numpy as np
import pytest

from tds_jax.data.generated import synthesize
from tds_jax.errors import UserError
from tds_jax.voxel.checking import Check
from tds_jax.voxel.data.synthetic import Simulation
from tds_jax.voxel.data.volumes import Volume, write_npz
from tds_jax.voxel.prepare import Prepare
from tests.voxel.files import make_volume, write_scene, write_scenes


@pytest.fixture
def folder(tmp_path):
    """Three sound scenes of four frames."""
    return write_scenes(tmp_path, count=3, frames=4)


def check(folder):
    return Check().run(folder, lambda done, total: None)


def write(folder, volume, name="b/radar_voxel/000002.npz"):
    write_npz(folder / name, volume)


def test_a_sound_folder_has_no_findings_and_a_summary(folder):
    checked = check(folder)
    assert checked.findings == {}
    assert checked.usable == 12
    assert checked.summary["scenes"] == {"a": 4, "b": 4, "c": 4}
    assert checked.summary["radar_grid"] == "6 x 8 x 4"
    assert checked.summary["target_voxels"] == [12, 12, 12]
    assert checked.summary["radar_occupied"] == "6.2500% of the grid"  # 12 of 192
    volumes = [make_volume(s + 2 * i) for s in (0, 100, 200) for i in range(4)]
    mean = np.concatenate([volume.features for volume in volumes])[:, 1].mean()
    assert float(checked.summary["radar_mean_intensity"]) == pytest.approx(mean, rel=1e-3)
    json.dumps(checked._asdict())


def spoil_grid(folder):
    write(folder, make_volume(0, shape=(6, 8, 6)))


def spoil_empty(folder):
    write(folder, Volume(np.zeros((0, 3), int), np.zeros((0, 4), np.float32), (6, 8, 4)))


def spoil_file(folder):
    (folder / "b/radar_voxel/000002.npz").write_bytes(b"broken")


def spoil_numbers(folder):
    volume = make_volume(0)
    volume.features[0, 1] = np.nan
    write(folder, volume)


def spoil_variance(folder):
    volume = make_volume(0)
    volume.features[0, 3] = -1
    write(folder, volume)


def spoil_flag(folder):
    volume = make_volume(0)
    volume.features[0, 3] = 0.5
    write(folder, volume, "b/target_voxel/000002.npz")


def spoil_occupancy(folder):
    volume = make_volume(0)
    volume.features[0, 0] = 2
    write(folder, volume)


def spoil_double(folder):
    volume = make_volume(0)
    volume.coords[1] = volume.coords[0]
    write(folder, volume)


def spoil_pair(folder):
    (folder / "b/radar_voxel/000002.npz").unlink()


@pytest.mark.parametrize(
    ("spoil", "kind", "text", "usable"),
    [
        (spoil_grid, "grid", "000002.npz: grid (X, Y, Z) (6, 8, 6), most have (6, 8, 4)", 12),
        (spoil_empty, "empty", "000002.npz: no occupied voxel", 12),
        (spoil_file, "unreadable", "000002.npz: cannot be read", 11),
        (spoil_numbers, "unreadable", "000002.npz: features hold NaN or Inf", 11),
        (spoil_variance, "values", "000002.npz: Doppler variance is negative", 12),
        (spoil_flag, "values", "000002.npz: Doppler-valid is neither 0 nor 1", 12),
        (spoil_occupancy, "values", "000002.npz: occupancy is not 1 everywhere", 12),
        (spoil_double, "values", "000002.npz: 1 voxels appear twice", 12),
        (spoil_pair, "unpaired", "b/000002: only one of radar_voxel and target_voxel", 11),
    ],
)
def test_each_fault_is_one_line_naming_the_frame(folder, spoil, kind, text, usable):
    spoil(folder)
    checked = check(folder)
    assert list(checked.findings) == [kind]
    (line,) = checked.findings[kind]
    assert text in line
    assert checked.usable == usable


def test_a_folder_of_one_kind_alone_is_no_scene_and_said(folder):
    (folder / "d" / "radar_voxel").mkdir(parents=True)
    (folder / "e").mkdir()
    assert check(folder).findings == {
        "unpaired": [f"{folder}/d: no target_voxel/ in it; it is no scene"]
    }


def test_frames_without_a_target_are_not_usable_and_few_scenes_are_said(tmp_path):
    write_scene(tmp_path, "a", frames=2)
    nothing = Volume(np.zeros((0, 3), int), np.zeros((0, 4), np.float32), (6, 8, 4))
    write(tmp_path, nothing, "a/target_voxel/000001.npz")
    checked = check(tmp_path)
    assert checked.usable == 1
    assert checked.findings["splits"][0].startswith("1 scene: validation or test")


def test_stores_are_checked_frame_by_frame(tmp_path):
    simulation = Simulation(scenes=3, frames=2, depth=4, height=16, width=16)
    clouds = dataclasses.replace(simulation, clouds=True)
    synthesize(tmp_path / "clouds", clouds)
    Prepare(ranges=simulation.ranges, resolution=2.0).run(
        tmp_path / "clouds", tmp_path / "store", lambda *args: None
    )
    synthesize(tmp_path / "volumes", simulation)
    stored, sparse = (check(tmp_path / name) for name in ("store", "volumes"))
    assert stored.findings == sparse.findings == {}
    assert stored.usable == 6
    assert stored.summary["target_voxels"] == sparse.summary["target_voxels"]


def test_a_folder_without_scenes_is_refused(tmp_path):
    with pytest.raises(UserError, match="no scene"):
        check(tmp_path)
