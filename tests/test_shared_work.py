"""Two processes evaluate as one does, and each predicts its part of a folder: from the doors."""

import json
import socket
import subprocess
import sys

import h5py
import numpy as np
import pytest

from tests.doors import ROOT, door, environment

# Means of f32 errors, each process's rows in batches of another size: 2^-24 times a thousand terms.
ROUNDING = 1e-4
SMALL = (
    "--config.data.synthetic_users=2", "--config.data.synthetic_sessions=4",
    "--config.data.synthetic_seconds=8.0", "--config.optim.steps=4",
    "--config.optim.warmup_steps=1", "--config.eval.every=4", "--config.log.plots=False",
)  # fmt: skip


def together(name, *args):
    """(exit status, stderr) of each of two processes."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    met = [f"--coordinator={address}", "--processes=2"]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", f"tds_jax.{name}", *args, *met, f"--process={index}"],
            cwd=ROOT, env=environment(), text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        for index in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=500)[1] for process in started]
    return [(process.returncode, text) for process, text in zip(started, said, strict=True)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(folder of a small run, the data's)."""
    folder = tmp_path_factory.mktemp("shared")
    data = f"--config.data.cache_dir={folder / 'cache'}"
    train = ("--config=configs/quick_demo.py", f"--workdir={folder / 'run'}", data, *SMALL)
    assert door("train", *train).returncode == 0
    sizes = ("--users=1", "--sessions=3", "--seconds=5")
    assert door("synthesize", "--task=pose", f"--output={folder / 'emg'}", *sizes).returncode == 0
    return folder


def numbers(tree):
    """Every number of nested dicts, by its path."""
    if isinstance(tree, dict):
        return {(k, *rest): v for k, part in tree.items() for rest, v in numbers(part).items()}
    return {(): tree}


@pytest.mark.long
def test_an_evaluation_by_two_processes_is_that_of_one(run):
    place = f"--workdir={run / 'run'}"
    assert door("evaluate", place, f"--json={run / 'one.json'}").returncode == 0
    found = together("evaluate", place, f"--json={run / 'two.json'}")
    assert [status for status, _ in found] == [0, 0], found
    one, two = (numbers(json.loads((run / f"{n}.json").read_text())) for n in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        if isinstance(value, float):
            assert two[name] == pytest.approx(value, rel=ROUNDING, abs=ROUNDING), name


@pytest.mark.long
def test_the_files_of_a_folder_are_shared_out_and_each_is_predicted_as_alone(run):
    io = (f"--workdir={run / 'run'}", f"--input={run / 'emg'}")
    assert door("predict", *io, f"--output={run / 'one'}").returncode == 0
    found = together("predict", *io, f"--output={run / 'two'}")
    assert [status for status, _ in found] == [0, 0], found
    names = sorted(path.name for path in (run / "one").iterdir())
    assert len(names) == 3
    assert sorted(path.name for path in (run / "two").iterdir()) == names
    for name in names:
        with h5py.File(run / "one" / name) as one, h5py.File(run / "two" / name) as two:
            angles = "prediction/joint_angles"
            np.testing.assert_array_equal(one[angles][:], two[angles][:])
