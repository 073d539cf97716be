"""The doors `check` and `prepare` as a user opens them."""

import json
from types import SimpleNamespace

import pytest

from tds_jax import check, jobs, prepare
from tds_jax.errors import UserError
from tds_jax.tasks import Checked
from tests.data.sessions import make_rows, write_folder, write_rows
from tests.doors import door


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path / "data", [200] * 3)
    return tmp_path / "data"


def test_check_shows_the_table_limits_the_lines_and_writes_all_of_them(folder, tmp_path):
    for i in range(25):
        rows = make_rows(60, seed=10 + i)
        rows["emg"][:, 1] = 0
        write_rows(folder / f"t{i:02}.hdf5", rows)
    done = door("check", "--task=pose", f"--input={folder}", f"--json={tmp_path / 'c.json'}")
    assert done.returncode == 0, done.stderr
    assert "│ files              │ 28 " in done.stdout
    shown = [line for line in done.stdout.splitlines() if line.startswith("emg: ")]
    assert len(shown) == 21
    assert shown[0] == "emg: t00.hdf5: dead: channel 1"
    assert shown[-1] == "emg: and 5 more"
    found = json.loads((tmp_path / "c.json").read_text())
    assert len(found["findings"]["emg"]) == 25
    assert found["summary"]["usable"] == 28


def test_check_of_nothing_usable_is_status_2_and_one_line(folder):
    for path in folder.iterdir():
        path.write_text("hello")
    done = door("check", "--task=pose", f"--input={folder}")
    assert done.returncode == 2
    assert done.stderr == f"error: --input={folder}: no usable file; see the lines above\n"
    assert "unreadable: " in done.stdout


def test_no_message_points_to_lines_that_are_not_there(monkeypatch, tmp_path, capsys):
    given = SimpleNamespace(input=str(tmp_path), output="out", json="")
    for module, nothing, words in (
        (check, Checked(0, {}, {}), "no usable file, and nothing that is wrong with one"),
        (prepare, (0, 0, []), "no file could be prepared: it holds none"),
    ):
        monkeypatch.setattr(module, "flags", SimpleNamespace(FLAGS=given))
        monkeypatch.setattr(jobs, "asked", lambda name, nothing=nothing: lambda *places: nothing)
        with pytest.raises(UserError, match=f"^--input={tmp_path}: {words}$"):
            module.main()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["check", "prepare"])
def test_an_unknown_task_is_one_line(name, folder, tmp_path):
    more = ["--rate_hz=50", f"--output={tmp_path / 'out'}"] if name == "prepare" else []
    done = door(name, "--task=poses", f"--input={folder}", *more)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --task='poses' is not known; use one of pose")


def test_prepare_makes_mixed_rates_one_and_does_it_once(folder, tmp_path):
    write_rows(folder / "s1.hdf5", make_rows(500, rate=250.0), attributes={"sample_rate": 250.0})
    mixed = door("check", "--task=pose", f"--input={folder}")
    assert "different rates (Hz): 100 (2 files), 250 (1 file)" in mixed.stdout
    command = ["--task=pose", f"--input={folder}", f"--output={tmp_path / 'out'}", "--rate_hz=200"]
    done, again = door("prepare", *command), door("prepare", *command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("out: 3 files written, 0 were there, 0 skipped\n")
    assert again.stdout.endswith("out: 0 files written, 3 were there, 0 skipped\n")
    after = door("check", "--task=pose", f"--input={tmp_path / 'out'}")
    assert "different rates" not in after.stdout


@pytest.mark.parametrize("name", ["check", "prepare", "synthesize"])
def test_help_shows_the_options_of_the_task_that_is_named(name):
    shown = door(name, "--task=pose", "--help").stdout
    option = {"check": "--group", "prepare": "--rate_hz", "synthesize": "--users"}[name]
    assert option in shown
    general = door(name, "--help").stdout
    assert "--task: Kind of data: pose, forecast" in general
    assert option not in general.split("\n\n\n")[1]


def test_a_value_below_its_least_is_one_line(folder, tmp_path):
    command = ["--task=pose", f"--input={folder}", f"--output={tmp_path / 'out'}", "--rate_hz=0"]
    done = door("prepare", *command)
    assert done.returncode == 2
    assert done.stderr == "error: --rate_hz=0.0 is too small; use 0.001 or more\n"


def _prepare_in(monkeypatch):
    flags = SimpleNamespace(FLAGS=SimpleNamespace(input="in", output="out"))
    monkeypatch.setattr(prepare, "flags", flags)
    monkeypatch.setattr(jobs, "asked", lambda door: lambda *places: (2, 1, ["skipped a: broken"]))
    prepare.main()


def test_what_prepare_leaves_out_ends_non_zero_after_all_is_written(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^--input=in: no such file or folder; check the path$"):
        _prepare_in(monkeypatch)
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match=r"^out lacks 1 of what --input=in has, see above$"):
        _prepare_in(monkeypatch)
    said = capsys.readouterr()
    assert said.out == "out: 2 files written, 1 were there, 1 skipped\n"
    assert said.err.endswith("warning: skipped a: broken\n")


def test_a_narrow_terminal_gets_every_column_under_its_whole_name(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    values = {"labels_rad": "-0.5 to 0.5", "emg_spread": 26.5, "repeated_rows": "0.0%"}
    check._show_files({"p0_0.h5": values, "p0_3.h5": values})
    shown = capsys.readouterr().out
    for word in ("p0_0.h5", "p0_3.h5", *values, *map(str, values.values())):
        assert word in shown
