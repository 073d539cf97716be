"""Laws of the Python face: the same numbers as the doors, and one clear line for what is wrong."""

import json
import shutil
import signal
import subprocess
import sys
import types

import h5py
import jax
import numpy as np
import pytest

import tds_jax
from tds_jax import tasks
from tds_jax.engine import workdir
from tds_jax.engine.blueprint import Blueprint
from tds_jax.pose import prediction
from tests.data.sessions import make_rows, write_rows
from tests.doors import ROOT
from tests.pose.small import LENGTHS, SETTINGS, write_recordings
from tests.python.conftest import FEW


def door_of(run):
    """(task, model) as the door `predict` makes them."""
    config = run.config
    task = tasks.get(config, workdir.read_inputs(run.workdir))
    return task, workdir.load_model(Blueprint(task, config), run.workdir)[0]


def test_importing_the_package_imports_neither_jax_nor_numpy():
    code = (
        "import sys, tds_jax; tds_jax.Callback, tds_jax.UserError; "
        "print(sorted({'jax', 'numpy', 'flax', 'h5py'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert shown.stdout == "[]\n", shown.stderr
    assert set(tds_jax.__all__) <= set(dir(tds_jax))
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = tds_jax.trian


def test_the_function_train_is_not_hidden_by_the_door_of_that_name():
    """What `import tds_jax.train` ends with is an assignment to the package."""
    tds_jax.train = types.ModuleType("tds_jax.train")
    assert tds_jax.train.__module__ == "tds_jax.run"
    assert callable(tds_jax.train)


def test_a_prediction_is_what_the_door_writes_bit_for_bit(tds, tmp_path, monkeypatch):
    """In blocks of 7 steps: the same code in the same order, so the same bits."""
    monkeypatch.setattr(prediction, "BLOCK_STEPS", 7)
    rows = make_rows(333, joints=3, seed=7)
    rows["emg"][120, 1] = np.nan
    write_rows(tmp_path / "x.hdf5", rows)
    task, model = door_of(tds)
    prediction.predict(task, model, tmp_path / "x.hdf5", tmp_path / "y.hdf5")
    task.files.close()
    with h5py.File(tmp_path / "y.hdf5") as file:
        written = file["prediction/joint_angles"][:]
    found = tds_jax.load(tds.workdir).predict(rows["emg"], rate_hz=100)
    np.testing.assert_array_equal(found, written)
    assert (found.dtype, found.shape) == (np.float32, (333, 3))
    lost = np.isnan(found).any(axis=1)
    np.testing.assert_array_equal(np.flatnonzero(lost), [*range(model.left_context), 120])


def test_a_row_of_a_prediction_belongs_to_the_sample_of_that_number(tds, noise):
    """The pose of a step is at its last sample: nothing before it changes with later samples."""
    whole = tds.predict(noise, rate_hz=100)
    grid = tds.model
    at = grid.left_context + np.arange(grid.num_steps(333)) * grid.step
    now = int(at[40])
    np.testing.assert_array_equal(tds.predict(noise[: now + 1], rate_hz=100)[now], whole[now])
    changed = noise.copy()
    changed[now] += 5
    moved = np.flatnonzero(
        (tds.predict(changed, rate_hz=100) != whole).any(axis=1) & np.isfinite(whole).all(axis=1)
    )
    assert moved[0] == at[39] + 1  # between two steps, rows lie on the line to the next
    after = whole[at[-1] :]
    np.testing.assert_array_equal(after, np.broadcast_to(after[0], after.shape))


def test_a_stream_gives_the_predictions_steps_wherever_it_is_cut(tds, noise):
    run, grid = tds, tds.model
    whole = run.predict(noise, rate_hz=100)
    follow, poses, samples = run.stream(), [], []
    for chunk in np.split(noise, [0, 5, 6, 40, 41, 200]):
        first = follow.sample
        found = follow(chunk)
        poses.append(found)
        samples += range(first, follow.sample, grid.step)
    poses = np.concatenate(poses)
    known = np.isfinite(whole[samples]).all(axis=1)
    assert len(samples) == len(poses) == grid.num_steps(333)
    # The same f32 operations in other batches of rows: 80 recurrent steps of eps = 1e-7.
    np.testing.assert_allclose(poses[known], whole[samples][known], atol=1e-5)
    assert run.stream().sample == grid.left_context, "a second stream begins anew"


def test_a_stream_in_another_unit_is_told_after_a_second(tds, noise):
    follow = tds.stream()
    follow(noise[:99] * 1e6)
    with pytest.raises(
        tds_jax.UserError, match=r"^chunk: the spread of its EMG is .*; bring it to"
    ):
        follow(noise[99:] * 1e6)


def test_an_evaluation_has_the_reports_numbers_and_writes_nothing(trained):
    before = {p: p.stat().st_mtime_ns for p in trained.run.workdir.rglob("*")}
    report = trained.run.evaluate(split="test")
    stored = json.loads((trained.run.workdir / "report.json").read_text())
    assert report.to_dict()["splits"]["test"] == stored["splits"]["test"]
    text = str(report.table())
    assert "mae_deg" in text
    assert "linear" in text
    assert {p: p.stat().st_mtime_ns for p in trained.run.workdir.rglob("*")} == before


def test_other_data_stand_beside_the_baselines_that_the_run_has_kept(trained, tmp_path):
    write_recordings(tmp_path / "new", (260, 190), ("test", "test"))
    before = {p: p.stat().st_mtime_ns for p in trained.run.workdir.rglob("*")}
    report = trained.run.evaluate(data=tmp_path / "new")
    assert {row.method for row in report.rows} >= {"model", "constant", "linear"}
    assert any("those of the recordings evaluated before" in note for note in report.notes)
    assert {p: p.stat().st_mtime_ns for p in trained.run.workdir.rglob("*")} == before


def test_only_splits_that_are_read_must_have_something(tmp_path, capfd):
    write_recordings(tmp_path / "all", (260, 190), ("train", "train"))
    settings = SETTINGS | FEW | {"data.cache_dir": tmp_path / "cache", "optim.steps": 1}
    with pytest.raises(tds_jax.UserError, match=r"the val split has no session.*; or give eval.ev"):
        tds_jax.train("default", tmp_path / "all", tmp_path / "run", **settings)
    settings["eval.every"] = 0
    assert tds_jax.train("default", tmp_path / "all", tmp_path / "run", **settings).step == 1
    assert "the test split is empty: no report" in capfd.readouterr().out


def test_a_checkpoint_is_chosen_by_score_age_or_step(trained):
    folder, scores = trained.run.workdir, trained.seen.scores
    assert set(scores) == {2, 4}
    assert tds_jax.load(folder).step == min(scores, key=scores.get) == trained.run.step
    assert tds_jax.load(str(folder), step="last").step == 4
    for step in (2, 4):
        params = tds_jax.load(folder, step=step).params
        jax.tree.map(np.testing.assert_array_equal, params, trained.seen.params[step])
    worse = max(scores, key=scores.get)
    assert tds_jax.load(folder, worse).evaluate("val").value("mae_rad") > 0
    assert repr(tds_jax.load(folder, 2)).endswith("step=2, task='pose')")


def test_params_are_the_models_and_predictions_follow_them(trained, noise):
    run = tds_jax.load(trained.run.workdir)
    from flax import nnx

    own = nnx.to_pure_dict(nnx.state(run.model, nnx.Param))
    jax.tree.map(np.testing.assert_array_equal, run.params, own)
    assert run.config.optim.steps == 4


WRONG = {
    "no rate": (
        {},
        "predict of task 'pose' takes emg, rate_hz, initial_pose; missing .* 'rate_hz'",
    ),
    "other rate": ({"rate_hz": 200}, "emg has 200 samples per second, .* trained on 100; resample"),
    "no number": ({"rate_hz": float("nan")}, "emg has nan samples per second"),
    "text": ({"rate_hz": "fast"}, "rate_hz='fast' is no number; give samples per second"),
    "none": ({"rate_hz": None}, "rate_hz=None is no number"),
    "text as pose": ({"rate_hz": 100, "initial_pose": "fist"}, "initial_pose='fist' is no pose"),
    "needless pose": ({"rate_hz": 100, "initial_pose": [0] * 3}, "starts by itself; leave it out"),
    "unknown": ({"rate_hz": 100, "speed": 1}, "takes emg, .*; got an unexpected .* 'speed'"),
}


@pytest.mark.parametrize(("options", "text"), WRONG.values(), ids=WRONG.keys())
def test_wrong_options_of_predict_are_one_line(tds, noise, options, text):
    with pytest.raises(tds_jax.UserError, match=text):
        tds.predict(noise, **options)


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (np.zeros((50, 3)), "emg has 3 EMG channels, the model was trained on 4"),
        (np.zeros(50), r"emg is an array of float64 with shape \(50,\); give numbers"),
        (np.full((50, 4), "a"), "emg is an array of <U1"),
        (np.zeros((5, 4)), "emg has 5 samples, fewer than the model's receptive field of 9"),
    ],
)
def test_emg_that_does_not_fit_is_one_line(tds, x, text):
    with pytest.raises(tds_jax.UserError, match=text):
        tds.predict(x, rate_hz=100)


