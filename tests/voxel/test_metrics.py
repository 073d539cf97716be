"""Metrics by their definitions, on volumes small enough to count by hand; empty ones said."""

import numpy as np
import pytest

from tds_jax.engine import metrics as engine
from tds_jax.voxel.data.resize import Geometry
from tds_jax.voxel.metrics import (
    Cells,
    Points,
    ThresholdSweep,
    compare,
    dilated,
    reached_bands,
    split_groups,
)

SHAPE = (4, 6, 8)
# x 0 ... 30 m in 5 m voxels, y -4 ... 4 m in 1 m, z -2 ... 2 m in 1 m
GEOMETRY = Geometry.of((0, 30, -4, 4, -2, 2), (6, 8, 4))
ONES = np.ones(SHAPE, np.float32)


def volume(*places, value=1.0):
    array = np.zeros((*SHAPE, 4), np.float32)
    for place in places:
        array[place] = (1, value, value, 1)
    return array


def values(prediction, target, weight=ONES, threshold=0.5):
    whole, groups = split_groups(compare(prediction, target, weight, GEOMETRY, threshold))
    return engine.compute(whole), {name: engine.compute(one) for name, one in groups.items()}


def test_cells_by_hand():
    # one hit, one false voxel above the hit, one missed in another column
    found, _ = values(volume((0, 0, 0), (1, 0, 0)), volume((0, 0, 0), (0, 5, 7)))
    assert (found["iou"], found["precision"], found["recall"]) == (1 / 3, 1 / 2, 1 / 2)
    assert found["f1"] == 1 / 2
    # from above the two predicted voxels are one cell
    assert (found["bev_iou"], found["bev_precision"], found["bev_recall"]) == (1 / 2, 1, 1 / 2)
    assert found["count_ratio"] == 1


def test_distances_by_hand():
    # predicted at x 2.5 and 7.5, true at x 2.5 and 27.5 m, otherwise alike
    found, _ = values(volume((0, 0, 0), (0, 1, 0)), volume((0, 0, 0), (0, 5, 0)))
    np.testing.assert_allclose(found["chamfer_m"], (0 + 5) / 2 + (0 + 20) / 2)
    np.testing.assert_allclose(found["hausdorff_m"], 20)
    assert (found["near_precision"], found["near_recall"], found["near_f1"]) == (0.5, 0.5, 0.5)


def test_recall_counts_true_points_not_predicted_ones():
    # Three predictions around one of two true points: 3 / (3 + 1) would be the original's "recall".
    predicted = np.array([[0, 0, 0], [0.3, 0, 0], [0, 0.3, 0]])
    found = Points.of(predicted, np.array([[0.0, 0, 0], [9, 0, 0]])).compute("points")
    assert (found["near_precision"], found["near_recall"]) == (1, 0.5)
    assert found["count_ratio"] == 1.5
    at_limit = Points.of(np.array([[0.5, 0, 0]]), np.array([[0.0, 0, 0]])).compute("points")
    assert (at_limit["near_precision"], at_limit["near_recall"]) == (1, 1)


def test_random_point_sets_agree_with_all_distances():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(40, 3)), rng.normal(size=(60, 3))
    apart = np.linalg.norm(a[:, None] - b[None], axis=2)
    there, back = apart.min(axis=1), apart.min(axis=0)
    found = Points.of(a, b).compute("points")
    np.testing.assert_allclose(found["chamfer_m"], there.mean() + back.mean())
    np.testing.assert_allclose(found["hausdorff_m"], max(there.max(), back.max()))
    np.testing.assert_allclose(found["near_precision"], (there <= 0.5).mean())
    np.testing.assert_allclose(found["near_recall"], (back <= 0.5).mean())


def test_a_perfect_prediction_is_perfect_in_everything():
    target = volume((0, 0, 0), (3, 5, 7), (1, 2, 3), value=4.0)
    found, groups = values(target, target)
    best = {"chamfer_m", "hausdorff_m", "intensity_mae", "doppler_mae_m_s"}
    zero = {"empty_prediction", "empty_target"}
    assert all(found[name] == 0 for name in best | zero)
    assert all(value == 1 for name, value in found.items() if name not in best | zero)
    for name, one in groups.items():
        assert one["iou"] == 1 or np.isnan(one["iou"]), name


