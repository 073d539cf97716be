"""A domain is a folder and a registry entry: all the doors it has jobs for work, others say so."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from tds_jax.version import __version__
from tests.doors import ROOT
from tests.fourth.signal import Signals


def door(name, *args):
    return subprocess.run(
        [sys.executable, "-m", "tests.fourth.door", name, *args],
        cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(output, workdir) of a training run."""
    folder = tmp_path_factory.mktemp("fourth") / "run"
    done = door("train", "--config=tests/fourth/config.py", f"--workdir={folder}")
    assert done.returncode == 0, done.stderr
    return done.stdout, folder


def test_it_trains_and_is_evaluated_beside_its_baseline(run):
    words, folder = run
    test = json.loads((folder / "report.json").read_text())["splits"]["test"]
    assert test["model"]["mae_periods"] < 0.5 * test["baselines"]["mean"]["mae_periods"]
    assert "mae" in words
    assert "periods" in words


def test_it_goes_on_where_it_stopped_and_is_evaluated_again(run):
    _, folder = run
    before = json.loads((folder / "report.json").read_text())["splits"]
    assert door("evaluate", f"--workdir={folder}").returncode == 0
    assert json.loads((folder / "report.json").read_text())["splits"] == before
    longer = ("--config.optim.steps=121", "--config.optim.schedule=warmup_cosine")
    done = door("train", "--config=tests/fourth/config.py", f"--workdir={folder}", *longer)
    assert "resuming after 120 of 121 steps" in done.stdout
    assert "optim.steps=120 is now 121" in done.stdout


def test_it_predicts_files(run, tmp_path):
    _, folder = run
    examples = [Signals("test", 64).example(i, None) for i in range(9)]
    np.save(tmp_path / "x.npy", np.stack([e["signal"] for e in examples]))
    io = f"--input={tmp_path / 'x.npy'}", f"--output={tmp_path / 'y.npy'}"
    assert door("predict", f"--workdir={folder}", *io).returncode == 0
    again = door("predict", f"--workdir={folder}", *io)
    assert again.returncode == 2
    words = "is there already; name another --output, or replace it with --overwrite"
    assert again.stderr == f"error: {tmp_path / 'y.npy'} {words}\n"
    assert door("predict", f"--workdir={folder}", "--overwrite", *io).returncode == 0
    error = np.load(tmp_path / "y.npy") - np.stack([e["periods"] for e in examples])
    assert np.abs(error).mean() < 0.12  # half of what the mean of the train split is off
    told = json.loads((tmp_path / "y.json").read_text())
    best = json.loads((folder / "report.json").read_text())["evaluated"]["test"]["step"]
    assert told == {"run": "run", "step": best, "version": f"tds_jax {__version__}"}


def test_a_plan_needs_nothing_of_it_but_its_shapes():
    done = door("plan", "--config=tests/fourth/config.py", "--budget=64MiB")
    assert done.returncode == 0, done.stderr
    assert re.search(r"chosen: micro-batch \d+ x \d+, float32, remat none", done.stdout)


@pytest.mark.parametrize("name", ["check", "prepare", "synthesize"])
def test_what_it_does_not_offer_is_one_line(name):
    done = door(name, "--task=signal", "--input=x", "--output=y")
    assert done.returncode == 2
    others = "it is for pose, forecast, voxel"
    assert done.stderr == f"error: {name} is not offered for task 'signal'; {others}\n"


def test_nothing_outside_its_folder_says_its_words():
    words = re.compile(r"signal_?task|mae_periods|tests\.fourth", re.IGNORECASE)
    places = [p for room in ("tds_jax", "configs") for p in (ROOT / room).rglob("*.py")]
    assert [p.name for p in places if words.search(p.read_text())] == []


def test_what_knows_no_domain_says_no_domains_words():
    words = re.compile(
        r"decoder_chunk|\biou\b|\bskill\b|perplexity|initial_pose|\bemg\b|radar|lidar"
    )
    rooms = [p for room in ("engine", "budget") for p in (ROOT / "tds_jax" / room).glob("*.py")]
    files = [*rooms, *(ROOT / "tds_jax").glob("*.py")]
    assert [p.name for p in files if words.search(p.read_text())] == []
