"""The linear baseline: fits what is linear, whole or in parts, and is kept with its data."""

import numpy as np
import pytest
from scipy import special

from tds_jax.engine import processes
from tds_jax.progress import silent
from tds_jax.voxel import linear
from tds_jax.voxel.data.volumes import KINDS, write_npz
from tests.engine.together import OfTheFirst
from tests.voxel.files import make_volume, write_scene
from tests.voxel.small import small_task


def test_odds_that_are_a_sum_of_terms_are_found():
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.normal(size=(40_000, 2)) * [1, 50], np.ones(40_000)])
    weights = np.array([1.5, -0.02, -1.0])
    full = rng.uniform(size=len(rows)) < special.expit(rows @ weights)
    found = linear.logistic(rows.astype(np.float32), full)
    # standard errors of 40,000 rows are below 0.02 of the weights
    np.testing.assert_allclose(found, weights, rtol=0.06)


def test_squares_in_parts_are_those_of_all_rows():
    rng = np.random.default_rng(1)
    rows, weights = rng.normal(size=(500, 3)), np.array([2.0, -1.0, 0.5])
    sums = linear.Squares()
    for part in np.split(rows, 5):
        sums.add(part, part @ weights)
    np.testing.assert_allclose(sums.solved(), weights, rtol=1e-3)  # RIDGE is 1e-4
    nothing = linear.Squares()
    nothing.add(rows[:0], np.zeros(0))
    np.testing.assert_array_equal(nothing.solved(), 0)


def test_blurs_are_of_the_radar_and_turn_with_it():
    rng = np.random.default_rng(2)
    task_radar = np.zeros((4, 8, 8, 4), np.float32)
    task_radar[tuple(rng.integers(0, 4, (3, 6)))] = [1, 3, -2, 0]
    known = type("Known", (), {
        "radar_mean": np.array([0, 1, 1, 0], np.float32),
        "radar_scale": np.full(4, 2, np.float32),
        "prior": np.full((4, 8, 8, 4), 0.25, np.float32),
    })()  # fmt: skip
    found = linear.terms(task_radar, known)
    turned = linear.terms(np.flip(task_radar, axis=2), known)
    np.testing.assert_allclose(np.flip(found, axis=2), turned, atol=1e-6)
    # without a blur the first three terms are the radar's own, in units of its spread
    full = task_radar[..., 0]
    np.testing.assert_array_equal(found[..., 0], full)
    np.testing.assert_array_equal(found[..., 1], full * (task_radar[..., 1] - 1) / 2)
    np.testing.assert_array_equal(found[..., 2], full * (task_radar[..., 2] - 1) / 2)
    assert not linear.terms(np.zeros_like(task_radar), known)[..., 27 * 3 : 27 * 4].any()


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return small_task(tmp_path_factory.mktemp("linear"), data__synthetic_frames=8)


def test_it_knows_more_than_the_prior_and_answers_in_the_targets_units(task):
    charges = []
    for pairs in (task.data.pairs(split) for split in ("train", "test")):
        for i in range(len(pairs)):
            example = pairs.example(i, None)
            full = example["target"][..., 0] > 0
            said = task.linear(example["radar"]), task.data.statistics.prior
            charges.append([np.square(volume[..., 0] - full).mean() for volume in said])
            values = said[0][full, 1]
            assert abs(values.mean() - example["target"][full, 1].mean()) < 40
    own, prior = np.mean(charges, axis=0)
    assert own < 0.9 * prior


def test_it_is_fitted_once_for_each_data_set(tmp_path):
    for number, name in enumerate("abcd"):
        write_scene(tmp_path, name, shape=(8, 8, 4), seed=50 * number)
    given = {"data__path": str(tmp_path)}
    first = small_task(tmp_path, **given).linear
    kept = list((tmp_path / "cache" / "linear").iterdir())
    assert len(kept) == 1
    before = kept[0].stat().st_mtime_ns
    again = small_task(tmp_path, **given).linear
    np.testing.assert_array_equal(first.odds, again.odds)
    assert kept[0].stat().st_mtime_ns == before
    for path in (tmp_path / "a" / "radar_voxel").iterdir():  # of the train split
        path.write_bytes((tmp_path / "d" / "radar_voxel" / path.name).read_bytes())
    other = small_task(tmp_path, **given).linear
    assert not np.array_equal(first.odds, other.odds)
    assert len(list((tmp_path / "cache" / "linear").iterdir())) == 2


def test_it_is_fitted_by_the_first_of_several_processes(tmp_path, monkeypatch):
    task = small_task(tmp_path)
    monkeypatch.setattr(linear, "fit", lambda *_: pytest.fail("fitted here"))
    monkeypatch.setattr(processes, "by_first", OfTheFirst.asked)
    with pytest.raises(OfTheFirst):
        task.linear  # noqa: B018


def streets(root, names, frames=2):
    """Scenes whose targets stand at places of their own, all frames alike, and radars of noise."""
    for number, name in enumerate(names):
        write_scene(root, name, frames, seed=50 * number, shape=(8, 8, 4))
        for path in (root / name / "target_voxel").iterdir():
            write_npz(path, make_volume(1000 + number, shape=(8, 8, 4)))


def test_a_prior_that_tells_nothing_of_other_scenes_is_not_trusted(tmp_path):
    streets(tmp_path, "abcdefghijklmnopqrst")
    task = small_task(tmp_path, data__path=str(tmp_path))
    known = task.data.statistics
    odds, _ = linear.fit(task.data, known, silent)
    found = linear.terms(np.zeros((4, 8, 8, 4), np.float32), known)
    chance = special.expit(found @ odds)
    # Scenes share places by chance alone: where others were occupied says nothing, a ratio of 1. Of
    # 14 scenes it is 1.4; it is 66 when a frame's own prior knows the frame.
    often = known.prior[..., 0] > 0
    assert chance[often].mean() < 3 * chance[~often].mean()


