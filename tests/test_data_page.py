"""What docs/data.md writes is read: its blocks run, and its commands find nothing wrong."""

import dataclasses
import re
import shlex
import subprocess
import sys
import typing

import numpy as np
import pytest

from tds_jax import tasks
from tds_jax.voxel.data.volumes import KINDS, VolumeFiles, find_scenes
from tests.doors import OPTIMISED, ROOT, environment

PAGE = (ROOT / "docs" / "data.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMAND = re.compile(
    r"python -m tds_jax\.(check|prepare) +--task=([\w|]+)((?: +\S+)*?)(?: +# (.*))?$"
)
LINES = PAGE.replace("\\\n", " ").splitlines()
SHOWN = [found.groups() for line in LINES if (found := COMMAND.match(line))][1:]
# What is said of good files: no metadata.csv, a user in all splits, labels whose own clock ends
# before the EMG's, and the land that `prepare` writes beside fields.
SAID = {"metadata", "splits", "labels", "no time"}
FRAMES = {"three": 3, "sparse": 3, "dense": 3}


def job_of(door, task, flags):
    """(job, flags) as the command line gives them."""
    given = dict(word.removeprefix("--").partition("=")[::2] for word in flags.split())
    cls = tasks.job(door, task)
    hints, options = typing.get_type_hints(cls), {}
    for name in set(given) & {field.name for field in dataclasses.fields(cls)}:
        of, text = (*typing.get_args(hints[name]), None)[0], given[name]
        options[name] = tuple(map(of, text.split(","))) if of else hints[name](text)
    return cls(**options), given


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder in which every block has run."""
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("data_page"))
        for block in BLOCKS:
            exec(compile(block, "docs/data.md", "exec"), names)
        yield names["Path"].cwd()


def test_a_writer_has_ten_lines_at_most():
    assert len(BLOCKS) > 15
    for block in BLOCKS:
        lines = [line for line in block.splitlines() if line and not line.startswith("import")]
        assert len(lines) <= 10, block


def nothing(*_):
    pass


@pytest.mark.parametrize(("door", "task", "flags", "others"), SHOWN)
def test_what_is_written_is_read_without_complaint(written, door, task, flags, others):
    job, given = job_of(door, task, flags)
    names = [given["input"], *(others or "").split(", ")]
    for name in filter(None, names):
        if door == "check" and name != "volumes":
            require_sound(job, written / name, FRAMES.get(name, 1))
        elif door == "prepare":
            target = written / f"{given['output']}_of_{name}"
            _, _, failed = job.run(written / name, target, nothing)
            assert not failed
            checker, _ = job_of("check", task, "")
            require_sound(checker, target, 3 if task == "voxel" else 1)


def require_sound(job, place, least):
    checked = job.run(place, nothing)
    assert checked.usable >= least
    assert set(checked.findings) <= SAID, checked.findings


def test_clouds_of_every_format_become_the_same_volumes(written):
    (command,) = [one for one in SHOWN if one[:2] == ("prepare", "voxel")]
    job, given = job_of("prepare", "voxel", command[2])
    found = {}
    for name in [given["input"], *command[3].split(", ")]:
        target = written / f"again_{name}"
        job.run(written / name, target, nothing)
        files, frames = VolumeFiles(4, 2**20), [f for s in find_scenes(target) for f in s.frames]
        found[name] = [files.read(getattr(f, kind), kind) for f in frames for kind in KINDS]
    assert len(found) == 5
    for name, volumes in found.items():
        assert len(volumes) == 6
        for one, same in zip(volumes, found["npy"], strict=True):
            if name != "las":  # which holds hundredths of metres, and whole intensities
                np.testing.assert_array_equal(one.coords, same.coords)
                np.testing.assert_array_equal(one.features, same.features)
            assert len(one.coords) == pytest.approx(len(same.coords), rel=0.02)


TRAININGS = [shlex.split(line) for line in LINES if line.startswith("python -m tds_jax.train")]
FEW = ("--config.optim.steps=30", "--config.log.plots=False")


@pytest.mark.long
@pytest.mark.parametrize("words", TRAININGS, ids=lambda words: words[3])
def test_what_is_written_can_be_trained_on(written, words):
    if not (written / "volumes").exists():
        (command,) = [one for one in SHOWN if one[:2] == ("prepare", "voxel")]
        job, given = job_of("prepare", "voxel", command[2])
        job.run(written / given["input"], written / given["output"], nothing)
    done = subprocess.run(
        [sys.executable, *words[1:], *FEW],
        cwd=written, env=environment(PYTHONPATH=str(ROOT), **OPTIMISED),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "30/30" in done.stdout
