"""Reports: one shape in memory, on disk and on the screen."""

import csv
import dataclasses
import json
import math
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tds_jax.data import json_file
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


def test_a_report_names_a_file_whose_name_is_no_utf_8(tmp_path):
    group = os.fsdecode(b"session/a\xff.hdf5")
    Report([Row("test", group, "model", "mse", 1.0, None, 2)], ("mse",), ()).write(tmp_path, {})
    (row,) = Report.read(tmp_path, "test").rows
    assert row.group == "session/a\\udcff.hdf5"
    assert list(json.loads((tmp_path / "report.json").read_text())["splits"]["test"]["groups"]) == [
        group
    ]


def test_what_is_no_number_is_null_in_spreads_and_intervals_too(tmp_path):
    row = Row("test", "all", "model", "mse", np.inf, np.nan, 2, -np.inf, 1.0)
    Report([row], ("mse",), ()).write(tmp_path, {})
    text = (tmp_path / "report.json").read_text()
    stored = json.loads(text, parse_constant=pytest.fail)["splits"]["test"]["model"]
    assert stored == {"mse": None, "mse_sd": None, "mse_low": None, "mse_high": 1.0}


def test_who_is_killed_between_table_and_json_has_told_of_no_table_that_is_not_there(
    tmp_path, monkeypatch
):
    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("tds_jax.data.json_file.write", killed)
    with pytest.raises(KeyboardInterrupt):
        REPORT.write(tmp_path, {})
    assert [path.name for path in tmp_path.glob("report*")] == ["report_test.csv"]


def test_of_two_splits_that_are_evaluated_at_once_both_stay(tmp_path, monkeypatch):
    REPORT.write(tmp_path, {})
    splits = [
        Report([Row(name, "all", "model", "mse", 3.0, None, 1)], ("mse",), ())
        for name in ("train", "val")
    ]

    def slowly(*args, read=json_file.read):
        found = read(*args)
        time.sleep(0.2)  # for the other to read the same, if nothing keeps it from that
        return found

    monkeypatch.setattr("tds_jax.data.json_file.read", slowly)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda report: report.write(tmp_path, {"step": 1}), splits))
    stored = json.loads((tmp_path / "report.json").read_text())
    for kept in ("splits", "evaluated", "shown"):
        assert stored[kept].keys() == {"train", "val", "test"}, kept


def test_values_are_found_by_name_and_missing_ones_are_errors():
    assert REPORT.value("mse") == 0.5
    assert REPORT.value("mse", method="zero", group="user/a") == 1.0
    with pytest.raises(KeyError, match=r"metric='msee' is not in this report; it has mse\""):
        REPORT.value("msee")
    with pytest.raises(KeyError, match="method='ridge' is not in this report; it has model, zero"):
        REPORT.value("mse", method="ridge")
    with pytest.raises(KeyError, match="no row has metric='mse', method='zero', group='finger/th"):
        REPORT.value("mse", method="zero", group="finger/thumb")


def rendered(text):
    """Titles of tables as words, their lines as cells."""
    lines = [line.rstrip() for line in text.splitlines() if not set(line) & set("┡├└┏")]
    return [
        [cell.strip() for cell in re.split("[│┃]", line)[1:-1]] if set(line) & set("│┃") else line
        for line in lines
    ]


def shown(report, capsys, monkeypatch, width=80, split="test"):
    monkeypatch.setenv("COLUMNS", str(width))
    report.show(split, "title")
    return rendered(capsys.readouterr().out)


def test_the_tables_show_methods_on_everything_and_the_model_on_the_chosen_groups(
    capsys, monkeypatch
):
    found = [(grid.title, grid.columns, grid.rows) for grid in REPORT.grids("test")]
    assert found == [
        ("all", ["mse"], [("model", ["0.5"]), ("zero", ["2"])]),
        ("model by user", ["mse"], [("a", ["0.25"])]),
    ]
    left = "1 more table of 1 line in report.html: model by user. All 5 rows in report_test.csv"
    assert shown(REPORT, capsys, monkeypatch, 200) == [
        "title", "all", ["method", "mse"], ["model", "0.5"], ["zero", "2"], left,
    ]  # fmt: skip


def test_what_says_more_than_the_whole_stands_before_it_and_the_whole_is_called_what_it_is(
    capsys, monkeypatch
):
    report = dataclasses.replace(REPORT, whole="easy ones", leading=("user",))
    assert shown(report, capsys, monkeypatch) == [
        "title",
        "model by user", ["user", "mse"], ["a", "0.25"],
        "easy ones", ["method", "mse"], ["model", "0.5"], ["zero", "2"],
    ]  # fmt: skip


