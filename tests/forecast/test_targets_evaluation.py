"""A report of several targets: rows, tables and figures of each are those it has alone."""

import json

import numpy as np
import pytest

from tds_jax.engine.report import Report
from tds_jax.errors import UserError
from tds_jax.forecast import baselines, evaluation, figures
from tds_jax.forecast.metrics import Cells
from tests.forecast.several import FITTED, NAMES, alone, pair, ready, task_of

JUDGED = FITTED | {"eval__members": 4, "eval__batch_size": 16}


@pytest.fixture(scope="module")
def evaluated(path, tmp_path_factory):
    """(task, model, report, folder), of an ensemble whose network is silent."""
    folder = tmp_path_factory.mktemp("evaluated")
    task = task_of(path, folder, **JUDGED)
    model = ready(task, silent=True)
    report = evaluation.evaluate(task, model, "test", folder)
    report.write(folder, {})
    return task, model, report, folder


def test_rows_of_a_target_are_those_of_a_run_of_it_alone(evaluated, path, tmp_path):
    _, _, report, _ = evaluated
    found = {(row.group, row.method, row.metric): row for row in report.rows}
    assert {row.group for row in report.rows} == {
        *("all", "lead/1", "lead/2", "lead/3", "against_model"),
        *(f"against_model/lead/{n}" for n in (1, 2, 3)),
        *("of/t2m", "of/t2m/lead/1", "of/t2m/lead/2", "of/t2m/lead/3"),
        *("against_model/of/t2m", *(f"against_model/of/t2m/lead/{n}" for n in (1, 2, 3))),
    }
    for name, of in zip(NAMES, ("", "of/t2m"), strict=True):
        task = alone(path, tmp_path, name, **JUDGED)
        single = evaluation.evaluate(task, ready(task, silent=True), "test", None)
        for row in single.rows:
            place = row.group if not of else row.group.replace("all", of)
            if of and "lead/" in place:
                place = place.replace("lead/", f"{of}/lead/")
            elif of and place == "against_model":
                place = f"{place}/{of}"
            own = found[place, row.method, row.metric]
            assert own.count == row.count
            ends = [(own.value, row.value), (own.low, row.low), (own.high, row.high)]
            for one, other in ends:
                # Rounding of two programs, of f32 near 280 beside errors of 2 and ends near 0.
                assert (one is None) == (other is None)
                assert other is None or one == pytest.approx(other, rel=2e-3, abs=2e-3, nan_ok=True)


def test_baselines_of_each_target_are_kept_by_its_own_identity(evaluated, path, monkeypatch):
    task, _, _, folder = evaluated
    kept = {name: evaluation.fitted_baselines(task, "test", folder, name=name) for name in NAMES}
    files = sorted(one.name for one in folder.glob("baselines*"))
    assert files == ["baselines_test.npz", "baselines_test_t2m.npz"]
    monkeypatch.setattr(baselines, "fit", lambda *_: pytest.fail("fitted again"))
    for name in NAMES:
        again = evaluation.fitted_baselines(task, "test", folder, name=name)
        np.testing.assert_array_equal(again.damping, kept[name].damping)
    assert kept["swvl1"].digest != kept["t2m"].digest
    monkeypatch.undo()
    single = evaluation.fitted_baselines(alone(path, folder, "t2m"), "test", None)
    np.testing.assert_array_equal(kept["t2m"].linear, single.linear)
    np.testing.assert_array_equal(kept["t2m"].spread_linear, single.spread_linear)


def test_tables_name_every_target_with_its_unit_and_fit_eighty_columns(
    evaluated, capsys, monkeypatch
):
    _, _, report, folder = evaluated
    monkeypatch.setenv("COLUMNS", "80")
    again = Report.read(folder, "test")
    again.show("test", "test")
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert max(len(line) for line in lines) <= 80
    first, second = lines.index("swvl1 [m**3 m**-3]"), lines.index("t2m [K]")
    for start, group in ((first, "all"), (second, "of/t2m")):
        row = next(line for line in lines[start:] if line.startswith("│ model"))
        assert f"{report.value('rmse', group=group):.4g}" in row
        row = next(line for line in lines[start:] if line.startswith("│ linear "))
        assert f"{report.value('rmse', 'linear', group):.4g}" in row
    assert any(line.startswith("swvl1, rmse: ") for line in report.verdict)
    assert any(line.startswith("t2m, rmse: ") for line in report.verdict)
    assert "note: errors of of/t2m are of t2m [K]" in out
    titles = [grid.title for grid in report.grids("test")]
    assert titles[:3] == ["swvl1 [m**3 m**-3]", titles[1], "t2m [K]"]
    assert titles[-1] == "t2m [K], model by lead"
    assert f"{report.value('rmse', group='of/t2m'):.4g}" in str(report.table())
    stored = json.loads((folder / "report.json").read_text())["splits"]["test"]["groups"]
    assert stored["of/t2m"]["model"]["rmse"] == report.value("rmse", group="of/t2m")
    assert set(stored["of/t2m"]["baselines"]) == set(baselines.NAMES)


def test_each_target_has_figures_of_its_own(evaluated):
    folder = evaluated[3] / "plots"
    sizes = {one.name: one.stat().st_size for one in folder.glob("*.png")}
    for kind in ("leads", "maps", "rmse", "ensemble"):
        first, second = f"test_{kind}.png", f"test_t2m_{kind}.png"
        assert min(sizes[first], sizes[second]) > 5000
        assert (folder / first).read_bytes() != (folder / second).read_bytes()


def test_curves_of_a_target_are_its_own_rows(evaluated, monkeypatch):
    task, _, report, folder = evaluated
    drawn = []
    for name in ("draw_maps", "draw_error_map"):
        monkeypatch.setattr(figures, name, lambda *_: None)
    monkeypatch.setattr(figures, "draw_leads", lambda path, curves, unit: drawn.append(curves))
    states = {"cells": Cells(*np.ones((3, 3, 5, 6)))}
    for target, of in zip(evaluation.targets_of(task), ("", "of/t2m/"), strict=True):
        evaluation._draw(task, target, folder, report, "test", None, states)
        values = drawn[-1].values("rmse")["linear"]
        assert values == {n: report.value("rmse", "linear", f"{of}lead/{n}") for n in (1, 2, 3)}


def test_another_period_is_judged_beside_the_runs_baselines_of_each_target(
    evaluated, tmp_path, monkeypatch
):
    monkeypatch.setattr(evaluation, "_draw", lambda *_: None)  # figures are those of any period
    _, model, _, folder = evaluated
    run = tmp_path / "run"
    (run / "on_other").mkdir(parents=True)
    (run / "config.json").write_text("{}")
    for one in folder.glob("baselines*"):
        (run / one.name).write_bytes(one.read_bytes())
    pair(count=60, first="2020-06-01", seed=1).to_netcdf(tmp_path / "later.nc", engine="scipy")
    other = task_of(tmp_path / "later.nc", tmp_path, **JUDGED)
    report = evaluation.evaluate(other, model, "test", run / "on_other")
    assert 0 < report.value("rmse", "linear") < 0.2
    assert 2 < report.value("rmse", "linear", "of/t2m") < 20
    (run / "baselines_test_t2m.npz").unlink()
    with pytest.raises(UserError, match="has no baselines of test for other data"):
        evaluation.evaluate(other, model, "test", run / "on_other")