@pytest.mark.filterwarnings("error")
def test_an_empty_answer_is_as_far_as_can_be_and_counted():
    full, empty = volume((0, 0, 0)), volume()
    predicted_nothing, _ = values(empty, full)
    assert predicted_nothing["empty_prediction"] == 1
    assert (predicted_nothing["iou"], predicted_nothing["recall"]) == (0, 0)
    nothing_there, _ = values(full, empty)
    assert (nothing_there["empty_target"], nothing_there["iou"]) == (1, 0)
    both, _ = values(empty, empty)
    nan = {"chamfer_m", "hausdorff_m", "near_precision", "near_recall", "near_f1"}
    farthest = np.linalg.norm(GEOMETRY.points(ONES > 0)[0] - GEOMETRY.points(ONES > 0)[-1])
    for found in (predicted_nothing, nothing_there):
        np.testing.assert_allclose(found["hausdorff_m"], farthest)
        np.testing.assert_allclose(found["chamfer_m"], 2 * farthest)
        assert found["near_f1"] == found["f1"] == 0
    assert {name for name in nan if np.isnan(both[name])} == nan
    assert np.isnan(both["iou"])
    # Beside a frame that is answered: even the worst answer is better than none.
    worst = volume((3, 5, 7))
    for answers, chamfer in (((full, empty), farthest), ((full, worst), farthest)):
        states = [compare(p, full, ONES, GEOMETRY, 0.5) for p in answers]
        merged = engine.compute(split_groups(engine.merge(*states))[0])
        np.testing.assert_allclose(merged["chamfer_m"], chamfer)
        assert merged["empty_prediction"] == (0.5 if answers[1] is empty else 0)
    nothing_here = compare(empty, empty, ONES, GEOMETRY, 0.5)
    merged = engine.compute(split_groups(engine.merge(nothing_here, states[1]))[0])
    np.testing.assert_allclose(merged["chamfer_m"], 2 * farthest)
    # As the tools of this page say it: no bounds, no limit.
    assert Points.of(np.zeros((0, 3)), np.zeros((1, 3))).compute("")["chamfer_m"] == np.inf
    far = Points.of(np.zeros((1, 3)), np.full((1, 3), 9.0)).compute("")
    assert far["near_f1"] == 0


def test_merged_states_are_those_of_all_frames():
    rng = np.random.default_rng(1)
    frames = [(rng.uniform(size=(2, *SHAPE, 4)) > 0.7).astype(np.float32) for _ in range(3)]
    states = [compare(p, t, ONES, GEOMETRY, 0.5) for p, t in frames]
    a = engine.merge(engine.merge(states[0], states[1]), states[2])
    b = engine.merge(states[2], engine.merge(states[1], states[0]))
    found, other = (engine.compute(split_groups(one)[0]) for one in (a, b))
    np.testing.assert_allclose(list(found.values()), list(other.values()), rtol=1e-12)
    predicted = np.stack([p[..., 0] > 0 for p, _ in frames])
    true = np.stack([t[..., 0] > 0 for _, t in frames])
    assert found["iou"] == (predicted & true).sum() / (predicted | true).sum()
    each = [engine.compute(split_groups(one)[0])["chamfer_m"] for one in states]
    np.testing.assert_allclose(found["chamfer_m"], np.mean(each))


def test_padding_does_not_count():
    weight = ONES.copy()
    weight[:, 5] = 0
    found, _ = values(volume((0, 0, 0), (0, 5, 0)), volume((0, 0, 0), (1, 5, 0)), weight)
    assert (found["iou"], found["chamfer_m"], found["count_ratio"]) == (1, 0, 1)


def test_values_are_compared_on_true_voxels_and_doppler_where_it_is_valid():
    target = volume((0, 0, 0), (0, 1, 0), value=10.0)
    target[0, 1, 0, 2:] = 0  # no Doppler here
    prediction = volume((0, 0, 0), (2, 2, 2), value=7.0)
    found, _ = values(prediction, target)
    # intensity: |7 - 10| and |0 - 10|; Doppler: |7 - 10| alone
    assert (found["intensity_mae"], found["doppler_mae_m_s"]) == (6.5, 3)


