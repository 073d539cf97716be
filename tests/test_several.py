"""Several trainings, each in its own folder: seeds, folds and settings of a sweep; none is lost."""

import json
import signal
import sys

import pytest

from configs import default
from tds_jax import compare, several
from tds_jax.errors import UserError


def test_each_seed_is_trained_by_the_same_flags_until_one_fails(tmp_path, monkeypatch):
    commands, shown = [], []
    monkeypatch.setattr(compare, "show", lambda folders, *more: shown.append(folders))
    statuses = iter([0, 0, 0, 130])
    monkeypatch.setattr(
        several, "_run", lambda command: (commands.append(command), next(statuses))[1]
    )
    argv = [
        "--config=a.py",
        "--seeds",
        "3",
        "--leave_one_user_out",
        "--workdir=x",
        "-config.seed=9",
        "--config.optim.steps=2",
    ]
    config = default.get_config().to_dict()
    assert several.train(several.seeds(2, 5), config, tmp_path, argv) == 0
    kept = ["--config=a.py", "--config.optim.steps=2"]
    assert [command[3:] for command in commands] == [
        [*kept, f"--workdir={tmp_path}/seed{seed}", f"--config.seed={seed}"] for seed in (5, 6)
    ]
    assert shown == [[str(tmp_path)]]
    assert several.train(several.seeds(3, 0), config, tmp_path, argv) == 130
    assert (len(commands), len(shown)) == (4, 1)
    (tmp_path / "config.json").touch()
    with pytest.raises(UserError, match="is a run; name another --workdir"):
        several.train(several.seeds(2, 0), config, tmp_path, argv)


TRAINING = """#!{python}
import os, signal, sys, time
open("{log}", "a").write("begun\\n")
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))  # as train, which has saved
os.kill(os.getppid(), {number})
time.sleep({seconds})
"""


@pytest.mark.parametrize(("number", "seconds", "status"), [("SIGTERM", 60, 0), ("SIGINT", 0, 130)])
def test_none_begins_after_a_signal_though_the_training_ends_well(
    tmp_path, monkeypatch, capsys, number, seconds, status
):
    log, program, shown = tmp_path / "log", tmp_path / "training", []
    values = {"log": log, "number": int(signal.Signals[number]), "seconds": seconds}
    program.write_text(TRAINING.format(python=sys.executable, **values))
    program.chmod(0o755)
    monkeypatch.setattr(several.sys, "executable", str(program))
    monkeypatch.setattr(compare, "show", lambda *more: shown.append(more))
    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    config = default.get_config().to_dict()
    assert several.train(several.seeds(3, 0), config, tmp_path / "runs", []) == status
    assert (log.read_text(), shown) == ("begun\n", [])
    assert "the same command goes on" in capsys.readouterr().out
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_sweep_is_each_value_with_each_and_each_seed_and_fold_with_them(tmp_path):
    file = tmp_path / "sweep.json"
    file.write_text(json.dumps({"optim.steps": [1, 2], "model.widths": [[8, 8]]}))
    assert several.sweep(str(file)) == {
        "steps=1,widths=8x8": {"optim.steps": 1, "model.widths": [8, 8]},
        "steps=2,widths=8x8": {"optim.steps": 2, "model.widths": [8, 8]},
    }
    program = tmp_path / "sweep.py"
    program.write_text("def get_sweep():\n    return [{'loss.own': 'a:b', 'optim.steps': 3}]\n")
    found = several.sweep(str(program))
    assert found == {"own=a-b,steps=3": {"loss.own": "a:b", "optim.steps": 3}}
    folds, seeds = several.folds(["1/3", "user=ann"]), several.seeds(2, 0)
    together = several.together([found, folds, seeds])
    assert [*together] == [
        f"own=a-b,steps=3_{fold}_seed{seed}" for fold in ("fold1of3", "user=ann") for seed in (0, 1)
    ]
    assert together["own=a-b,steps=3_user=ann_seed1"] == {
        "loss.own": "a:b", "optim.steps": 3, "data.fold": "user=ann", "seed": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("3", r"must hold \{setting: \[values\]\}, or a list"),
        ('{"optim.steps": 3}', r"must hold \{setting"),
        ("{}", r"must hold \{setting"),
        ('{"optim.steps": []}', r"must hold \{setting"),
        ('[{"optim.steps": 3}, {"optim.steps": 3}]', "names one set of settings twice"),
        ('[{"optim.stepz": 3}]', "'optim.stepz' is not a setting; did you mean 'optim.steps'"),
        ('[{"optim.steps": 300}, {"optim.steps": "many"}]', "optim.steps='many' has type str"),
    ],
)
def test_a_sweep_that_cannot_be_trained_is_one_line_before_the_first(tmp_path, text, words):
    file = tmp_path / "sweep.json"
    file.write_text(text)
    with pytest.raises(UserError, match=words):
        several.train(several.sweep(str(file)), default.get_config().to_dict(), tmp_path, [])
