"""The linear baseline: fits what is linear, whole or in parts, and is kept with its data."""

import numpy as np
import pytest
from scipy import special

from tds_jax.engine import processes
from tds_jax.progress import silent
from tds_jax.voxel import linear
from tests.engine.together import OfTheFirst
from tests.voxel.files import write_scene
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
