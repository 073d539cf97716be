"""Sharpness, reliability and samples, where the right number is known; blocks of frames."""

import numpy as np
import pytest

from tds_jax.engine import metrics
from tds_jax.voxel.data.volumes import Frame, Place
from tds_jax.voxel.distributions import Patterns, Reliability, of_samples
from tds_jax.voxel.spread import blocks_of


def jsd(predicted, true):
    return Patterns.of(predicted, true).compute("pattern")["pattern_jsd"]


def test_the_same_patterns_elsewhere_are_alike_and_blurred_ones_are_not():
    rng = np.random.default_rng(0)
    truth = rng.uniform(size=(8, 40, 40)) < 0.1
    assert jsd(truth, truth) == 0
    other = rng.uniform(size=truth.shape) < 0.1
    assert jsd(other, truth) < 0.02  # 6,000 patterns, of some of 255 kinds a handful
    thick = truth | np.roll(truth, 1, axis=1) | np.roll(truth, 1, axis=2)
    assert jsd(thick, truth) > 0.1
    one, two = np.zeros((2, 2, 2), bool), np.zeros((2, 2, 2), bool)
    one[0, 0, 0] = two[1, 1, 1] = True
    assert jsd(one, two) == pytest.approx(1)  # nothing in common: one bit
    assert np.isnan(jsd(np.zeros_like(one), two))


def test_patterns_of_frames_add_up():
    rng = np.random.default_rng(1)
    frames = rng.uniform(size=(3, 2, 4, 6, 6)) < 0.3
    parts = [{"pattern": Patterns.of(*pair)} for pair in frames]
    total = metrics.merge_all(parts)["pattern"]
    counts = np.sum([part["pattern"].predicted for part in parts], axis=0)
    np.testing.assert_array_equal(total.predicted, counts)
    assert total.predicted.sum() == 3 * 3 * 5 * 5


def test_a_probability_that_keeps_its_word_is_reliable():
    rng = np.random.default_rng(2)
    p = rng.uniform(size=200_000)
    true = rng.uniform(size=p.size) < p
    told = Reliability.of(p, true).compute("reliability")
    assert told["ece"] < 0.01  # standard errors of 20,000 cells a bin: 0.0035
    assert told["brier"] == pytest.approx(1 / 6, abs=0.005)  # mean of p (1 - p)
    bold = Reliability.of(np.where(p > 0.5, 1.0, 0.0), true).compute("reliability")
    assert bold["ece"] == pytest.approx(0.25, abs=0.01)
    assert bold["brier"] == pytest.approx(0.25, abs=0.01)


def test_samples_are_judged_one_by_one_at_best_and_by_how_they_differ():
    true = np.zeros((1, 2, 4), bool)
    true[0, 0] = True  # four cells
    half = true.copy()
    half[0, 0, 2:] = False  # two of them
    found = metrics.compute(of_samples([true, half], true))
    assert found["best_iou"] == 1
    assert found["sample_iou"] == pytest.approx(6 / 8)
    assert found["diversity"] == pytest.approx(1 - 2 / 4)
    same = metrics.compute(of_samples([half, half], true))
    assert same["diversity"] == 0
    assert same["best_iou"] == same["sample_iou"] == 0.5
    nothing = np.zeros_like(true)
    assert metrics.compute(of_samples([nothing, nothing], true))["diversity"] == 0


def frames(*counts):
    place = Place("x")
    return [
        Frame(f"scene{n}", str(i), place, place) for n, count in enumerate(counts)
        for i in range(count)
    ]  # fmt: skip


def test_blocks_are_scenes_where_there_are_enough_and_runs_of_frames_where_not():
    block, words = blocks_of(frames(2, 3, 1, 2, 2))
    assert block.tolist() == [0, 0, 1, 1, 1, 2, 3, 3, 4, 4]
    assert str(words) == "5 scenes"
    block, words = blocks_of(frames(40, 16))
    assert str(words) == "7 runs of frames of 2 scenes"
    assert block.tolist() == sorted(block)
    assert np.bincount(block).tolist() == [8] * 7
    block, words = blocks_of(frames(9))
    assert set(block) == {0}
    assert str(words) == "1 runs of frames of 1 scene"
