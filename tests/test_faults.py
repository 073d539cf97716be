"""The campaign of faults would notice what it looks for; its faults themselves are a long test."""

import os
import signal
import subprocess
import sys

import pytest

from experiments.faults import hooks
from experiments.faults.judging import Fault, judge, leftovers, nothing
from experiments.faults.running import FAULTS
from experiments.faults.trial import Seen, Trial, waited
from tds_jax.data.whole_file import whole_file
from tests.doors import ROOT


@pytest.fixture
def trial(tmp_path):
    return Trial(tmp_path / "row", tmp_path, "signal")


@pytest.mark.parametrize(
    ("code", "text", "wrong"),
    [
        (2, "error: DIR is full", ""),
        (1, "error: DIR is full", "exit (2,) expected"),
        (2, "Traceback (most recent call last)\nerror: full", "Traceback"),
        (2, "error: what?", "does not say 'full'"),
        (-9, "full\nHANGS: no end", "exit (2,) expected, HANGS"),
    ],
)
def test_a_row_is_wrong_by_its_status_a_traceback_other_words_or_no_end(trial, code, text, wrong):
    seen = Seen(code, text.replace("DIR", str(trial.folder)), 0.1)
    row = judge(Fault("a fault", lambda _: seen, nothing, (2,), "full"), trial)
    assert (row.wrong, row.lost, row.code) == (wrong, "", code)
    assert row.seen == text.splitlines()[-1]


def test_what_lies_about_is_lost_room(trial):
    for name in ("a.json.vm-1.tmp", ".d.building-x", "8.orbax-checkpoint-tmp-1", "kept.json"):
        (trial.folder / name).touch()
    assert len(leftovers(trial.folder)) == 3
    row = judge(Fault("a fault", lambda _: Seen(0, "", 0.0), nothing), trial)
    assert row.lost.count("left behind: ") == 3


def test_hooks_act_in_the_middle_of_what_they_name(monkeypatch, tmp_path):
    acted = []
    monkeypatch.setattr("os.path.basename", os.path.basename)
    monkeypatch.setattr("tds_jax.data.whole_file.temporary_of", hooks.whole_file.temporary_of)
    hooks.before("os:path.basename", lambda: acted.append("second"), call=2)()
    assert [os.path.basename("a/b"), acted, os.path.basename("a/b")] == ["b", ["second"], "b"]
    hooks.at_file("c.json", lambda: acted.append("file"))()
    for name in ("a.json", "c.json"):
        with whole_file(tmp_path / name) as temporary:
            temporary.touch()
    assert acted == ["second", "file"]


def test_a_door_that_does_not_end_is_ended_and_told(monkeypatch, tmp_path):
    monkeypatch.setattr("experiments.faults.trial.LIMIT", 0.2)
    (tmp_path / "output").write_text("begun\n")
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as child:
        seen = waited(child.pid, tmp_path / "output")
        child.returncode = seen.code  # it was waited for
    assert seen.code == -signal.SIGKILL
    assert "HANGS" in seen.text


def test_there_are_faults_of_every_kind_and_no_two_of_a_name():
    names = [fault.name for _, fault in FAULTS]
    assert len(names) == len(set(names)) >= 60


@pytest.mark.long
def test_nothing_is_lost_wherever_a_run_is_hit():
    command = [sys.executable, "-m", "experiments.faults", "--only=signals: SIGTERM"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
