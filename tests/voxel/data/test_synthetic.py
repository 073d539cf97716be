"""Generated streets: the same by seed, sensible to both sensors, learnable but not given away."""

import dataclasses

import numpy as np
import pytest

from tds_jax.data import generated
from tds_jax.errors import UserError
from tds_jax.voxel.data import synthetic
from tds_jax.voxel.data.echoes import mirrored
from tds_jax.voxel.data.poses import read_poses
from tds_jax.voxel.data.resize import Geometry, Grid
from tds_jax.voxel.data.source import VoxelPairs, native_geometry
from tds_jax.voxel.data.streets import (
    GROUND,
    KINDS,
    Boxes,
    RadarNoise,
    radar_cloud,
    surfaces,
    visible_surface,
)
from tds_jax.voxel.data.synthetic import Simulation
from tds_jax.voxel.data.volumes import VolumeFiles, find_scenes
from tds_jax.voxel.data.voxelise import radar_volume, target_volume
from tds_jax.voxel.metrics import compare, dilated
from tds_jax.voxel.prepare import Prepare

SMALL = Simulation(scenes=2, frames=3)
QUIET = RadarNoise(1e6, 0, 0, 0, 0, 0, 0, 0, 0, 0)  # detects every point, exactly


def boxes(*rows):
    """Boxes of (centre, size, speed, kind)."""
    parts = (
        np.array(part, float) for part in zip(*((c, s, v) for c, s, v, _ in rows), strict=True)
    )
    kinds = np.array([KINDS.index(kind) for *_, kind in rows])
    return Boxes(*parts, kinds, np.ones(len(rows)))


def examples(root):
    files = VolumeFiles(2, 2**20)
    frames = [frame for scene in find_scenes(root) for frame in scene.frames]
    shape = files.read(frames[0].radar, "radar").shape
    source = VoxelPairs(frames, files, Grid("native", (0, 0, 0), (2, 4, 4)), shape, None)
    return [source.example(i, None) for i in range(len(source))]


def test_the_same_seed_gives_the_same_bytes_another_seed_or_scene_others(tmp_path):
    one, two = (generated.synthesize(tmp_path / name, SMALL) for name in "ab")
    files = sorted(path.relative_to(one) for path in one.rglob("*.npz"))
    assert len(files) == 2 * 3 * 2
    for name in files:
        assert (one / name).read_bytes() == (two / name).read_bytes()
    other = generated.cached(tmp_path, dataclasses.replace(SMALL, seed=1))
    bytes_of = [(root / files[0]).read_bytes() for root in (one, other)]
    assert bytes_of[0] != bytes_of[1]
    assert (one / files[0]).read_bytes() != (one / files[-1]).read_bytes()
    longer = dataclasses.replace(SMALL, scenes=3)
    for a, b in zip(synthetic.drive(SMALL, 1), synthetic.drive(longer, 1), strict=True):
        np.testing.assert_array_equal(a.radar.points, b.radar.points)


def test_the_cache_is_built_once_and_tells_its_geometry(tmp_path):
    calls = []
    folder = generated.cached(tmp_path, SMALL, lambda *args: calls.append(args))
    assert calls == [(k, 6) for k in range(1, 7)]
    again = generated.cached(tmp_path, SMALL, lambda *args: pytest.fail("built again"))
    assert again == folder
    assert native_geometry(folder, (64, 64, 16), ()).size == (0.5, 0.5, 0.5)
    example = examples(folder)[0]
    assert example["target"].shape == (16, 64, 64, 4)