def random_scenes(root):
    for number, name in enumerate("abcdef"):
        write_scene(root, name, frames=3, seed=50 * number, shape=(8, 8, 4))


def others_of(pairs, index):
    """Targets of frames of other scenes."""
    scene = pairs.frames[index].scene
    rest = [i for i, frame in enumerate(pairs.frames) if frame.scene != scene]
    return np.stack([pairs.example(i, None)["target"] for i in rest])


def test_the_prior_held_out_is_of_the_other_scenes_and_of_all_in_what_it_does_not_know(tmp_path):
    random_scenes(tmp_path)
    data = small_task(tmp_path, data__path=str(tmp_path)).data
    pairs, known = data.pairs("train"), data.statistics
    seen = []
    for index, example, others in linear.held_out(pairs, known):
        targets = others_of(pairs, index)
        often = targets[..., 0].mean(axis=0)
        np.testing.assert_allclose(others.prior[..., 0], often, rtol=1e-6)
        here = often > 0
        # 9 values of about 5 were added and 3 taken away again, in f32
        expected = targets[..., 1].sum(axis=0)[here] / targets[..., 0].sum(axis=0)[here]
        np.testing.assert_allclose(others.prior[here, 1], expected, rtol=1e-5)
        valid = targets[..., 3].sum(axis=0)
        doppler = (targets[..., 2] * targets[..., 3]).sum(axis=0)[valid > 0] / valid[valid > 0]
        np.testing.assert_allclose(others.prior[valid > 0, 2], doppler, rtol=1e-5)
        np.testing.assert_array_equal(others.prior[~here, 1], known.target_mean[1])
        np.testing.assert_array_equal(others.radar_mean, known.radar_mean)
        np.testing.assert_array_equal(example["target"], pairs.example(index, None)["target"])
        seen.append(index)
    assert sorted(seen) == list(range(len(pairs)))


def test_of_one_scene_the_prior_held_out_is_of_the_other_frames(tmp_path):
    write_scene(tmp_path, "a", frames=6, shape=(8, 8, 4))
    data = small_task(tmp_path, data__path=str(tmp_path)).data
    pairs = data.pairs("train")
    targets = np.stack([pairs.example(i, None)["target"] for i in range(len(pairs))])
    assert len(targets) > 2
    for index, _, others in linear.held_out(pairs, data.statistics):
        rest = np.delete(targets, index, axis=0)
        np.testing.assert_allclose(others.prior[..., 0], rest[..., 0].mean(axis=0), rtol=1e-6)


def test_frames_that_the_prior_was_not_counted_from_are_not_taken_out_of_it(tmp_path):
    random_scenes(tmp_path)
    given = {"data__path": str(tmp_path), "data__max_statistics_frames": 2}
    data = small_task(tmp_path, **given).data
    pairs, known = data.pairs("train"), data.statistics
    first, last = (pairs.example(i, None)["target"][..., 0] for i in (0, len(pairs) - 1))
    of = {pairs.frames[0].scene: last, pairs.frames[-1].scene: first}
    for index, _, others in linear.held_out(pairs, known):
        expected = of.get(pairs.frames[index].scene, (first + last) / 2)
        np.testing.assert_array_equal(others.prior[..., 0], expected)
    only = small_task(tmp_path, **given | {"data__max_statistics_frames": 1}).data.statistics
    nothing = only.without(only.counts).prior
    np.testing.assert_allclose(nothing[..., 0], only.occupancy)


class Streets:
    """Volumes of a source; how many of them make a street changes no volume."""

    each = 2

    def __len__(self):
        return 12

    def __getitem__(self, number):
        volumes = (make_volume(2 * number + side, shape=(8, 8, 4)) for side in (0, 1))
        arrays = (np.moveaxis(one.dense(), 0, 2) for one in volumes)  # (X, Y, Z, 4)
        return dict(zip(KINDS, arrays, strict=True))

    def scene(self, number):
        return f"s{number // self.each}" if number < 8 else ("val" if number < 10 else "test")


def test_another_grouping_or_another_prior_is_another_fit(tmp_path, monkeypatch):
    def fits(each, frames):
        monkeypatch.setattr(Streets, "each", each)
        chosen = {"val": ("val",), "test": ("test",)}
        chosen["train"] = tuple(f"s{i}" for i in range(8 // each))
        given = {f"data__{split}_scenes": names for split, names in chosen.items()}
        source = {"data__source": f"{__name__}:Streets", "data__max_statistics_frames": frames}
        assert len(small_task(tmp_path, **given, **source).linear.odds)
        return len(list((tmp_path / "cache" / "linear").iterdir()))

    assert [fits(2, 2000), fits(2, 2000), fits(4, 2000), fits(2, 3)] == [1, 1, 2, 3]


def test_it_learns_from_the_train_split_alone(tmp_path):
    for number, name in enumerate("abcd"):
        write_scene(tmp_path, name, shape=(8, 8, 4), seed=50 * number)

    def fitted():
        task = small_task(tmp_path, data__path=str(tmp_path))
        return linear.fit(task.data, task.data.statistics, silent)

    before = fitted()
    for name in "cd":  # of validation and test
        for path in (tmp_path / name / "target_voxel").iterdir():
            path.write_bytes((tmp_path / "a" / "radar_voxel" / path.name).read_bytes())
    for one, two in zip(before, fitted(), strict=True):
        np.testing.assert_array_equal(one, two)