def test_emg_in_another_unit_is_one_line(trained, noise):
    """As the door refuses it; this run is normalised, and its recordings spread by about 1."""
    with pytest.raises(tds_jax.UserError, match=r"emg: the spread of its EMG is .* times that of"):
        trained.run.predict(noise * 1e6, rate_hz=100)


def test_what_is_not_there_is_one_line(trained, tds, tmp_path):
    for call, text in (
        (lambda: tds_jax.load(tmp_path), "has no config.json"),
        (
            lambda: tds_jax.load(trained.run.workdir, 3),
            "no checkpoint of step 3; use .* one of 2, 4",
        ),
        (lambda: tds_jax.load(trained.run.workdir, "first"), "no checkpoint of step 'first'"),
        (lambda: tds_jax.load(None), "workdir=None is no path; give the name of a folder"),
        (lambda: trained.run.evaluate("tset"), "split='tset' is not known"),
        (lambda: trained.run.evaluate(data=tmp_path), "no session files"),
        (lambda: trained.run.evaluate(data=tmp_path / "x"), "data=.*/x: no such file or folder"),
        (trained.run.stream, "OwnModel sees the whole window at once and cannot be streamed"),
        (lambda: tds.stream(gain=1), "stream of task 'pose' takes initial_pose; got an unexp"),
    ):
        with pytest.raises(tds_jax.UserError, match=text):
            call()


