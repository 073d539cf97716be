"""Runs beside each other: seeds are one column, other settings are rows, others' data are said."""

import json

import pytest

from tds_jax.engine import comparison
from tds_jax.errors import UserError


def begun(folder, seed=0, steps=10, mse=None, identity="a", **config):
    folder.mkdir(parents=True)
    config = {
        "task": "pose",
        "seed": seed,
        "optim": {"steps": steps},
        "log": {"every": seed},
    } | config
    (folder / "config.json").write_text(json.dumps(config))
    if mse is not None:
        report = {
            "splits": {"test": {"model": {"mse": mse, "other": 1.0, "bad": None}, "baselines": {}}},
            "shown": {"test": {"headline": ["mse", "bad"]}},
            "evaluated": {"test": {"identity": identity, "step": steps}},
        }
        (folder / "report.json").write_text(json.dumps(report))
    (folder / "metrics.jsonl").write_text(
        '{"split": "val", "step": 1, "loss": 0.5, "perf/host_bytes": 2097152}\n'
    )
    times = (("start", "00:00:05"), ("start", "00:00:20"), ("end", "00:01:00"))
    lines = [{"event": event, "time": f"2026-01-01T{time}+00:00"} for event, time in times]
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def columns(*folders):
    return comparison.grouped([comparison.read(f, "test") for f in comparison.find(folders)])


@pytest.fixture
def two(tmp_path):
    """Three seeds in a folder of theirs, and a run with other steps, on other data."""
    for seed, mse in enumerate((1.0, 2.0, 3.0)):
        begun(tmp_path / "many" / f"seed{seed}", seed, 10, mse)
    begun(tmp_path / "long", 0, 20, 0.5, identity="b")
    return columns(tmp_path / "many", tmp_path / "long")


def test_seeds_are_one_column_and_settings_that_differ_are_rows(two, tmp_path):
    grid = comparison.grid(two)
    assert grid.columns == ["many", "long"]
    assert dict(grid.rows) == {
        "runs": ["3", "1"], "optim.steps": ["10", "20"], "mse": ["2 ± 1", "0.5"],
        "steps": ["10", "20"], "host": ["2 MiB", "2 MiB"], "time": ["0:00:40", "0:00:40"],
    }  # fmt: skip
    assert comparison.notes(two, "test") == ["the runs were evaluated on 2 different sets of data"]
    found = comparison.to_dict(two)["many"]["metrics"]["mse"]
    assert found == {"mean": 2.0, "sd": 1.0, "values": [1.0, 2.0, 3.0]}
    assert comparison.draw(two, tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_seed_again_is_no_other_sample(tmp_path):
    folders = [begun(tmp_path / name, 0, 10, mse) for name, mse in (("a", 1.0), ("b", 2.0))]
    grid = comparison.grid(columns(*folders))
    assert (grid.columns, dict(grid.rows)["mse"]) == (["a", "b"], ["1", "2"])


def test_folds_are_one_column_and_each_setting_of_a_sweep_another(tmp_path):
    for steps in (10, 20):
        for fold, mse in (("1/3", 1.0), ("2/3", 3.0)):
            name = f"steps={steps}_fold{fold.replace('/', 'of')}_seed0"
            data = {"fold": fold, "path": "x"}
            begun(tmp_path / name, 0, steps, mse * steps, identity=fold, data=data)
    assert comparison.notes(columns(tmp_path), "test") == [], "another fold is no other data"
    grid = comparison.grid(columns(tmp_path))
    assert grid.columns == ["steps=10", "steps=20"]
    rows = dict(grid.rows)
    assert (rows["runs"], rows["mse"]) == (["2", "2"], ["20 ± 14", "40 ± 28"])
    assert [name for name in rows if "." in name] == ["optim.steps"]


def test_a_run_without_a_report_is_said_and_a_folder_without_runs_refused(tmp_path):
    found = columns(begun(tmp_path / "young"))
    assert comparison.notes(found, "test") == [f"{tmp_path}/young has no report on test"]
    assert comparison.grid(found).rows[0] == ("runs", ["1"])
    (tmp_path / "empty").mkdir()
    for folder, words in (
        (tmp_path / "empty", "no folder that train"),
        (tmp_path / "no", "is not there"),
    ):
        with pytest.raises(UserError, match=words):
            comparison.find([str(folder)])
