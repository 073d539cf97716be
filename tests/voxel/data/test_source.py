"""Pairs as examples: padding weighs nothing, splits keep scenes apart, statistics see voxels."""

import contextlib
import dataclasses
import pickle

import numpy as np
import pytest

from tds_jax.data.pipeline import Loader
from tds_jax.errors import UserError
from tds_jax.progress import silent
from tds_jax.voxel.data.augment import Augment
from tds_jax.voxel.data.resize import Geometry, Grid
from tds_jax.voxel.data.source import (
    VoxelPairs,
    channel_statistics,
    native_geometry,
    native_shape,
    split_frames,
)
from tds_jax.voxel.data.volumes import VolumeFiles, find_scenes, write_npz
from tests.data.crews import together
from tests.voxel.files import SHAPE, make_volume, write_scene, write_scenes

OFF = Augment(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
NONE = {"train": (), "val": (), "test": ()}
RATIO = (0.7, 0.15, 0.15)
PAD = Grid("pad", (0, 0, 0), (2, 4, 4))


def open_pairs(root, grid=PAD, augment=None, files=None):
    files = files or VolumeFiles(4, 2**20)
    frames = [frame for scene in find_scenes(root) for frame in scene.frames]
    return VoxelPairs(frames, files, grid, native_shape(frames, files), augment)


def test_an_example_is_the_pair_on_the_models_grid(tmp_path):
    source = open_pairs(write_scenes(tmp_path, count=2, frames=3))
    assert (len(source), source.shape) == (6, (4, 8, 8))
    example = source.example(4, None)
    assert {k: (v.shape, v.dtype.name) for k, v in example.items()} == {
        "radar": ((4, 8, 8, 4), "float32"),
        "target": ((4, 8, 8, 4), "float32"),
        "weight": ((4, 8, 8), "float32"),
    }
    np.testing.assert_array_equal(example["radar"][:, :6], make_volume(102).dense())
    np.testing.assert_array_equal(example["target"][:, :6], make_volume(103).dense())
    assert example["weight"].sum() == np.prod(SHAPE)
    assert not example["target"][example["weight"] == 0].any()


def test_resizing_keeps_the_targets_flag_a_flag_and_the_radars_variance_a_value(tmp_path):
    write_scenes(tmp_path, count=1, frames=6)
    source = open_pairs(tmp_path, Grid("resize", (2, 4, 4), (2, 4, 4)))
    found = [source.example(i, None) for i in range(6)]
    assert {*np.unique([one["target"][..., 3] for one in found])} == {0, 1}
    # make_volume's last channel is 0 or 1, so only interpolation gives anything between
    assert len(np.unique([one["radar"][..., 3] for one in found])) > 2
    assert all((one["weight"] == 1).all() for one in found)


def test_workers_read_what_one_process_reads(tmp_path):
    source = open_pairs(write_scenes(tmp_path, count=1), augment=AUGMENT)
    batches = []
    for workers in (0, 1):
        loader = Loader(
            pickle.loads(pickle.dumps(source)),
            micro_batch=3,
            seed=1,
            train=True,
            workers=workers,
            threads=0,
            prefetch=1,
        )
        with contextlib.closing(loader):
            batches.append(next(loader.train_batches(2)))
    for name, leaf in batches[0].items():
        np.testing.assert_array_equal(leaf, batches[1][name])


def test_another_grid_is_named_with_its_file(tmp_path):
    write_scene(tmp_path, "a")
    write_scene(tmp_path, "b", shape=(6, 8, 6))
    source = open_pairs(tmp_path)
    with pytest.raises(UserError, match=r"b.radar_voxel.000000.npz.*\(6, 8, 6\).*\(6, 8, 4\)"):
        source.example(4, None)


def names(frames):
    return [f"{frame.scene}{int(frame.name)}" for frame in frames]


def test_scenes_are_dealt_whole_and_in_order(tmp_path):
    scenes = find_scenes(write_scenes(tmp_path, count=6, frames=2))
    parts, warnings = split_frames(scenes, NONE, RATIO)
    assert {split: names(part) for split, part in parts.items()} == {
        "train": ["a0", "a1", "b0", "b1", "c0", "c1", "d0", "d1"],
        "val": ["e0", "e1"],
        "test": ["f0", "f1"],
    }
    assert warnings == []
    chosen = {"train": ("f",), "val": ("a",), "test": ("b", "c")}
    parts, warnings = split_frames(scenes, chosen, RATIO)
    assert names(parts["train"]) == ["f0", "f1"]
    assert names(parts["test"]) == ["b0", "b1", "c0", "c1"]
    assert warnings == []


def test_too_few_scenes_are_cut_in_time_and_said(tmp_path):
    write_scenes(tmp_path, count=2, frames=10)
    two = find_scenes(tmp_path)
    parts, warnings = split_frames(two, NONE, RATIO)
    # .7 / .85 of 10 frames
    assert names(parts["train"]) == [f"a{i}" for i in range(8)]
    assert names(parts["val"]) == ["a8", "a9"]
    assert names(parts["test"]) == [f"b{i}" for i in range(10)]
    assert len(warnings) == 1
    assert "val get the last frames of the train scenes (a)" in warnings[0]
    parts, warnings = split_frames(two[:1], NONE, (0.6, 0.2, 0.2))
    assert [len(parts[split]) for split in ("train", "val", "test")] == [6, 2, 2]
    assert names(parts["test"]) == ["a8", "a9"]
    assert "val and test get" in warnings[0]


def test_a_scene_in_two_splits_is_said_and_an_unknown_one_refused(tmp_path):
    scenes = find_scenes(write_scenes(tmp_path, count=2, frames=2))
    chosen = {"train": ("a", "b"), "val": ("b",), "test": ("b",)}
    _, warnings = split_frames(scenes, chosen, RATIO)
    assert [line.split(":")[0] for line in warnings] == [
        "val shares b with train",
        "test shares b with train",
    ]
    with pytest.raises(UserError, match=r"data.test_scenes names 'c', the folder has a, b"):
        split_frames(scenes, chosen | {"test": ("c",)}, RATIO)
    with pytest.raises(UserError, match=r"data.train_scenes is empty; choose some of a, b"):
        split_frames(scenes, NONE | {"test": ("a",)}, RATIO)


def test_the_folder_says_where_its_voxels_are_or_the_settings_do(tmp_path):
    ranges = (0.0, 3.0, -2.0, 2.0, -1.0, 1.0)
    expected = Geometry((4, 6, 8), (-1, 0, -2), (0.5, 0.5, 0.5))
    assert native_geometry(tmp_path, SHAPE, ranges) == expected
    path = tmp_path / "geometry.json"
    path.write_text('{"ranges": [0, 6, -2, 2, -1, 1], "shape": [6, 8, 4]}')
    assert native_geometry(tmp_path, SHAPE, ranges).size == (0.5, 1.0, 0.5)
    with pytest.raises(UserError, match=r"geometry.json: shape \(6, 8, 4\).*\(6, 8, 5\)"):
        native_geometry(tmp_path, (6, 8, 5), ranges)
    path.write_text("{}")
    with pytest.raises(UserError, match="not as prepare writes it"):
        native_geometry(tmp_path, SHAPE, ranges)


def test_statistics_are_those_of_occupied_voxels(tmp_path):
    write_scenes(tmp_path, count=2, frames=3)
    source = open_pairs(tmp_path)
    found = channel_statistics(source, max_frames=100)
    radar = np.concatenate([make_volume(s + 2 * i).features for s in (0, 100) for i in range(3)])
    target = np.concatenate(
        [make_volume(s + 2 * i + 1).features for s in (0, 100) for i in range(3)]
    )
    # f32 results of f64 sums
    np.testing.assert_allclose(found.radar_mean[1:], radar[:, 1:].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.radar_scale[1:], radar[:, 1:].std(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.target_mean[1], target[:, 1].mean(), rtol=1e-6)
    doppler = target[target[:, 3] > 0, 2]
    np.testing.assert_allclose(found.target_mean[2], doppler.mean(), rtol=1e-6)
    np.testing.assert_allclose(found.target_scale[2], doppler.std(), rtol=1e-6)
    for mean, scale in ((found.radar_mean[0], found.radar_scale[0]), (found.target_mean[3], 1)):
        assert (mean, scale) == (0, 1)
    np.testing.assert_allclose(found.occupancy, 12 / np.prod(SHAPE))  # padding does not count
    assert found.empty == 0
    stacked = np.stack([source.example(i, None)["target"] for i in range(6)])
    np.testing.assert_allclose(found.prior[..., 0], stacked[..., 0].mean(axis=0), rtol=1e-6)
    here = stacked[..., 0].sum(axis=0) > 0
    mean = stacked[..., 1].sum(axis=0)[here] / stacked[..., 0].sum(axis=0)[here]
    np.testing.assert_allclose(found.prior[here, 1], mean, rtol=1e-6)
    valid = stacked[..., 3].sum(axis=0)
    doppler = (stacked[..., 2] * stacked[..., 3]).sum(axis=0)[valid > 0] / valid[valid > 0]
    np.testing.assert_allclose(found.prior[valid > 0, 2], doppler, rtol=1e-5)
    np.testing.assert_array_equal(found.prior[valid == 0, 2], found.target_mean[2])
    np.testing.assert_array_equal(found.prior[~here, 1], found.target_mean[1])


def leaves(statistics):
    found = dataclasses.asdict(statistics)
    return found | found.pop("counts")


def test_statistics_by_several_are_those_by_one_even_if_one_has_no_frame(tmp_path):
    write_scenes(tmp_path, count=1, frames=3)
    source = open_pairs(tmp_path)
    alone = leaves(channel_statistics(source, 100))
    for found in together(4, lambda crew: channel_statistics(source, 100, silent, crew)):
        for name, value in leaves(found).items():
            np.testing.assert_allclose(value, alone[name], rtol=1e-5)  # f32 sums of 3 frames


def test_statistics_of_some_frames_and_of_empty_ones(tmp_path):
    write_scenes(tmp_path, count=1, frames=5)
    nothing = dataclasses.replace(
        make_volume(0), coords=np.zeros((0, 3), int), features=np.zeros((0, 4), np.float32)
    )
    write_npz(tmp_path / "a" / "radar_voxel" / "000004.npz", nothing)
    calls = []
    found = channel_statistics(
        open_pairs(tmp_path), max_frames=2, progress=lambda *args: calls.append(args)
    )
    assert calls == [(1, 2), (2, 2)]  # the first and the last frame
    assert found.empty == 1
    np.testing.assert_allclose(
        found.radar_mean[1:], make_volume(0).features[:, 1:].mean(axis=0), rtol=1e-6
    )


AUGMENT = Augment(
    flip=0.5,
    noise=0.5,
    intensity_noise=0.1,
    doppler_noise=0.2,
    dropout=0.5,
    dropout_rate=0.3,
    intensity=0.5,
    intensity_scale=0.1,
    doppler=0.5,
    doppler_shift=0.5,
)


def pair():
    weight = np.ones((4, 6, 8), np.float32)
    weight[..., -2:] = 0
    return make_volume(0).dense(), make_volume(1).dense(), weight


def augmented(seed, **always):
    """What one change, made for sure, does to the pair."""
    return dataclasses.replace(OFF, **always)(*pair(), np.random.default_rng(seed))


def test_without_a_generator_or_with_probability_0_nothing_changes(tmp_path):
    for found, expected in zip(augmented(0), pair(), strict=True):
        np.testing.assert_array_equal(found, expected)
    write_scenes(tmp_path, count=1)
    plain, changing = open_pairs(tmp_path), open_pairs(tmp_path, augment=AUGMENT)
    for name, leaf in plain.example(0, None).items():
        np.testing.assert_array_equal(leaf, changing.example(0, None)[name])
    first, again = (changing.example(0, np.random.default_rng(3)) for _ in range(2))
    for name, leaf in first.items():
        np.testing.assert_array_equal(leaf, again[name])
        assert leaf.dtype == np.float32
    assert any(
        not np.array_equal(first["radar"], changing.example(0, np.random.default_rng(s))["radar"])
        for s in range(5)
    )


def test_a_flip_mirrors_the_lateral_axis_of_all_three():
    for found, expected in zip(augmented(0, flip=1), pair(), strict=True):
        np.testing.assert_array_equal(found, expected[:, :, ::-1])


def test_intensity_is_scaled_together():
    radar, target, _ = augmented(0, intensity=1, intensity_scale=0.2)
    old_radar, old_target, _ = pair()
    factor = radar[..., 1].sum() / old_radar[..., 1].sum()
    assert 0.8 <= factor <= 1.2
    assert factor != 1
    np.testing.assert_allclose(target[..., 1], factor * old_target[..., 1], rtol=1e-5)
    np.testing.assert_array_equal(radar[..., [0, 2, 3]], old_radar[..., [0, 2, 3]])


def test_doppler_is_shifted_together_where_there_is_one():
    radar, target, _ = augmented(0, doppler=1, doppler_shift=0.5)
    old_radar, old_target, _ = pair()
    moved, moved_target = radar - old_radar, target - old_target
    shift = moved[..., 2].max() or moved[..., 2].min()
    assert 0 < abs(shift) <= 0.5
    np.testing.assert_allclose(moved[..., 2], shift * old_radar[..., 0], atol=1e-6)
    np.testing.assert_allclose(moved_target[..., 2], shift * old_target[..., 3], atol=1e-6)
    assert not moved[..., [0, 1, 3]].any()


def test_noise_and_dropout_touch_occupied_radar_voxels_only():
    old_radar, old_target, _ = pair()
    noisy, target, _ = augmented(0, noise=1, intensity_noise=0.1, doppler_noise=0.2)
    np.testing.assert_array_equal(target, old_target)
    changed = noisy != old_radar
    np.testing.assert_array_equal(changed[..., 1], old_radar[..., 0] > 0)
    assert not changed[..., [0, 3]].any()
    lost = [augmented(s, dropout=1, dropout_rate=0.3)[0] for s in range(100)]
    share = np.mean([np.count_nonzero(one[..., 0]) for one in lost]) / 12
    np.testing.assert_allclose(share, 0.7, atol=3 * np.sqrt(0.21 / 1200))  # 3 SE
    assert not lost[0][lost[0][..., 0] == 0].any()


@pytest.mark.parametrize("name", ["flip", "dropout_rate"])
def test_impossible_probabilities_are_refused(name):
    with pytest.raises(UserError, match=f"data.augment_{name}=1.5"):
        dataclasses.replace(OFF, **{name: 1.5})
    with pytest.raises(UserError, match=r"doppler_noise=-1"):
        dataclasses.replace(OFF, doppler_noise=-1)
