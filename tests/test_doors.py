"""The doors as a user opens them: train, evaluate, predict and plan in processes of their own."""

import csv
import json
import os
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

import tds_jax
from tds_jax.budget.targets import NAMES
from tds_jax.engine import history, lock
from tds_jax.errors import UserError
from tests.doors import ROOT, door

# The smallest network on generated recordings of one user, 5 s each.
SETTINGS = {
    "model.groups": (2, 2), "model.widths": (2, 2), "model.tds_kernels": (5, 3),
    "model.tds_blocks": (1, 1), "model.hidden": 8, "model.layers": 1, "data.window": 1000,
    "data.eval_window": 4000, "data.synthetic_users": 1, "data.synthetic_sessions": 3,
    "data.synthetic_seconds": 5.0, "optim.batch_size": 4, "optim.accumulate": 2,
    "optim.steps": 4, "optim.warmup_steps": 1, "optim.learning_rate": 0.001,
    "eval.every": 2, "log.every": 1,
}  # fmt: skip
DOORS = ("train", "evaluate", "predict", "plan", "check", "prepare", "synthesize", "export")
DOORS += ("import_torch",)
HEADLINE = {"mae_deg", "mae_rad", "rmse_rad", "mse", "r2"}
BASELINES = {"constant", "constant_median", "zero", "hold_initial", "linear", "linear_median"}


def train_flags(base, **changes):
    values = SETTINGS | {"data.cache_dir": base / "cache"} | changes
    settings = [f"--config.{name}={value}" for name, value in values.items()]
    return ["--config=configs/default.py", f"--workdir={base / 'run'}", *settings]


def trained_here(base, folder, **changes):
    """What the door does, in this process: a start that is refused needs none of its own."""
    values = SETTINGS | {"data.cache_dir": str(base / "cache")} | changes
    return tds_jax.train(ROOT / "configs/default.py", workdir=folder, **values)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tmp_path_factory.mktemp("doors")


@pytest.fixture(scope="module")
def trained(base):
    """(finished process, workdir) of a training run."""
    done = door("train", *train_flags(base))
    assert done.returncode == 0, done.stderr
    return done, base / "run"


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_training_leaves_config_metrics_checkpoints_plots_and_report(trained):
    done, run = trained
    assert json.loads((run / "config.json").read_text())["optim"]["accumulate"] == 2
    logged = lines(run)
    assert [line["step"] for line in logged if line["split"] == "train"] == [1, 2, 3, 4]
    assert [line["step"] for line in logged if line["split"] == "val"] == [2, 4]
    for line in logged:
        assert np.isfinite([line["loss"], line["mae_rad"], line["r2"]]).all()
    assert any((run / "checkpoints").iterdir())
    begun, ended = history.read(run)
    assert f"--workdir={run}" in begun["command"]
    assert begun["plan"].startswith("micro-batch")
    assert (ended["how"], ended["steps"]) == ("complete", 4)
    names = {path.name for path in (run / "plots").iterdir()}
    assert names == {
        "curves.png",
        "test_angles.png",
        "test_methods.png",
        "test_hand.png",
        "test_hand.gif",
    }
    names.remove("test_hand.gif")
    assert all((run / "plots" / name).read_bytes().startswith(b"\x89PNG") for name in names)
    assert not list(run.glob("*.tmp"))
    for text in ("host peak", "device peak", "predicted", "mae_deg", "linear", "report.json"):
        assert text in done.stdout, text


def test_the_report_has_the_shape_that_scripts_read(trained):
    _, run = trained
    report = json.loads((run / "report.json").read_text())
    assert set(report) == {"splits", "evaluated", "shown"}
    test = report["splits"]["test"]
    assert set(test) == {"model", "baselines", "groups"}
    assert set(test["model"]) >= HEADLINE
    assert set(test["baselines"]) == BASELINES
    assert all(set(values) == set(test["model"]) for values in test["baselines"].values())
    assert set(test["groups"]) >= {
        "generalization/session", "generalization/user", "generalization/stage",
        "generalization/user_stage", "user/user00", "finger/thumb",
    }  # fmt: skip
    # The headline is of unseen sessions of seen users.
    assert test["model"] == test["groups"]["generalization/session"]["model"]
    assert test["model"]["mae_deg"] == pytest.approx(np.degrees(test["model"]["mae_rad"]))