def test_data_that_have_moved_are_asked_for(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained.run.workdir, run)
    values = json.loads((run / "config.json").read_text())
    values["data"]["path"] = "emg"
    (run / "config.json").write_text(json.dumps(values))
    text = "data.path=emg of the run is not there, seen from /.*; give data=DIR"
    with pytest.raises(tds_jax.UserError, match=text):
        tds_jax.load(run).evaluate()


def test_callbacks_see_every_update_and_evaluation(trained):
    lines = [
        json.loads(x) for x in (trained.run.workdir / "metrics.jsonl").read_text().splitlines()
    ]
    logged = {x["step"]: x["loss"] for x in lines if x["split"] == "train"}
    assert trained.seen.losses.keys() == logged.keys() == {1, 2, 3, 4}
    # The same sums, added in f64 there and in f32 here: two micro-batches of eps = 1e-7.
    np.testing.assert_allclose([*trained.seen.losses.values()], [*logged.values()], rtol=1e-6)
    assert trained.seen.scores == {x["step"]: x["loss"] for x in lines if x["split"] == "val"}
    first, last = (jax.tree.leaves(trained.seen.params[step]) for step in (1, 4))
    assert all(np.any(a != b) for a, b in zip(first, last, strict=True))


class Interrupt(tds_jax.Callback):
    def on_update(self, update):
        if update.step == 1:
            signal.raise_signal(signal.SIGINT)