def test_groups_beside_the_whole_have_its_tables_of_every_method(capsys, monkeypatch, tmp_path):
    rows = [*ROWS, Row("test", "of/b", "model", "mse", 7.0, None, 9, 6.0, 8.0)]
    rows += [Row("test", "of/b", "zero", "mse", 9.0, None, 9)]
    rows += [Row("test", "of/b/user/a", "model", "mse", 6.5, None, 9)]
    rows += [Row("test", "of/bb", "model", "mse", 1.0, None, 9)]
    report = dataclasses.replace(REPORT, rows=rows, beside={"of/b": "b [K]"}, drawn="9 users")
    report.write(tmp_path, {})
    report = Report.read(tmp_path, "test")
    found = {grid.title: [*grid.rows] for grid in report.grids("test")}
    assert [*found.items()] == [
        ("all", [("model", ["0.5"]), ("zero", ["2"])]),
        ("b [K]", [("model", ["7"]), ("zero", ["9"])]),
        ("model by user", [("a", ["0.25"])]),
        ("b [K], 95 % intervals, 9 users drawn again and again", [("model", ["6..8"])]),
        ("b [K], model by user", [("a", ["6.5"])]),
    ]
    lines = shown(report, capsys, monkeypatch)
    assert lines[5:9] == ["b [K]", ["method", "mse"], ["model", "7"], ["zero", "9"]]
    assert ["model, of/b", "7"] in rendered(str(report.table()))


def test_a_terminal_has_what_leads_and_the_whole_and_says_what_it_leaves_to_the_files(
    capsys, monkeypatch
):
    rows = [*ROWS, *SPREADS, Row("val", "all", "model", "mse", 1.0, None, 1)]
    rows[0] = dataclasses.replace(rows[0], low=0.4, high=0.6)
    groups = ("user", "finger")
    report = Report(rows, ("mse",), groups, ("deg",), leading=("user",), drawn="9 users")
    found = shown(report, capsys, monkeypatch, 200)
    titles = [grid.title for grid in report.grids("test")]
    assert titles == [
        "deg, mean ± SD per user", "model by user", "all",
        "95 % intervals, 9 users drawn again and again", "model by finger",
    ]  # fmt: skip
    assert [line for line in found if line in titles] == [titles[0], titles[2]]
    left = "; ".join([titles[1], *titles[3:]])
    count = len(rows) - 1
    assert found[-1] == (
        f"3 more tables of 3 lines in report.html: {left}. All {count} rows in report_test.csv"
    )


def test_a_metric_no_shown_row_has_gets_no_column_and_a_missing_one_an_empty_cell(
    capsys, monkeypatch
):
    rows = [*ROWS, Row("test", "all", "model", "mm", 7.0, None, 1)]
    found = shown(Report(rows, ("mse", "mm", "km"), ()), capsys, monkeypatch)
    assert found[2:] == [["method", "mse", "mm"], ["model", "0.5", "7"], ["zero", "2", ""]]


def test_a_narrow_terminal_gets_more_tables_and_no_cell_cut_short(capsys, monkeypatch):
    names = [f"metric_{i}" for i in range(7)]
    rows = [Row("test", "all", "a_long_method", name, 1.0, None, 1) for name in names]
    for width, tables in ((110, 1), (80, 2), (40, 4)):
        found = shown(Report(rows, tuple(names), ()), capsys, monkeypatch, width)
        heads = [line for line in found if line[0] == "method"]
        assert len(heads) == tables
        assert [name for head in heads for name in head[1:]] == names
        assert "…" not in str(found)


def test_the_table_in_python_is_as_wide_as_there_is_room_too(monkeypatch):
    names = [f"metric_{i}" for i in range(5)]
    places = ("all", "model"), ("all", "constant_median"), ("stage/of_a_long_name", "model")
    rows = [Row("test", *place, name, 1.0, None, 1) for name in names for place in places]
    monkeypatch.setenv("COLUMNS", "50")
    table = str(Report(rows, tuple(names), ("stage",)).table(title="here"))
    assert max(map(len, table.splitlines())) <= 50
    for word in ("here", *names, "constant_median", "model, stage/of_a_long_name"):
        assert word in table


SPREADS = [
    Row("test", f"per_user/{group}", method, metric, value, spread, 2)
    for group in ("all", "stage/fist", "side/left")
    for method, spread in (("model", 0.25), ("zero", None))
    for metric, value in (("mm", 7.0), ("deg", 3.0), ("other", 1.0))
]


def test_means_and_spreads_have_a_table_each_with_a_column_per_shown_group(capsys, monkeypatch):
    report = Report([*ROWS, *SPREADS], (), ("stage",), ("deg", "mm"))
    expected = {"deg": [["model", "3.0±0.2"], ["zero", "3.0"]],
                "mm": [["model", "7.0±0.2"], ["zero", "7.0"]]}  # fmt: skip
    for name in ("fist", "all"):  # of a split without shown groups, everything
        found = shown(report, capsys, monkeypatch)
        for metric, cells in expected.items():
            at = found.index(f"{metric}, mean ± SD per user")
            assert found[at + 1 : at + 4] == [["method", name], *cells]
        report = Report(SPREADS, (), (), ("deg", "mm"))
    # Of one without spreads, nothing.
    alone = [dataclasses.replace(row, spread=None) for row in SPREADS]
    for rows in (ROWS, alone):
        found = shown(Report(rows, (), ("user",), ("deg", "mm")), capsys, monkeypatch)
        assert "mean" not in str(found)


def test_tables_and_notes_are_printed_as_they_are(capsys):
    Report([*ROWS, *SPREADS], ("mse",), (), ("deg",), ("read [this]",)).show("test", "title")
    text = capsys.readouterr().out
    assert text.startswith("title")
    assert "deg, mean ± SD per user" in text
    assert text.endswith("note: read [this]\n")