def test_the_table_of_every_row_agrees_with_the_report(trained):
    _, run = trained
    with (run / "report_test.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = "split group method metric value spread count low high"
    assert " ".join(rows[0]) == names
    found = {(row["group"], row["method"], row["metric"]): float(row["value"]) for row in rows}
    test = json.loads((run / "report.json").read_text())["splits"]["test"]
    assert found["all", "model", "mae_rad"] == test["model"]["mae_rad"]
    assert found["all", "linear", "mae_rad"] == test["baselines"]["linear"]["mae_rad"]
    assert {row["split"] for row in rows} == {"test"}


@pytest.mark.long
def test_training_again_adds_nothing(trained, base):
    _, run = trained
    before = lines(run)
    done = door("train", *train_flags(base))
    assert done.returncode == 0, done.stderr
    assert lines(run) == before
    assert [line["event"] for line in history.read(run)] == ["start", "end"] * 2


def test_evaluate_repeats_the_numbers_and_keeps_other_splits(trained, base):
    _, run = trained
    before = json.loads((run / "report.json").read_text())["splits"]["test"]
    (named,) = (base / "cache").rglob("metadata.csv")
    data = shutil.copytree(named.parent, base / "copied")
    (data / "more.hdf5").touch()
    flags = ("--split=val", f"--json={base / 'val.json'}", f"--data={data}")
    done = door("evaluate", f"--workdir={run}", *flags)
    assert done.returncode == 0, done.stderr
    assert "1 files are not in metadata.csv and stay unused (first: more.hdf5)" in done.stderr
    stored = json.loads((run / "report.json").read_text())["splits"]
    assert stored["test"] == before
    told = json.loads((run / "report.json").read_text())["evaluated"]
    assert told["val"]["step"] == told["test"]["step"]
    assert told["val"]["holds"].startswith("6 sessions of 2 users (train ")
    assert stored["val"] == json.loads((base / "val.json").read_text())["splits"]["val"]
    # The best checkpoint's validation, over the same windows; f32 sums in other batches.
    logged = min(line["loss"] for line in lines(run) if line["split"] == "val")
    mine = stored["val"]["model"]["mse"] + 0.5 * stored["val"]["model"]["mae_rad"]
    assert mine == pytest.approx(logged, rel=1e-5)
    assert {"val_angles.png", "report_val.csv"} <= {path.name for path in run.rglob("*")}


def test_predict_answers_for_every_row_of_a_recording(trained, base):
    _, run = trained
    (folder,) = (base / "cache" / "generated").iterdir()
    source = sorted(folder.glob("*.hdf5"))[0]
    done = door("predict", f"--workdir={run}", f"--input={source}", f"--output={base / 'p.hdf5'}")
    assert done.returncode == 0, done.stderr
    assert f"written: 1 file, the last is {base / 'p.hdf5'}" in done.stdout
    with h5py.File(source) as file, h5py.File(base / "p.hdf5") as found:
        rows = file["emg2pose/timeseries"][:]
        np.testing.assert_array_equal(found["prediction/time"], rows["time"])
        angles = found["prediction/joint_angles"][:]
    assert angles.shape == rows["joint_angles"].shape
    blank = np.isnan(angles).all(1)
    assert 0 < blank.sum() < 500
    assert not blank[blank.sum() :].any()


def test_a_damaged_report_is_told_before_the_work(trained, tmp_path):
    run = shutil.copytree(trained[1], tmp_path / "run")
    (run / "report.json").write_text("{")
    (run / "report_val.csv").unlink(missing_ok=True)
    done = door("evaluate", f"--workdir={run}", "--split=val")
    assert done.returncode == 2
    assert f"error: {run}/report.json is not JSON" in done.stderr
    assert not (run / "report_val.csv").exists()


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("--output=-", "--output=- is no file; name one, or add --stream"),
        ("--output=udp:localhost:9000", "9000 is no file; name one, or add --stream"),
        ("--initial_pose=0,0", "--initial_pose is for --stream; add that, or leave it out"),
    ],
)
def test_what_is_for_a_stream_alone_is_refused_without_it(trained, tmp_path, flag, text):
    place = f"--output={tmp_path / 'p.hdf5'}"
    done = door("predict", f"--workdir={trained[1]}", f"--input={ROOT}", place, flag)
    assert (done.returncode, done.stderr.count("error: ")) == (2, 1)
    assert text in done.stderr