def test_a_run_begins_with_anothers_parameters_and_leaves_the_frozen_ones(trained, base):
    """Statistics are of the new data; what is learnt moves by two updates of Adam, a learning rate
    each and a little more by decay. Ctrl-C after the first one is KeyboardInterrupt, and the same
    call goes on."""
    values = trained.run.config.to_dict()
    write_recordings(base / "others", LENGTHS[3:], ("train", "val", "test"))

    def train(*callbacks):
        return tds_jax.train(
            values, base / "others", base / "tuned", callbacks, init_from=trained.run.workdir,
            frozen=["network/up"], **{"optim.steps": 2, "eval.every": 0},
        )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        train(Interrupt())
    assert workdir.has_checkpoint(base / "tuned")
    run = train()
    assert run.step == 2
    before, after = trained.run.params["network"], run.params["network"]
    jax.tree.map(np.testing.assert_array_equal, after["up"], before["up"])
    moved = np.abs(after["down"]["kernel"] - before["down"]["kernel"])
    assert 0 < moved.max() < 2.2 * run.config.optim.learning_rate
    means = [np.asarray(one.model.normalizer.mean[...]) for one in (trained.run, run)]
    assert np.abs(means[0] - means[1]).max() > 1e-3


def test_what_a_run_cannot_begin_with_is_one_line_before_it_compiles(trained, tds, base, tmp_path):
    values = trained.run.config.to_dict()
    for source, settings, text in (
        (tmp_path, {}, "optim.init_from=.* has no checkpoint; train it first"),
        (tds.workdir, {}, "its model has no network/down/bias, this run's .* settings of model"),
        (trained.run.workdir, {"model.hidden": 9}, r"\(8, 3\), this run's .* \(9, 3\)"),
        (trained.run.workdir, {"optim.frozen": ("dwon",)}, "'dwon', which matches no parameter"),
        (trained.run.workdir, {"optim.frozen": "up"}, "optim.frozen='up' must be a tuple"),
    ):
        with pytest.raises(tds_jax.UserError, match=text):
            tds_jax.train(values, None, tmp_path / "new", init_from=source, **settings)
    assert not (tmp_path / "new" / "checkpoints").exists()


def test_what_train_cannot_use_is_one_line(trained, tmp_path):
    values = trained.run.config.to_dict()
    folder = {"workdir": tmp_path / "run"}
    (tmp_path / "bad.py").write_text("def get_config():\n    return 1 / 0\n")
    for args, changes, text in (
        (("no_such",), {}, "config='no_such' is not there; give a file, or one of .*low_memory"),
        ((tmp_path / "bad.py",), {}, "bad.py' cannot be loaded .ZeroDivisionError"),
        ((values,), {}, "workdir is missing"),
        ((values,), {"optim.stepz": 4}, "'optim.stepz' is not a setting; did you mean 'optim.step"),
        ((values,), {"optim.steps": "4"}, "optim.steps='4' has type str; use int"),
        ((None,), {"data": "x"}, "config is a NoneType without a task; give a file, the name"),
        (({},), {"data": "x"}, "config is a dict without a task; give a file, the name"),
        ((values,), {"workdir": 5}, "workdir=5 is no path"),
        ((values,), {**folder, "callbacks": [print]}, "has a builtin.*; give a tds_jax.Callback"),
        ((values,), {**folder, "callbacks": Interrupt()}, "callbacks is a Interrupt; give a list"),
        ((values,), {**folder, "callbacks": [Interrupt]}, "the class Interrupt; give Interrupt"),
        ((values,), {"workdir": values["data"]["path"]}, "is the folder of the data; name another"),
    ):
        with pytest.raises(tds_jax.UserError, match=text):
            tds_jax.train(*args, **changes)