def test_the_threshold_is_exclusive():
    target = volume((0, 0, 0))
    prediction = target * 0.5
    assert values(prediction, target, threshold=0.5)[0]["recall"] == 0
    assert values(prediction, target, threshold=0.499)[0]["recall"] == 1


def test_bands_part_the_voxels_by_place():
    assert reached_bands(GEOMETRY) == {
        "range": [(0, 20), (20, 40)],
        "height": [(-6, -1), (-1, 1), (1, 3)],
    }
    near, far = (0, 0, 0), (3, 5, 7)  # 2.5 m at z -1.5; 27.7 m at z 1.5
    _, groups = values(volume(near), volume(near, far))
    assert groups["range/0..20m"]["recall"] == 1
    assert groups["range/20..40m"]["recall"] == 0
    assert groups["height/-6..-1m"]["iou"] == 1
    assert np.isnan(groups["height/-1..1m"]["iou"])
    assert groups["height/1..3m"]["iou"] == 0
    rng = np.random.default_rng(2)
    prediction, target = (rng.uniform(size=(2, *SHAPE, 4)) > 0.5).astype(np.float32)
    states = compare(prediction, target, ONES, GEOMETRY, 0.5)
    for kind in ("range", "height"):
        parts = [state for name, state in states.items() if name.startswith(kind)]
        assert sum(part.hits for part in parts) == states["voxel"].hits
        assert sum(part.missed for part in parts) == states["voxel"].missed


def test_a_sweep_counts_at_each_threshold_what_comparing_would():
    rng = np.random.default_rng(3)
    true = (rng.uniform(size=SHAPE) > 0.8).astype(np.float32)
    probability = np.round(np.clip(rng.normal(0.3 + 0.4 * true, 0.2), 0, 1), 1).astype(np.float32)
    weight = (rng.uniform(size=SHAPE) > 0.1).astype(np.float32)
    thresholds = np.round(np.arange(0, 1, 0.1), 1).astype(np.float32)
    halves = [
        ThresholdSweep.of(probability[part], true[part], weight[part], thresholds)
        for part in (slice(0, 1), slice(1, 4))
    ]
    sweep = halves[0].merge(halves[1])
    scores = sweep.scores()
    for i, tau in enumerate(thresholds):
        inside = weight > 0
        cells = Cells.of((probability > tau) & inside, (true > 0) & inside).compute("voxel")
        for name in ("iou", "f1", "precision", "recall"):
            np.testing.assert_allclose(scores[name][i], cells[name], rtol=1e-12)
    best = sweep.best(thresholds, "f1")
    assert best == thresholds[scores["f1"].argmax()]
    assert best == sweep.best(thresholds, "iou")


def test_the_middle_of_equally_good_thresholds_is_taken():
    thresholds = np.linspace(0.1, 0.9, 9)
    true = np.array([0.0, 0, 1])
    sweep = ThresholdSweep.of(np.array([0.15, 0.05, 0.85]), true, np.ones(3), thresholds)
    # perfect from .2 to .8
    np.testing.assert_allclose(sweep.best(thresholds, "f1"), 0.5)
    empty = ThresholdSweep.of(np.array([0.5]), np.zeros(1), np.ones(1), thresholds)
    np.testing.assert_allclose(empty.best(thresholds, "iou"), 0.5)


def test_dilation_fills_the_neighbours_with_their_mean():
    found = dilated(volume((0, 0, 0), (0, 2, 0), value=4.0), 1)
    # corners of the grid cut the 3x3x3: 2 x 2 x 2 around the first, 2 x 3 x 2 around the other
    assert found[..., 0].sum() == 8 + 12 - 4  # the plane x = 1 is shared
    assert set(np.unique(found[..., 0])) == {0, 1}
    np.testing.assert_allclose(found[found[..., 0] > 0, 1], 4, rtol=1e-5)
    single = volume((2, 3, 3), value=-7.0)
    np.testing.assert_array_equal(dilated(single, 0), single)
    np.testing.assert_allclose(dilated(single, 2)[..., 0].sum(), 4 * 5 * 5)