@pytest.mark.long
def test_plan_counts_the_bytes_of_the_step_that_trains(trained, base):
    _, run = trained
    done = door("plan", *[f for f in train_flags(base) if "--workdir" not in f],
                f"--json={base / 'plan.json'}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    plan = json.loads((base / "plan.json").read_text())
    asked = plan["configured"]
    assert (asked["micro_batch"], asked["accumulate"], asked["from"]) == (2, 2, "compiled")
    kinds = ("argument", "output", "temporary", "scratch")
    step = sum(asked[f"{kind}_bytes"] for kind in kinds)
    logged = {line.get("perf/device_predicted_bytes") for line in lines(run)} - {None}
    assert logged == {step}
    assert set(plan["chosen"]) >= {
        "micro_batch", "accumulate", "remat", "dtype", "device_peak_bytes", "host_peak_bytes",
        "relative_cost",
    }  # fmt: skip
    assert "chosen: micro-batch" in done.stdout


def test_another_config_is_refused_and_changes_nothing(trained, base):
    _, run = trained
    before = (run / "config.json").read_text()
    with pytest.raises(UserError, match=r"optim\.learning_rate: 0\.001 -> 0\.5"):
        trained_here(base, run, **{"optim.learning_rate": 0.5})
    assert (run / "config.json").read_text() == before


def test_a_second_trainer_is_told_who_writes_the_workdir(trained, base):
    _, run = trained
    with lock.held(run), pytest.raises(UserError, match=f"written by process {os.getpid()} on"):
        trained_here(base, run)


def test_a_failed_start_does_not_claim_the_workdir(base, tmp_path):
    with pytest.raises(UserError, match="/nowhere"):
        trained_here(base, tmp_path / "new", **{"data.path": "/nowhere"})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", DOORS)
def test_help_shows_a_command_and_every_flag_and_needs_no_jax(name):
    done = door(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python -m tds_jax.{name} --" in done.stdout
    assert "\n  --" in done.stdout
    assert ("--coordinator:" in done.stdout) == (name in ("train", "evaluate", "predict"))
    code = f"import sys, tds_jax.{name}; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


REPLACING = {
    "evaluate": ("--workdir=nowhere", "--json"),
    "check": ("--task=pose", "--input=nowhere", "--json"),
    "plan": ("--config=quick_demo", "--target=none", "--json"),
    "compare": ("nowhere", "--json"),
    "compare, picture": ("nowhere", "--output"),
    "export": ("--workdir={}", "--output"),
}


@pytest.mark.parametrize("name", REPLACING)
def test_no_door_takes_a_file_away_unless_told(trained, name, tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("theirs")
    *words, flag = (word.format(trained[1]) for word in REPLACING[name])
    asked = (name.split(",")[0], *words, f"{flag}={file}")
    done = door(*asked)
    assert (done.returncode, file.read_text()) == (2, "theirs")
    assert f"{flag}={file} is there already; name another file, or replace it" in done.stderr
    done = door(*asked, "--overwrite")  # refused for something else, before anything is written
    assert (done.returncode, file.read_text()) == (2, "theirs")
    assert "overwrite" not in done.stderr


def test_help_of_plan_names_its_targets():
    assert f"{', '.join(NAMES[:-1])} or {NAMES[-1]}" in door("plan", "--help").stdout


WRONG = {
    "no flag": (("train",), "--config is missing; give it, see --help"),
    "stray word": (("plan", "--config=configs/default.py", "steps=3"), "'steps=3' is not a flag"),
    "setting": (
        ("train", "--config=configs/default.py", "--config.optim.learning_rat=1"),
        "--config.optim.learning_rat is not a setting; did you mean learning_rate?",
    ),
    "type": (
        ("train", "--config=configs/default.py", "--config.optim.steps=many"),
        "--config.optim.steps=many has the wrong type; use a whole number",
    ),
    "file": (("plan", "--config=nowhere.py"), "--config=nowhere.py cannot be loaded"),
    "workdir": (("evaluate", "--workdir=nowhere"), "--workdir=nowhere has no config.json"),
    "task": (("synthesize", "--task=tea", "--output=x"), "--task='tea' is not known; use one of"),
}


@pytest.mark.parametrize(("args", "text"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_command_line_is_one_line_and_exit_code_2(args, text):
    done = door(*args)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert text in line
