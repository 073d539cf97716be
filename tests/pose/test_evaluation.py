"""Laws of the evaluation: every row once, plain numpy's numbers, the right headline."""

import dataclasses
import json
from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import emg_hands
from tds_jax import config as configuration
from tds_jax import tasks
from tds_jax.engine import intervals, processes
from tds_jax.errors import UserError
from tds_jax.pose import baselines, evaluation, rows
from tds_jax.pose.kinematics import default_hand, distances
from tds_jax.pose.labels import valid_rows
from tds_jax.pose.linear import LinearFit
from tds_jax.pose.read_out import ReadOutFit
from tds_jax.pose.task import PoseTask
from tds_jax.pose.windows import session_blocks
from tests.data.sessions import write_rows
from tests.engine.together import OfTheFirst
from tests.pose.small import LENGTHS, SPLITS, small_task, write_recordings
from tests.pose.test_kinematics import document

EMG_HANDS = Path(__file__).parents[3] / "shared" / "data" / "emg_hands"
STEP, CONTEXT, WINDOW = 4, 8, 100
JOINTS = ("wrist", "index_mcp", "index_pip")


def tiles(length):
    """(window start, first counted step, steps) of a session, worked out on paper."""
    steps = (WINDOW - 1 - CONTEXT) // STEP + 1
    starts = list(range(0, length - WINDOW + 1, steps * STEP))
    counted = [(start, 0) for start in starts]
    last = (length - WINDOW) // STEP * STEP
    if last > starts[-1]:
        counted.append((last, (starts[-1] + steps * STEP - last) // STEP))
    return steps, counted


INTERVALS = (
    "intervals are over {}, for fewer than 5 users are named ({} in the split): "
    "they say nothing of other users"
)
NOTHING = (
    "R2 {:.2g}: the model says no more than a constant pose would; if --split=train shows the "
    "same, it has not begun to learn: try a third of optim.learning_rate, more optim.steps, or "
    "model.powers='covariance'"
)
FEW = "5 {} are few: what is drawn from them should be 1.58 times as wide"


def brute_force(model, rows):
    """(label rows, poses, targets) of every supervised valid row, window by window."""
    steps, counted = tiles(len(rows))
    found = []
    for start, skip in counted:
        poses = np.asarray(model(jnp.asarray(rows["emg"][start : start + WINDOW])[None])[0])
        labels = start + CONTEXT + STEP * np.arange(steps)
        use = np.arange(steps) >= skip
        use &= valid_rows(rows["joint_angles"][labels])
        found.append((labels[use], poses[use], rows["joint_angles"][labels[use]]))
    return [np.concatenate(parts).astype(np.float64) for parts in zip(*found, strict=True)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(task, model, rows of every session, report on test)."""
    base = tmp_path_factory.mktemp("evaluation")
    columns = {
        "generalization": ("none", "none", "none", "session", "session", "user", "stage"),
        "user": ("a", "b", "a", "a", "a", "c", "b"),
    }
    made = write_recordings(base / "data", (*LENGTHS, 240), (*SPLITS, "test"), columns)
    changes = {"model__dropout": 0.3, "eval__batch_size": 3, "data__joint_names": JOINTS}
    task = small_task(base / "data", base, **changes)
    model = task.init(nnx.Rngs(0))
    report = evaluation.evaluate(task, model, "test", base)
    return task, model, made, report, base / "plots"


def test_tiles_cover_every_step_of_a_session_once():
    for length in (100, 103, 104, 187, 263, 400):
        steps, counted = tiles(length)
        labels = [start + STEP * n for start, skip in counted for n in range(skip, steps)]
        last = (length - WINDOW) // STEP * STEP + (steps - 1) * STEP
        assert labels == list(range(0, last + 1, STEP))


@pytest.mark.parametrize("session", [4, 5, 6])
def test_every_supervised_row_counts_once_and_the_numbers_are_numpys(run, session):
    _, model, made, report, _ = run
    labels, poses, target = brute_force(model, made[session])
    assert len(np.unique(labels)) == len(labels) > 10
    error = poses - target
    group = f"session/s{session}.hdf5"
    (count,) = {row.count for row in report.rows if (row.group, row.method) == (group, "model")}
    assert count == len(labels)
    # f32 poses of other batch sizes: eps·(operations per step, about 30) = 4e-6.
    expected = {
        "mae_rad": np.abs(error).mean(),
        "mse": (error**2).mean(),
        "rmse_rad": np.sqrt((error**2).mean()),
        "r2": 1 - (error**2).sum() / ((target - target.mean(0)) ** 2).sum(),
        "r2_mean": np.mean(1 - (error**2).sum(0) / ((target - target.mean(0)) ** 2).sum(0)),
        "mae_deg": np.degrees(np.abs(error).mean()),
    }
    for name, value in expected.items():
        assert report.value(name, group=group) == pytest.approx(value, rel=1e-5), name


def test_groups_and_joints_pool_rows_not_sessions(run):
    _, model, made, report, _ = run
    each = {i: brute_force(model, made[i]) for i in (4, 5, 6)}
    pools = {
        "all": (4,),
        "generalization/session": (4,),
        "generalization/user": (5,),
        "generalization/stage": (6,),
        "user/a": (4,),
        "user/c": (5,),
    }
    for group, members in pools.items():
        error = np.concatenate([each[i][1] - each[i][2] for i in members])
        found = report.value("mae_rad", group=group)
        assert found == pytest.approx(np.abs(error).mean(), rel=1e-5), group
    error = np.abs(each[4][1] - each[4][2]).mean(0)
    for name, expected in zip(JOINTS, error, strict=True):
        found = report.value("mae_rad", group=f"joint/{name}")
        assert found == pytest.approx(expected, rel=1e-5)
    found = report.value("mae_rad", group="finger/index")
    assert found == pytest.approx(error[1:].mean(), rel=1e-5)


def test_the_headline_is_of_seen_users_and_stages(run):
    report = run[3]
    assert report.value("mae_rad") == report.value("mae_rad", group="generalization/session")
    assert report.value("mae_rad") != report.value("mae_rad", group="generalization/user")


def test_without_a_seen_session_the_headline_is_of_all(tmp_path):
    columns = {"generalization": ("none", "user", "user", "stage")}
    lengths, splits = (300, 150, 150, 140), ("train", "val", "test", "test")
    write_recordings(tmp_path / "data", lengths, splits, columns)
    task = small_task(tmp_path / "data", tmp_path)
    report = evaluation.evaluate(task, task.init(nnx.Rngs(0)), "test", None)
    counts = {row.group: row.count for row in report.rows if row.metric == "mae_rad"}
    assert counts["all"] == counts["generalization/user"] + counts["generalization/stage"]


@pytest.fixture(scope="module")
def hands(tmp_path_factory):
    """(task, report): recordings of 20 joints, three users in test, one of them with two sides."""
    base = tmp_path_factory.mktemp("hands")
    columns = {
        "user": ("a", "a", "a", "a", "b", "c", ""),
        "side": ("left", "left", "left", "right", "left", "left", "left"),
        "generalization": ("none", "none", "stage", "stage", "stage", "user", "user"),
    }
    lengths, splits = (300, 150, 170, 260, 200, 140, 150), ("train", "val", *["test"] * 5)
    write_recordings(base / "data", lengths, splits, columns, joints=20)
    task = small_task(base / "data", base)
    return task, evaluation.evaluate(task, task.init(nnx.Rngs(0)), "test", base)


def find(report, group, metric, method="model"):
    (row,) = [r for r in report.rows if (r.group, r.method, r.metric) == (group, method, metric)]
    return row


@pytest.mark.parametrize("metric", ["mae_deg", "landmark_mm", "velocity_rad_s", "mae_thumb_deg"])
@pytest.mark.parametrize("method", ["model", "zero", "constant"])
def test_per_user_values_are_means_of_what_each_user_pools(hands, metric, method):
    _, report = hands
    each = [find(report, f"user/{user}", metric, method).value for user in "abc"]
    row = find(report, "per_user/all", metric, method)
    assert row.value == pytest.approx(np.mean(each), rel=1e-12)
    assert row.count == 3
    assert row.spread == pytest.approx(np.std(each, ddof=1), rel=1e-9, abs=1e-12)
    assert find(report, "all", metric, method).spread is None


def test_a_user_counts_once_however_many_sessions_a_group_has_of_them(hands):
    _, report = hands
    a = [report.value("mae_deg", group=f"session/s{i}.hdf5") for i in (2, 3)]
    rows = [find(report, f"session/s{i}.hdf5", "mae_deg").count for i in (2, 3)]
    b = report.value("mae_deg", group="user/b")
    row = find(report, "per_user/generalization/stage", "mae_deg")
    assert row.value == pytest.approx((np.average(a, weights=rows) + b) / 2, rel=1e-9)
    assert row.count == 2
    right = find(report, "per_user/side/right", "mae_deg")
    assert (right.value, right.count, right.spread) == (pytest.approx(a[1]), 1, None)
    assert not any(row.group.startswith("per_user/user/") for row in report.rows)


def test_a_session_of_nobody_is_pooled_but_is_no_user(hands):
    _, report = hands
    pooled = find(report, "generalization/user", "mae_deg")
    counts = [find(report, f"session/s{i}.hdf5", "mae_deg").count for i in (5, 6)]
    assert pooled.count == sum(counts)
    row = find(report, "per_user/generalization/user", "mae_deg")
    assert (row.count, row.value) == (1, report.value("mae_deg", group="user/c"))


def test_every_group_has_every_metric_of_every_method(hands):
    _, report = hands
    kinds = ("all", "generalization", "user", "side", "per_user")
    cells = {}
    for row in report.rows:
        if row.group.split("/")[0] in kinds:
            cells.setdefault((row.group, row.method), set()).add(row.metric)
    assert {method for _, method in cells} == {
        "model", "linear", "linear_median", "constant", "constant_median", "hold_initial", "zero",
    }  # fmt: skip
    (metrics,) = {frozenset(found) for found in cells.values()}
    assert metrics >= {
        "mae_deg", "mae_pinky_deg", "mae_proximal_deg", "mae_mid_deg", "mae_distal_deg",
        "velocity_rad_s", "acceleration_rad_s2", "jerk_rad_s3", "label_jerk_rad_s3",
        "landmark_mm", "landmark_moving_mm", "fingertip_mm", "r2",
    }  # fmt: skip


def test_constant_poses_stand_still_and_have_the_landmarks_of_their_own_hand(hands):
    task, report = hands
    for method in ("zero", "constant", "constant_median", "hold_initial"):
        assert report.value("jerk_rad_s3", method=method) == 0
    assert report.value("label_jerk_rad_s3") == report.value("label_jerk_rad_s3", method="zero") > 0
    angles = np.concatenate([source_rows(task, i) for i in range(len(task.source("test")))])
    rest = jnp.zeros(angles.shape)
    apart = jax.jit(distances)(default_hand(), rest, jnp.asarray(angles))
    expected = np.asarray(apart)[:, :5].mean(dtype=np.float64)
    assert report.value("fingertip_mm", method="zero") == pytest.approx(expected, rel=1e-5)


def test_the_tables_show_landmarks_users_and_the_hand(hands, capsys):
    hands[1].show("test", "title")
    text = capsys.readouterr().out
    for part in ("landmark_mm", "mae_deg, mean ± SD per user", "user", "stage", "±"):
        assert part in text
    assert "note: landmarks are of our own hand of 190 mm" in text


def test_other_joints_have_no_landmarks_and_a_note_says_so(run):
    report = run[3]
    assert not any("mm" in row.metric for row in report.rows)
    assert report.notes == (
        "landmarks need the 20 joint angles of emg2pose; these recordings have 3",
        "no intervals: fewer than 5 users are named (3 in the split), and there are 3 windows",
        NOTHING.format(report.value("r2")),
    )


def test_the_verdict_and_the_intervals_are_of_sessions_of_seen_users(hands):
    """Each method's error in each session by hand, drawn by the same generator."""
    task, report = hands
    source = task.source("test")
    whole = rows.whole(source.table, source.table.number.tolist())
    constants = {"zero": 0.0, "constant": evaluation.fit_baselines(task).mean}
    found = {name: {} for name in constants}
    for i in range(len(source)):
        example = source.example(i, None)
        weight = np.asarray(task.weights({k: v[None] for k, v in example.items()}))[0] > 0
        if int(example["session"]) in whole:
            for name, pose in constants.items():
                errors = np.abs(example["joint_angles"][weight] - pose).mean(axis=1)
                found[name].setdefault(int(example["session"]), []).extend(errors)
    count = len(found["zero"])
    assert report.drawn == f"{count} sessions"
    chosen = np.random.default_rng(0).integers(count, size=(intervals.DRAWS, count))
    for name, each in found.items():
        sums, sizes = (np.array([f(one) for one in each.values()]) for f in (np.sum, len))
        means = sums[chosen].sum(axis=1) / sizes[chosen].sum(axis=1)
        row = find(report, "all", "mae_rad", name)
        # f32 sums of some 50 rows: 50 · 6e-8
        np.testing.assert_allclose((row.low, row.high), np.quantile(means, [0.025, 0.975]), 1e-5)
    apart = find(report, "against_model", "mae_deg", "constant")
    difference = report.value("mae_deg", "constant") - report.value("mae_deg")
    assert apart.value == pytest.approx(difference)
    assert apart.low < difference < apart.high
    assert {line.split(":")[0] for line in report.verdict[-2:]} == {"mae_deg", "r2"}


def test_what_is_unseen_is_judged_by_itself(hands):
    _, report = hands
    few = "against_model/generalization/user"  # of four windows there is no interval
    assert not [row for row in report.rows if row.group == few]
    for group in ("generalization/stage",):
        model, linear = (find(report, group, "mae_deg", name) for name in ("model", "linear"))
        apart = find(report, f"against_model/{group}", "mae_deg", "linear")
        assert apart.value == pytest.approx(linear.value - model.value)
        assert apart.low <= apart.value <= apart.high
        assert model.low <= model.value <= model.high
        assert (model.low, model.high) != (find(report, "all", "mae_deg", "model").low,) * 2
        kind = group.split("/")[1]
        assert any(line.startswith(f"{kind}, mae_deg: ") for line in report.verdict[:-2])


def test_emg_of_another_unit_than_the_runs_is_a_note(run):
    task, model = run[:2]
    table = task.source("test").table
    assert evaluation._scales(task, model, table) == ()
    other = nnx.clone(model)
    other.normalizer.scale[...] = np.full(table.channels, 1e-3, np.float32)
    (line,) = evaluation._scales(task, other, table)
    assert "times that of the recordings the model was trained on; bring it to their unit" in line
    assert table.path(0) in line


def test_a_hand_of_ones_own_is_measured_with_and_a_wrong_one_is_known_early(hands, tmp_path):
    task, report = hands
    file = tmp_path / "hand.json"
    file.write_text(json.dumps(document(default_hand(380.0))))
    large = small_task(task.table.root, tmp_path, eval__hand_model=str(file))
    again = evaluation.evaluate(large, large.init(nnx.Rngs(0)), "test", None)
    assert again.value("landmark_mm") == pytest.approx(2 * report.value("landmark_mm"), rel=1e-5)
    said = INTERVALS.format("5 sessions", 3), FEW.format("sessions")
    assert again.notes[:-1] == (f"landmarks are of {file}", *said)
    wrong = small_task(task.table.root, tmp_path, eval__hand_model="nowhere.json")
    with pytest.raises(UserError, match=r"eval\.hand_model=nowhere\.json cannot be read"):
        wrong.warnings()


def test_baselines_are_fitted_by_the_first_of_several_processes(run, tmp_path, monkeypatch):
    task, model, *_ = run
    monkeypatch.setattr(evaluation, "fit_baselines", lambda task: pytest.fail("fitted here"))
    monkeypatch.setattr(processes, "by_first", OfTheFirst.asked)
    with pytest.raises(OfTheFirst):
        evaluation.evaluate(task, model, "test", tmp_path)


def test_baselines_are_fitted_once_and_anew_for_other_recordings(tmp_path, monkeypatch):
    fits = []
    fit = evaluation.fit_baselines
    monkeypatch.setattr(evaluation, "fit_baselines", lambda task: fits.append(1) or fit(task))
    write_recordings(tmp_path / "data", LENGTHS, SPLITS)
    task = small_task(tmp_path / "data", tmp_path)
    first, again = (evaluation.fitted_baselines(task, tmp_path) for _ in range(2))
    assert len(fits) == 1
    for name in ("mean", "median", "digest"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    jax.tree.map(np.testing.assert_array_equal, vars(first.linear), vars(again.linear))
    write_recordings(tmp_path / "more", (*LENGTHS, 300), (*SPLITS, "train"))
    other = small_task(tmp_path / "more", tmp_path)
    assert not np.array_equal(evaluation.fitted_baselines(other, tmp_path).mean, first.mean)
    assert evaluation.fitted_baselines(other, None).digest == other.digest() != first.digest
    assert len(fits) == 3


def test_linear_is_fitted_to_train_and_chosen_on_val(tmp_path, monkeypatch):
    write_recordings(tmp_path / "data", LENGTHS, SPLITS)
    task = small_task(tmp_path / "data", tmp_path)
    seen, result = [], LinearFit.result
    monkeypatch.setattr(LinearFit, "result", lambda fit: seen.append(fit) or result(fit))
    found = evaluation.fit_baselines(task)
    (fit,) = seen
    read_out = ReadOutFit(found.linear, *fit.spread(found.linear), -np.pi, np.pi)
    baselines.fit(evaluation._chunks(task, "train"), read_out)
    np.testing.assert_array_equal(found.read_out.median, read_out.result().median)
    for sums, split in ((fit.train, "train"), (fit.val, "val")):
        table = task.table.select(split)
        one = LinearFit(table.channels, table.joints, table.rate_hz).train
        for session in range(len(table)):
            for block in session_blocks(table, task.files, session, 10_000):
                one.update(block.emg, block.joint_angles, block.valid)
        assert one.count > 30
        np.testing.assert_array_equal(sums.gram, one.gram)


def test_recordings_without_a_train_split_get_kept_baselines_or_none(tmp_path):
    write_recordings(tmp_path / "data", LENGTHS, SPLITS)
    write_recordings(tmp_path / "new", (260, 190), ("test", "test"))
    task, new = (small_task(tmp_path / name, tmp_path) for name in ("data", "new"))
    model = task.init(nnx.Rngs(0))
    empty, kept = tmp_path / "empty", tmp_path / "kept"
    empty.mkdir(), kept.mkdir()
    report = evaluation.evaluate(new, model, "test", empty)
    assert {row.method for row in report.rows} == {"model", "hold_initial", "zero"}
    assert report.notes[1:] == (
        "no train split here: no constants and nothing linear",
        INTERVALS.format("5 windows", 0),
        FEW.format("windows"),
        NOTHING.format(report.value("r2")),
    )
    assert not (empty / "baselines.npz").exists()
    constant = evaluation.fitted_baselines(task, kept).mean
    report = evaluation.evaluate(new, model, "test", kept)
    assert "those of the recordings evaluated before" in report.notes[1]
    target = np.concatenate([source_rows(new, i) for i in range(len(new.source("test")))])
    expected = np.abs(target - constant).mean(dtype=np.float64)
    assert report.value("mae_rad", method="constant") == pytest.approx(expected, rel=1e-5)


def source_rows(task, index):
    example = task.source("test").example(index, None)
    return example["joint_angles"][example["weight"] > 0]


def test_predictions_and_report_do_not_depend_on_the_evaluation_batch(run, tmp_path):
    task, model, _, report, _ = run
    for size in (1, 7):
        changes = {"eval__batch_size": size, "data__joint_names": JOINTS}
        other = small_task(task.table.root, tmp_path, model__dropout=0.3, **changes)
        again = evaluation.evaluate(other, model, "test", None)
        for a, b in zip(report.rows, again.rows, strict=True):
            assert (a.group, a.method, a.metric, a.count) == (b.group, b.method, b.metric, b.count)
            np.testing.assert_allclose(a.value, b.value, rtol=1e-5, atol=1e-6)


def test_baselines_answer_for_the_same_rows(run):
    _, model, made, report, _ = run
    _, _, target = brute_force(model, made[4])
    train = np.concatenate([rows["joint_angles"][valid_rows(rows["joint_angles"])]
                            for rows in made[:3]]).astype(np.float64)  # fmt: skip
    for name, pose, atol in (
        ("constant", train.mean(0), 1e-6),
        ("constant_median", np.median(train, 0), 1e-3),  # histogram bins of 1 mrad
        ("zero", 0.0, 1e-6),
    ):
        expected = np.abs(target - pose).mean()
        assert report.value("mae_rad", method=name) == pytest.approx(expected, abs=atol), name
    steps, counted = tiles(len(made[4]))
    held = []
    for start, skip in counted:
        angles = made[4]["joint_angles"][start + CONTEXT + STEP * np.arange(steps)]
        initial = angles[valid_rows(angles)][:1]  # where a model given it begins, counted or not
        angles = angles[skip:]
        held.append(np.abs(angles[valid_rows(angles)] - initial))
    expected = np.concatenate(held).mean(dtype=np.float64)
    assert report.value("mae_rad", method="hold_initial") == pytest.approx(expected, rel=1e-5)


def test_a_constant_of_the_evaluated_rows_would_have_r2_of_0(run):
    """The train mean explains nothing: R² at most 0 on other rows."""
    assert -1 < run[3].value("r2", method="constant") <= 0


def test_who_says_no_more_than_a_constant_pose_is_told_what_may_help_and_nobody_else(run):
    scores = [row for row in run[3].rows if row.metric == "r2"]
    (said,) = evaluation._nothing_learnt(scores)
    assert run[3].notes[-1] == said
    assert "a third of optim.learning_rate" in said
    for r2, count in ((-0.02, 1), (0.019, 1), (0.021, 0), (0.9, 0), (np.nan, 0)):
        changed = [dataclasses.replace(row, value=r2) for row in scores]
        assert len(evaluation._nothing_learnt(changed)) == count


def test_linear_sees_the_recording_before_the_window(run):
    """Every window but a session's first predicts as if the session were one stretch."""
    task = run[0]
    source = task.source("test")
    fitted = evaluation.fit_baselines(task)
    index = 1
    session, start, _ = source._windows.locate(index)
    assert start > fitted.linear.history * fitted.linear.bin_samples
    (emg,) = task.files.rows(
        source.table.path(session), "emg2pose", "timeseries", 0, start + WINDOW, ["emg"]
    )
    bins = fitted.linear.bin_samples
    emg = emg[start % bins :]  # bins begin with the window's
    example = source.example(index, None)
    found = evaluation._linear(source, fitted.linear, index, example["joint_angles"])
    rows = start - start % bins + CONTEXT + STEP * np.arange(len(found))
    # The stretch's history is longer at its front only.
    np.testing.assert_allclose(found, fitted.linear.predict(emg)[rows], atol=1e-5)


def test_a_model_of_mixed_initial_poses_is_judged_with_and_without_the_true_one(tmp_path):
    write_recordings(tmp_path / "data", (200, 140, 150), ("train", "val", "test"))
    changes = {"model__initial_pose": "mixed", "model__output": "velocity"}
    task = small_task(tmp_path / "data", tmp_path, **changes)
    model = task.init(nnx.Rngs(0))
    report = evaluation.evaluate(task, model, "test", tmp_path)
    source = task.source("test")
    examples = [source.example(i, None) for i in range(len(source))]
    batch = {name: jnp.stack([one[name] for one in examples]) for name in examples[0]}
    weight = np.asarray(task.weights(batch)) > 0
    found = [report.value("mae_rad", method=name) for name in ("model", "model_tracking")]
    for value, tracking in zip(found, (False, True), strict=True):
        error = np.abs(task.poses(model, batch, False, tracking) - batch["joint_angles"])
        assert value == pytest.approx(np.asarray(error)[weight].mean(), rel=1e-5)
    assert abs(found[0] - found[1]) > 1e-3


def test_the_references_convention_is_there_where_every_sample_is_predicted(run, tmp_path):
    names = {row.metric for row in run[3].rows}
    assert not any("reference" in name for name in names)
    task = small_task(run[0].table.root, tmp_path, loss__every_sample=True)
    report = evaluation.evaluate(task, task.init(nnx.Rngs(0)), "test", None)
    jerk, reference = (report.value(name) for name in ("jerk_rad_s3", "jerk_reference"))
    assert jerk == pytest.approx(reference * 100.0**2)  # 100 Hz


def test_figures_are_drawn(run):
    assert {path.name for path in run[4].iterdir()} == {"test_angles.png", "test_methods.png"}


@pytest.mark.filterwarnings("error")
def test_a_split_without_any_known_initial_pose_is_reported_as_not_a_number(tmp_path):
    made = write_recordings(tmp_path / "data", (300, 150, 100), ("train", "val", "test"))
    made[2]["joint_angles"][:20] = 0
    write_rows(tmp_path / "data" / "s2.hdf5", made[2])
    task = small_task(tmp_path / "data", tmp_path, model__initial_pose="given")
    report = evaluation.evaluate(task, task.init(nnx.Rngs(0)), "test", tmp_path)
    assert np.isnan(report.value("mae_rad"))
    assert report.to_dict()["splits"]["test"]["model"]["mae_rad"] is None


@pytest.mark.long
@pytest.mark.skipif(not EMG_HANDS.is_dir(), reason=f"needs the recordings in {EMG_HANDS.name}")
def test_baselines_of_the_real_hand_recordings(tmp_path):
    values = emg_hands.get_config()
    values.data.path, values.data.cache_dir = str(EMG_HANDS), str(tmp_path)
    values.model.hidden, values.eval.batch_size = 8, 16
    # Of the waveform: poses, and with them the rows compared, begin earlier.
    values.model.powers, values.model.notch_hz, values.model.conv_strides = "none", (), (5,)
    task = PoseTask(configuration.resolve(values.to_dict(), tasks.groups("pose")))
    report = evaluation.evaluate(task, task.init(nnx.Rngs(0)), "test", None)
    found = {name: report.value("mae_rad", method=name)
             for name in ("constant", "constant_median", "linear")}  # fmt: skip
    assert found["constant"] == pytest.approx(0.598, abs=2e-3)
    assert found["constant_median"] == pytest.approx(0.527, abs=2e-3)
    assert 0.35 < found["linear"] < 0.38, "0.446 of log-RMS alone"
    assert report.value("mae_rad", method="linear_median") < 0.26


def test_baselines_are_fitted_anew_for_recordings_changed_in_place(tmp_path):
    write_recordings(tmp_path, LENGTHS, SPLITS)
    task = small_task(tmp_path, tmp_path / "cache")
    first = evaluation.fitted_baselines(task, tmp_path)
    assert sorted(task.data_files()) == sorted(p.name for p in tmp_path.glob("*.hdf5"))
    for path in map(Path, task.data_files().values()):
        with h5py.File(path) as file:
            rows = file["emg2pose/timeseries"].id
            end = rows.get_offset() + rows.get_storage_size()  # attributes lie behind
        content = bytearray(path.read_bytes())
        content[end - 8 : end] = np.float32([1, 1]).tobytes()  # the last values of the last row
        path.write_bytes(content)
    changed = small_task(tmp_path, tmp_path / "cache")
    second = evaluation.fitted_baselines(changed, tmp_path)
    assert (second.digest, second.contents != first.contents) == (first.digest, True)