@pytest.mark.parametrize("grid", [(8, 32, 32), (16, 32, 64)])
def test_any_grid_covers_the_same_street(tmp_path, grid):
    depth, height, width = grid
    large = dataclasses.replace(SMALL, frames=1)
    sized = dataclasses.replace(large, depth=depth, height=height, width=width)
    small = examples(generated.synthesize(tmp_path / "a", sized))[0]
    assert small["target"].shape == (*grid, 4)
    whole = examples(generated.synthesize(tmp_path / "b", large))[0]
    # Bins of the small grid hold what their voxels of the large one hold, but for a moved border.
    d, h, w = (n // m for n, m in zip((16, 64, 64), grid, strict=True))
    pooled = whole["target"][..., 0].reshape(depth, d, height, h, width, w).max(axis=(1, 3, 5))
    both = np.minimum(pooled, small["target"][..., 0]).sum()
    either = np.maximum(pooled, small["target"][..., 0]).sum()
    assert both / either > 0.8


def test_radar_tells_of_the_target_without_giving_it_away(tmp_path):
    simulation = dataclasses.replace(SMALL, scenes=4, frames=2)
    geometry = Geometry.of(simulation.ranges, (64, 64, 16))
    states = {"raw": [], "dilated": [], "shuffled": []}
    found = examples(generated.synthesize(tmp_path / "a", simulation))
    for i, example in enumerate(found):
        target, weight = example["target"], example["weight"]
        methods = {
            "raw": example["radar"],
            "dilated": dilated(example["radar"], 1),
            "shuffled": dilated(found[i - 2]["radar"], 1),  # of another street
        }
        for name, volume in methods.items():
            states[name].append(compare(volume, target, weight, geometry, 0)["voxel"])
    cells = {}
    for name, each in states.items():
        total = each[0]
        for one in each[1:]:
            total = total.merge(one)
        cells[name] = total.compute("voxel")
    assert 0.03 < cells["raw"]["iou"] < 0.2
    assert 0.3 < cells["raw"]["precision"] < 0.9
    assert cells["dilated"]["recall"] > 0.4
    assert cells["raw"]["iou"] < cells["dilated"]["iou"] < 0.35
    assert cells["shuffled"]["iou"] < cells["dilated"]["iou"] / 2
    share = np.mean([example["target"][..., 0].mean() for example in found])
    assert 0.005 < share < 0.08


def test_values_are_those_of_streets(tmp_path):
    for example in examples(generated.synthesize(tmp_path / "a", SMALL)):
        radar, target = example["radar"], example["target"]
        hit, seen = radar[..., 0] > 0, target[..., 0] > 0
        assert 50 < hit.sum() < seen.sum()
        assert target[seen, 1].min() > 0
        assert target[seen, 1].max() <= 255
        assert np.abs(radar[hit, 2]).max() < 30
        assert radar[hit, 3].min() >= 0
        assert 0.2 < target[seen, 3].mean() < 0.95
        assert not target[seen & (target[..., 3] == 0), 2].any()
        assert len(np.unique(target[seen, 1])) > 20
        assert not seen[0].all()  # the ground is not seen


def test_the_nearer_box_hides_the_one_behind():
    near, far = ((10, 0, 0), (1, 4, 4), 0, "wall"), ((20, 0, 0), (1, 4, 4), 0, "wall")
    both = visible_surface(boxes(near, far), 0.25)
    assert both.box.tolist() == [0] * 16**2  # all of the front, a point every .25 m
    aside = ((20, 12, 0), (1, 4, 4), 0, "wall")
    surface = visible_surface(boxes(near, aside), 0.25)
    assert set(surface.box) == {0, 1}
    partly = ((20, 4, 0), (1, 4, 4), 0, "wall")  # in the shadow up to y = 20 · 2 / 9.5
    surface = visible_surface(boxes(partly, near), 0.25)
    edge = surface.points[(surface.box == 0) & (surface.points[:, 0] < 19.6), 1].min()
    np.testing.assert_allclose(edge, 19.5 * 2 / 9.5, atol=0.25)
    surface = visible_surface(boxes(near, aside), 0.25)
    # Only sides turned to the sensors: the front of one, front and inner side of the other.
    assert surface.points[surface.box == 0, 0].max() < 9.6
    assert surface.points[surface.box == 1, 1].max() < 14
    assert surface.points[surface.box == 1, 1].min() < 10.01


def test_doppler_is_the_speed_along_the_line_of_sight():
    scene = boxes(((10, 0, 0), (2, 2, 2), 3.0, "vehicle"), ((10, 10, 0), (2, 2, 2), -3.0, "wall"))
    surface, _ = both = surfaces(scene, 0.5)
    rng = np.random.default_rng(0)
    cloud = radar_cloud(scene, *both, 0.5, 5.0, QUIET, (0, 32, -16, 16, -2, 6), rng)
    # rate >= 1 for every point: all detected, in order, where they are
    np.testing.assert_allclose(cloud.points, surface.points, atol=1e-5)
    along = surface.points[:, 0] / np.linalg.norm(surface.points, axis=1)
    speed = np.array([3.0, -3.0])[surface.box] - 5.0
    np.testing.assert_allclose(cloud.doppler, speed * along, atol=1e-5)


def test_what_moves_moves_and_what_stands_comes_with_the_car():
    scene = boxes(((10, 0, 0), (2, 2, 2), 3.0, "vehicle"), ((10, 5, 0), (2, 2, 2), 0.0, "wall"))
    later = scene.at(2.0, ego=8.0)
    np.testing.assert_allclose(later.centre[:, 0], [10 + 6 - 8, 10 - 8])
    street = synthetic.random_street(60.0, np.random.default_rng(0))
    bottom = street.centre[:, 2] - street.size[:, 2] / 2
    np.testing.assert_allclose(bottom, GROUND)
    assert not street.speed[street.kind != KINDS.index("vehicle")].any()
    assert street.speed[street.kind == KINDS.index("vehicle")].any()


def test_raw_clouds_prepare_to_the_volumes(tmp_path):
    volumes = generated.synthesize(tmp_path / "volumes", SMALL)
    clouds = generated.synthesize(tmp_path / "clouds", dataclasses.replace(SMALL, clouds=True))
    job = Prepare(ranges=SMALL.ranges, resolution=0.5)
    assert job.run(clouds, tmp_path / "store", lambda *args: None) == (2, 0, [])
    differ = total = 0
    for a, b in zip(examples(volumes), examples(tmp_path / "store"), strict=True):
        differ += (a["radar"][..., 0] != b["radar"][..., 0]).sum()
        total += (a["radar"][..., 0] > 0).sum()
        np.testing.assert_array_equal(a["target"][..., :2], b["target"][..., :2])
    # There and back through the calibration, a point may round over a voxel's border: its printed
    # rotation misses a true one by 1e-6 · 30 m of .5 m voxels.
    assert differ <= 0.005 * total
    _, _, radar, lidar = next(iter(synthetic.drive(SMALL, 0)))
    direct = radar_volume(radar, SMALL.grid, np.eye(4))
    expected = target_volume(lidar, direct, SMALL.grid, 1).dense()
    np.testing.assert_array_equal(examples(volumes)[0]["target"], expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scenes", 0),
        ("depth", 0),
        ("missed", 1.5),
        ("clutter", -1),
        ("distance_noise_m", -1),
        ("seconds_per_frame", 0),
        ("ranges", (0.0, 1.0)),
        ("ranges", (0.0, 32.0, 16.0, -16.0, -2.0, 6.0)),
    ],
)
def test_impossible_simulations_are_refused(name, value):
    with pytest.raises(UserError, match=f"synthetic {name}="):
        Simulation(**{name: value})


