"""Reports: one shape in memory, on disk and on the screen."""

import csv
import dataclasses
import io
import json
import math
import re

import pytest
from rich.console import Console

from tds_jax.engine.report import Report, Row

ROWS = [
    Row("test", "all", "model", "mse", 0.5, None, 10),
    Row("test", "all", "zero", "mse", 2.0, None, 10),
    Row("test", "user/a", "model", "mse", 0.25, 0.1, 5),
    Row("test", "user/a", "zero", "mse", 1.0, None, 5),
    Row("test", "finger/thumb", "model", "mse", math.nan, None, 0),
]
REPORT = Report(ROWS, ("mse",), ("user",))


def test_the_json_has_splits_then_model_baselines_groups():
    assert REPORT.to_dict() == {
        "splits": {
            "test": {
                "model": {"mse": 0.5},
                "baselines": {"zero": {"mse": 2.0}},
                "groups": {
                    "user/a": {
                        "model": {"mse": 0.25, "mse_sd": 0.1},
                        "baselines": {"zero": {"mse": 1.0}},
                    },
                    "finger/thumb": {"model": {"mse": None}},
                },
            }
        }
    }


def test_a_split_without_baselines_and_groups_still_has_their_places():
    assert Report(ROWS[:1], ("mse",), ()).to_dict()["splits"]["test"] == {
        "model": {"mse": 0.5},
        "baselines": {},
        "groups": {},
    }


def test_splits_evaluated_earlier_stay_and_a_repeated_one_is_replaced(tmp_path):
    val = Report([Row("val", "all", "model", "mse", 3.0, None, 1)], ("mse",), ())
    test = Report([Row("test", "all", "model", "mse", 9.0, None, 1)], ("mse",), ())
    for report, step in ((REPORT, 1), (val, 2), (test, 3)):
        report.write(tmp_path, {"step": step})
    splits = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert splits["splits"]["val"]["model"] == {"mse": 3.0}
    assert splits["splits"]["test"]["model"] == {"mse": 9.0}
    assert splits["splits"]["test"]["groups"] == {}
    assert splits["evaluated"] == {"test": {"step": 3}, "val": {"step": 2}}
    assert not list(tmp_path.glob("*.tmp"))


def test_the_csv_has_every_row_of_its_split(tmp_path):
    REPORT.write(tmp_path, {})
    with (tmp_path / "report_test.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["group"], r["method"], float(r["value"])) for r in rows[:4]] == [
        (r.group, r.method, r.value) for r in ROWS[:4]
    ]
    assert len(rows) == len(ROWS)
    assert rows[0]["spread"] == ""


def test_values_are_found_by_name_and_missing_ones_are_errors():
    assert REPORT.value("mse") == 0.5
    assert REPORT.value("mse", method="zero", group="user/a") == 1.0
    with pytest.raises(KeyError, match="r2"):
        REPORT.value("r2")


def test_the_table_shows_methods_on_everything_and_the_model_on_the_chosen_groups():
    console = Console(width=100, file=io.StringIO())
    console.print(REPORT.table("test", "title"))
    lines = [line.split("│")[1:-1] for line in console.file.getvalue().splitlines() if "│" in line]
    cells = [[cell.strip() for cell in line] for line in lines]
    assert cells == [["all", "model", "0.5"], ["all", "zero", "2"], ["user/a", "model", "0.25"]]


def rendered(table):
    console = Console(width=100, file=io.StringIO())
    console.print(table)
    lines = console.file.getvalue().splitlines()
    return [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]]
            for line in lines if "│" in line or "┃" in line]  # fmt: skip


def test_a_metric_no_shown_row_has_gets_no_column_and_a_missing_one_an_empty_cell():
    rows = [*ROWS, Row("test", "all", "model", "mm", 7.0, None, 1)]
    found = rendered(Report(rows, ("mse", "mm", "km"), ()).table("test", ""))
    assert found == [["group", "method", "mse", "mm"], ["all", "model", "0.5", "7"],
                     ["all", "zero", "2", ""]]  # fmt: skip


SPREADS = [
    Row("test", f"per_user/{group}", method, metric, value, spread, 2)
    for group in ("all", "stage/fist", "side/left")
    for method, spread in (("model", 0.25), ("zero", None))
    for metric, value in (("mm", 7.0), ("deg", 3.0), ("other", 1.0))
]


def test_means_and_spreads_have_a_table_with_a_column_per_shown_group():
    report = Report([*ROWS, *SPREADS], ("mse",), ("stage",), ("deg", "mm"))
    table = report.spread_table("test")
    assert table.title == "mean ± SD per user: deg / mm"
    expected = [["model", "3.0±0.2 / 7.0±0.2"], ["zero", "3.0 / 7.0"]]
    assert rendered(table) == [["method", "fist"], *expected]
    # Of a split without shown groups, everything; of one without spreads, nothing.
    whole = Report(SPREADS, (), (), ("deg", "mm")).spread_table("test")
    assert rendered(whole) == [["method", "all"], *expected]
    assert Report(ROWS, (), ("user",), ("mse",)).spread_table("test") is None
    alone = [dataclasses.replace(row, spread=None) for row in SPREADS]
    assert Report(alone, (), ("stage",), ("deg", "mm")).spread_table("test") is None
    assert report.spread_table("val") is None


def test_tables_and_notes_are_printed_as_they_are(capsys):
    Report([*ROWS, *SPREADS], ("mse",), (), ("deg",), ("read [this]",)).show("test", "title")
    text = capsys.readouterr().out
    assert text.startswith("title")
    assert "mean ± SD per user: deg" in " ".join(text.split())  # a title wraps with its table
    assert text.endswith("note: read [this]\n")
