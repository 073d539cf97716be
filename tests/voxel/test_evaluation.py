"""Thresholds, baselines and cut volumes, where the right answer is known."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.voxel import evaluation
from tds_jax.voxel.evaluation import Thresholds
from tests.voxel.small import small_task


class Blurred:
    """A method that answers 0.3 where the target is occupied, 0.2 elsewhere, and its values."""

    leaves = ("target", "weight")

    def volumes(self, model, batch):
        target = batch["target"]
        occupancy = 0.2 + 0.1 * (target[..., :1] > 0).astype(jnp.float32)
        return {"model": jnp.concatenate([occupancy, target[..., 1:]], axis=-1)}


@pytest.fixture
def task(tmp_path):
    task = small_task(tmp_path)
    task.method = Blurred()
    return task


def test_calibration_finds_what_separates_and_the_table_uses_it(task, tmp_path):
    report = evaluation.evaluate(task, nnx.Linear(1, 1, rngs=nnx.Rngs(0)), "test", tmp_path)
    kept = Thresholds.read(tmp_path)
    assert 0.2 <= kept.value["model"] < 0.3
    assert kept.iou["model"] == report.value("iou") == 1
    assert report.value("chamfer_m") == report.value("intensity_mae") == 0
    # at the threshold that is not calibrated nothing would be occupied
    assert evaluation.FIXED > 0.3
    assert report.value("iou", "radar") < 1


def test_without_a_validation_split_thresholds_are_fixed_and_it_is_said(task, tmp_path):
    root, parts, warnings = task.data._opened
    task.data.__dict__["_opened"] = (root, parts | {"val": ()}, warnings)
    report = evaluation.evaluate(task, nnx.Linear(1, 1, rngs=nnx.Rngs(0)), "test", tmp_path, False)
    assert report.value("recall") == 0  # nothing of Blurred's is as likely as that
    assert report.notes == (
        f"occupied above {evaluation.FIXED}: there is no val split to choose by",
    )
    assert not any(tmp_path.glob("*.json"))


def test_few_scenes_are_said_to_be_few(tmp_path):
    """As the other tasks say it: of so few, what is drawn varies less than it should."""
    many = {"data__synthetic_scenes": 8, "data__synthetic_frames": 1}
    task = small_task(tmp_path, data__split_ratio=(0.2, 0.1, 0.7), **many)
    task.method = Blurred()
    report = evaluation.evaluate(task, nnx.Linear(1, 1, rngs=nnx.Rngs(0)), "test", None)
    assert report.drawn == "6 scenes"
    assert report.notes[0].startswith("6 scenes are few: what is drawn from them should be 1.44")


class Brighter(Blurred):
    """Answers more of a split that it knows."""

    def __init__(self, source):
        self._known = [source.example(i, None)["target"].sum() for i in range(len(source))]

    def volumes(self, model, batch):
        sums = batch["target"].sum((1, 2, 3, 4))
        known = jnp.isclose(sums[:, None], jnp.stack(self._known)[None], rtol=1e-6).any(1)
        (volume,) = super().volumes(model, batch).values()
        return {
            "model": volume.at[..., 0].add(0.5 * known.astype(jnp.float32)[:, None, None, None])
        }


def test_thresholds_are_chosen_on_validation_and_nowhere_else(task, tmp_path):
    task.method = Brighter(task.data.pairs("test"))
    report = evaluation.evaluate(task, nnx.Linear(1, 1, rngs=nnx.Rngs(0)), "test", tmp_path)
    kept = Thresholds.read(tmp_path)
    assert 0.2 <= kept.value["model"] < 0.3
    assert kept.iou["model"] == 1
    assert report.value("iou") < 1  # everything is above 0.3 there
    assert report.value("recall") == 1


class Dimmer(Blurred):
    """Beside its answer the same at a tenth of the odds."""

    def volumes(self, model, batch):
        (volume,) = super().volumes(model, batch).values()
        return {"model": volume, "dim": volume.at[..., 0].divide(10)}


def test_every_method_is_judged_at_a_threshold_of_its_own(task, tmp_path):
    task.method = Dimmer()
    report = evaluation.evaluate(task, nnx.Linear(1, 1, rngs=nnx.Rngs(0)), "test", tmp_path)
    kept = Thresholds.read(tmp_path).value
    assert kept["dim"] < kept["model"] / 2
    assert report.value("iou", "dim") == report.value("iou") == 1


class Sampling(Blurred):
    """Two samples, of which the second has everything and the first half of it, and their mean."""

    def volumes(self, model, batch):
        full = (batch["target"][..., 0] > 0).astype(jnp.float32)
        half = full.at[:, :, ::2].set(0.0)
        of = {"model": (half + full) / 2, "sample": half}
        volumes = {
            name: jnp.concatenate([p[..., None], batch["target"][..., 1:]], axis=-1)
            for name, p in of.items()
        }
        return volumes | {"samples": jnp.stack([half, full], axis=1)}


def test_samples_are_judged_one_by_one_beside_their_mean(task, tmp_path):
    task.method = Sampling()
    report = evaluation.evaluate(task, nnx.Linear(1, 1, rngs=nnx.Rngs(0)), "test", tmp_path)
    assert report.value("iou") == report.value("best_iou") == 1
    half = report.value("iou", "sample")
    assert 0.2 < half < 0.8
    assert report.value("sample_iou") == pytest.approx((1 + half) / 2)
    assert 0 < report.value("diversity") < 0.8
    assert report.value("pattern_jsd") == 0 < report.value("pattern_jsd", "sample")
    assert set(Thresholds.read(tmp_path).value) == {"model", "sample", "prior", "linear"}
    with pytest.raises(KeyError):
        report.value("diversity", "sample")


def test_intervals_are_over_scenes_and_a_baseline_that_wins_is_named(tmp_path):
    scenes = {"data__synthetic_scenes": 7, "data__synthetic_frames": 1}
    scenes |= {"data__train_scenes": ("street00",), "data__val_scenes": ("street01",)}
    scenes |= {"data__test_scenes": tuple(f"street{n:02d}" for n in range(2, 7))}
    task = small_task(tmp_path, **scenes)

    class Silent(Blurred):
        def volumes(self, model, batch):
            return {"model": jnp.zeros_like(batch["target"])}

    for method, first in ((Blurred(), ("the model beats every baseline by",)), (Silent(), ())):
        task.method = method
        report = evaluation.evaluate(task, nnx.Linear(1, 1, rngs=nnx.Rngs(0)), "test", None)
        assert report.drawn == "5 scenes"
        assert all(word in report.verdict[0] for word in first)
    assert report.verdict[0].startswith("iou: ")
    assert " beats the model by " in report.verdict[0]
    radar = next(r for r in report.rows if (r.group, r.method, r.metric) == ("all", "radar", "iou"))
    assert radar.low <= radar.value <= radar.high


def test_the_mean_and_the_prior_are_those_of_the_train_split(task):
    known = task.data.statistics
    frame = task.data.pairs("test").example(0, None)
    found = evaluation.baselines(task, frame)
    np.testing.assert_allclose(found["mean"][..., 0], known.occupancy)
    np.testing.assert_allclose(found["mean"][0, 0, 0, 1:], known.target_mean[1:])
    pairs = task.data.pairs("train")
    often = np.mean([pairs.example(i, None)["target"][..., 0] > 0 for i in range(len(pairs))], 0)
    np.testing.assert_allclose(found["prior"][..., 0], often, atol=1e-6)
    np.testing.assert_array_equal(found["radar"][..., 0], frame["radar"][..., 0])


def test_the_radar_answers_in_the_units_of_the_target(task):
    """Least squares of numpy over all train frames; where it sees nothing, the train mean."""
    examples = [
        task.data.pairs("train").example(i, None) for i in range(len(task.data.pairs("train")))
    ]
    radar, target = (np.stack([one[name] for one in examples]) for name in ("radar", "target"))
    both = (radar[..., 0] > 0) & (target[..., 0] > 0)
    line = np.polyfit(radar[both][:, 1].astype(float), target[both][:, 1].astype(float), 1)
    known = task.data.statistics
    # f64 sums of some hundred f32 values: about 1e-13 of their size
    np.testing.assert_allclose(known.reflectivity, line, rtol=1e-9)
    frame = task.data.pairs("test").example(0, None)
    found = evaluation.baselines(task, frame)["radar"]
    seen = frame["radar"][..., 0] > 0
    np.testing.assert_allclose(found[seen, 1], np.polyval(line, frame["radar"][seen, 1]), rtol=1e-5)
    np.testing.assert_array_equal(found[seen, 2], frame["radar"][seen, 2])
    np.testing.assert_array_equal(
        found[~seen, 1:], np.broadcast_to(known.target_mean[1:], found[~seen, 1:].shape)
    )


def test_a_cut_volume_is_empty_below_the_threshold_and_in_padding():
    volume = np.full((1, 1, 3, 4), 7.0, np.float32)
    volume[0, 0, :, 0] = 0.2, 0.8, 0.8
    cut = evaluation.cut(volume, np.float32([[[1, 1, 0]]]), 0.5)
    np.testing.assert_array_equal(cut[0, 0], [[0, 0, 0, 0], [1, 7, 7, 7], [0, 0, 0, 0]])


def test_thresholds_survive_and_unknown_methods_have_the_fixed_one(tmp_path):
    assert Thresholds.read(tmp_path) is None
    kept = Thresholds({"model": 0.25}, {"model": 0.5}, "these")
    kept.write(tmp_path)
    assert Thresholds.read(tmp_path) == kept
    assert (kept.of("model"), kept.of("radar")) == (0.25, evaluation.FIXED)