def test_a_mirror_image_is_as_far_behind_the_wall_as_its_origin_before_it():
    """By hand: a wall from x = 4 to 16 whose face is at y = 5; z up to 2."""
    centre, size = np.array([10.0, 6.0, 0.0]), np.array([12.0, 2.0, 4.0])
    points = np.array([[10.0, 1.0, 0.0], [30.0, 2.0, 0.0], [10.0, 7.0, 0.0], [10.0, 2.0, 6.0]])
    # The way to (10, 9) meets the face at x = 50 / 9; that to (30, 8) at 18.75, past the wall;
    # (10, 7) is behind the face; the way to (10, 8, 6) meets it at z = 3.75, above the wall.
    found = mirrored(points, centre, size)
    np.testing.assert_allclose(found.points, [[10.0, 9.0, 0.0]])
    assert found.origin.tolist() == [0]
    other = mirrored(points * (1, -1, 1), centre * (1, -1, 1), size)
    np.testing.assert_allclose(other.points, [[10.0, -9.0, 0.0]])


def test_a_radar_hears_ghosts_and_looks_under_vehicles_a_lidar_does_not():
    wall = ((12, 8, 0), (24, 2, 4), 0, "wall")
    vehicle, hidden = ((8, 0, 0), (2, 2, 2), 3.0, "vehicle"), ((14, 0, 0), (1, 1, 1), 0, "pole")
    scene = boxes(wall, vehicle, hidden)
    seen, veiled = surfaces(scene, 0.5)
    assert 2 not in seen.box
    assert set(veiled.box) == {2}
    blocked = boxes(wall, (*vehicle[:3], "wall"), hidden)
    assert not len(surfaces(blocked, 0.5)[1].box)  # a wall is not looked through

    def heard(**changes):
        noise = dataclasses.replace(QUIET, **changes)
        ranges, rng = (0, 32, -16, 16, -2, 6), np.random.default_rng(0)
        return radar_cloud(scene, seen, veiled, 0.5, 5.0, noise, ranges, rng)

    plain, all_of_it = heard(), heard(veiled=1.0, ghosts=1.0)
    assert len(plain.points) == len(seen.points)
    under = all_of_it.points[:, 0] > 12
    assert (under & (np.abs(all_of_it.points[:, 1]) < 1)).any()
    behind = all_of_it.points[:, 1] > 7.5
    assert behind.any()
    assert not (plain.points[:, 1] > 7.5).any()
    # A moving vehicle's ghost moves along its own line of sight; it is heard more weakly.
    moving = behind & (all_of_it.points[:, 0] < 10)
    along = all_of_it.points[:, 0] / np.linalg.norm(all_of_it.points, axis=1)
    np.testing.assert_allclose(all_of_it.doppler[moving], -2.0 * along[moving], atol=1e-5)
    assert all_of_it.intensity[moving].max() < plain.intensity.max()


def test_poses_say_how_far_the_car_has_driven(tmp_path):
    root = generated.synthesize(tmp_path / "a", SMALL)
    poses = read_poses(root / "street01")
    metres = [moment.metres for moment in synthetic.drive(SMALL, 1)]
    assert list(poses) == ["000000", "000001", "000002"]
    np.testing.assert_allclose([pose[0, 3] for pose in poses.values()], metres, rtol=1e-8)
    (tmp_path / "poses.txt").write_text("a 1 2 3 0 0 0\n")
    with pytest.raises(UserError, match=r"poses.txt: line 'a 1 2 3 0 0 0' is no pose"):
        read_poses(tmp_path)
    with pytest.raises(UserError, match=r"poses.txt is not there, and data.sweeps above 1"):
        read_poses(root)
