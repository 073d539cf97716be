"""metrics.jsonl survives kills, and holds what a repeated run would write."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import time

import pytest

from tds_jax.config import LOGGERS
from tds_jax.engine import curves, loggers, logs
from tds_jax.errors import UserError
from tests.doors import ROOT
from tests.engine import toy

LINES = [
    {"step": n // 2, "examples": 4 * n, "split": split, "loss": value}
    for n, split, value in [(2, "train", 0.1), (4, "train", 1 / 3), (4, "val", 2e-17)]
]


def written(folder, lines, tail=""):
    path = folder / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)
    return path


@pytest.mark.parametrize("tail", ["", '{"step": 3, "exam', '{"step": 3, "examples": 24}', "{"])
def test_a_last_line_cut_short_by_a_kill_is_left_out(tmp_path, tail):
    assert logs.read_lines(written(tmp_path, LINES, tail)) == LINES


def test_a_missing_file_has_no_lines(tmp_path):
    assert logs.read_lines(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize(("examples", "kept"), [(0, 0), (8, 1), (15, 1), (16, 3), (99, 3)])
def test_lines_after_the_restored_position_are_dropped(tmp_path, examples, kept):
    path = written(tmp_path, LINES, '{"step": 3')
    logs.cut_back(path, examples, examples)
    assert logs.read_lines(path) == LINES[:kept]
    assert path.read_text() == "".join(json.dumps(line) + "\n" for line in LINES[:kept])
    assert os.listdir(tmp_path) == ["metrics.jsonl"]


@pytest.mark.parametrize("damage", ["{", "\xff", "[]", "", '{"note": "by hand"}'])
def test_damaged_lines_are_counted_and_left_out_and_the_file_is_kept(tmp_path, damage):
    path = written(tmp_path, LINES)
    whole = path.read_bytes()
    path.write_bytes(damage.encode("latin-1") + b"\n" + whole)
    before = path.read_bytes()
    words = logs.cut_back(path, 99, 99)
    assert "1 lines" in words
    assert str(tmp_path / "damaged" / path.name) in words
    assert (tmp_path / "damaged" / path.name).read_bytes() == before
    assert path.read_bytes() == whole
    assert logs.cut_back(path, 99, 99) == ""


def test_an_evaluation_whose_score_was_not_saved_is_dropped_with_its_line(tmp_path):
    path = written(tmp_path, LINES)
    logs.cut_back(path, 16, 8)
    kept = logs.read_lines(path)
    assert [line for line in LINES if line["split"] == "train"] == kept


def test_what_is_kept_keeps_every_byte(tmp_path):
    path = written(tmp_path, LINES)
    before = path.read_bytes()
    logs.cut_back(path, 16, 16)
    assert path.read_bytes() == before


def test_numbers_that_are_not_finite_are_null_and_the_line_is_json(tmp_path):
    with logs.Log(tmp_path, toy.config(), lambda line: "") as log:
        log.write({"step": 1, "examples": 8, "split": "train", "a": float("nan"), "b": 1.5})
    text = log.path.read_text()
    assert json.loads(text, parse_constant=pytest.fail)["a"] is None
    assert json.loads(text)["b"] == 1.5


def test_every_line_is_on_disk_once_written_and_shown(tmp_path, capsys):
    with logs.Log(tmp_path, toy.config(), lambda line: f"loss {line['loss']}") as log:
        for count, line in enumerate(LINES, 1):
            log.write(line)
            assert len(logs.read_lines(log.path)) == count
        log.say("[bold]as it is")
    shown = capsys.readouterr().out
    assert "train      1/6  loss 0.1" in shown
    assert "  val      2/6  loss 2e-17" in shown
    assert "[bold]as it is" in shown


def test_tensorboard_gets_the_same_numbers(tmp_path):
    pytest.importorskip("tensorboardX")
    with logs.Log(tmp_path, toy.config(log__to=("tensorboard",)), lambda line: "") as log:
        log.begin(0)
        log.write(LINES[0] | {"nan": float("nan"), "skipped": 3})
    files = list((tmp_path / "tensorboard").iterdir())
    assert b"train/loss" in files[0].read_bytes()
    assert b"train/skipped" in files[0].read_bytes()
    assert b"train/nan" not in files[0].read_bytes()


def test_wandb_goes_on_offline_in_the_workdir_with_the_same_numbers(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for line in LINES[:2]:
        with logs.Log(tmp_path, toy.config(log__to=("wandb",)), lambda line: "") as log:
            log.begin(0)
            log.write(line | {"nan": float("nan")})
    found = sorted((tmp_path / "wandb").glob("offline-run-*"))
    number = json.loads((tmp_path / "logged.json").read_text())["wandb"]
    assert {name.name.rpartition("-")[2] for name in found} == {number}, "parts of one run"
    text = b"".join(path.read_bytes() for path in found[0].glob("*.wandb"))
    assert b"train/loss" in text
    assert b"nan" not in text


def test_mlflow_goes_on_in_the_workdir_with_the_same_numbers(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for line in LINES[:2]:
        with logs.Log(tmp_path, toy.config(log__to=("mlflow",)), lambda line: "") as log:
            log.begin(0)
            log.write(line | {"nan": float("nan")})
    client = mlflow.MlflowClient((tmp_path / "mlflow").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("tds_jax").experiment_id])
    assert run.data.params["optim.steps"] == str(toy.config().optim.steps)
    history = client.get_metric_history(run.info.run_id, "train/loss")
    expected = [(line["step"], line["loss"]) for line in LINES[:2]]
    assert [(point.step, point.value) for point in history] == expected
    assert "train/nan" not in run.data.metrics


def test_a_logger_that_is_not_installed_is_one_line_that_names_its_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in LOGGERS:
        with pytest.raises(UserError, match=rf"pip install 'tds_jax\[{name}\]'"):
            loggers.require_installed((name,))
    assert set(LOGGERS) == set(loggers.PACKAGES)


def test_series_leave_out_positions_machines_and_gaps():
    lines = [LINES[0] | {"perf/x": 1.0}, LINES[1] | {"loss": None}, LINES[2]]
    assert list(logs.series(lines, "train")) == [("loss", [1], [0.1])]
    assert list(logs.series(lines, "val")) == [("loss", [2], [2e-17])]


def test_curves_are_drawn_once_there_are_lines(tmp_path):
    assert curves.draw_curves(tmp_path) is None
    written(tmp_path, LINES)
    picture = curves.draw_curves(tmp_path)
    assert picture.read_bytes().startswith(b"\x89PNG")
    shutil.rmtree(picture.parent)


def test_curves_show_the_best_step_units_and_what_baselines_reach(tmp_path, monkeypatch):
    lines = [
        {"step": n, "examples": 4 * n, "split": split, "mae_rad": value}
        for n, split, value in [
            (1, "train", 3.0),
            (1, "val", 2.0),
            (2, "val", 1.0),
            (3, "val", 1.5),
        ]
    ]
    written(tmp_path, lines)
    (tmp_path / "config.json").write_text('{"eval": {"metric": "mae_rad", "mode": "min"}}')
    baselines = {"ridge": {"mae_rad": 0.5, "other": None}, "zero": {"other": 1.0}}
    report = {"splits": {"test": {"model": {}, "baselines": baselines}}}
    (tmp_path / "report.json").write_text(json.dumps(report))
    drawn = []
    monkeypatch.setattr(curves, "save", lambda figure, path: drawn.append(figure))
    curves.draw_curves(tmp_path)
    (axis,) = drawn[0].axes
    found = {line.get_label(): line for line in axis.get_lines()}
    assert set(found) == {"ridge on test", "best on val", "train", "val"}
    assert list(found["best on val"].get_xdata()) == [2, 2]
    assert list(found["ridge on test"].get_ydata()) == [0.5, 0.5]
    assert (axis.get_title(), axis.get_ylabel()) == ("mae_rad", "rad")
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == list(found)


@pytest.mark.parametrize(("headline", "best"), [("mae_rad", "abcd"), ("iou", "edcb")])
def test_curves_show_the_best_baselines_by_the_first_number_of_the_table(
    tmp_path, monkeypatch, headline, best
):
    """Errors are better small, others large; of rows that lack the number none is."""
    written(tmp_path, [{"step": n, "split": "train", headline: 1.0} for n in (1, 2)])
    values = {"e": 5.0, "none": None, "a": 1.0, "b": 2.0, "d": 4.0, "c": 3.0}
    baselines = {name: {headline: value} for name, value in values.items()}
    report = {
        "splits": {"test": {"model": {}, "baselines": baselines}},
        "shown": {"test": {"headline": [headline, "other"]}},
    }
    (tmp_path / "report.json").write_text(json.dumps(report))
    drawn = []
    monkeypatch.setattr(curves, "save", lambda figure, path: drawn.append(figure))
    curves.draw_curves(tmp_path)
    labels = [line.get_label() for line in drawn[0].axes[0].get_lines()]
    assert labels == [*(f"{name} on test" for name in best), "train"]


def test_axes_of_curves_are_whole_updates_and_have_units_where_numbers_do(tmp_path, monkeypatch):
    names = ("loss", "rmse_rad", "mse", "rmse", "rmse_area", "skill")
    for shown, units in (
        (names[:3], ["", "rad", "rad²"]),
        (names[2:], ["its unit squared", "unit of the target", "unit of the target", ""]),
    ):
        folder = tmp_path / shown[0]
        folder.mkdir()
        lines = [{"step": n, "split": "train"} | dict.fromkeys(shown, 1.0 + n) for n in (1, 2)]
        written(folder, lines)
        drawn = []
        monkeypatch.setattr(curves, "save", lambda figure, path, drawn=drawn: drawn.append(figure))
        curves.draw_curves(folder)
        axes = drawn[0].axes
        assert [axis.get_ylabel() for axis in axes] == units
        assert all(tick == int(tick) for axis in axes for tick in axis.get_xticks())


PIPED = """
import time
from pathlib import Path
import sys
import time
from tds_jax.engine import logs, stopping
from tests.engine import toy
with stopping.StopSignal() as stop, logs.Log(Path(sys.argv[1]), toy.config(), str) as log:
    for number in range(100_000):
        log.say(f"line {number}")
        if stop:
            Path(sys.argv[1], "stopped").touch()
            break
"""


def test_a_run_whose_reader_has_gone_is_told_to_stop_and_save(tmp_path):
    command = [sys.executable, "-c", PIPED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 0
    assert (tmp_path / "stopped").exists()


def test_a_line_of_a_log_has_the_time_the_speed_and_the_time_left(tmp_path, capsys):
    config = toy.config(optim__steps=100, optim__batch_size=8)
    line = {"step": 40, "examples": 320, "split": "train", "loss": 0.5}
    before = time.time()
    with logs.Log(tmp_path, config, lambda line: f"loss {line['loss']}") as log:
        log.write(line | {"perf/samples_per_s": 4.0})
        log.write(line | {"split": "val"})
    train, val = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d train +40/100  loss 0\.5  4/s  ETA 0:02:00", train)
    assert re.fullmatch(r"\d\d:\d\d:\d\d +val +40/100  loss 0\.5", val)
    (first, _) = logs.read_lines(log.path)
    assert before - 0.01 <= first.pop("perf/time") <= time.time() + 0.01
    assert first == line | {"perf/samples_per_s": 4.0}
