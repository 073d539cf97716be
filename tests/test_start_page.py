"""The first steps that README.md and docs/start.md show, as a newcomer takes them, in small."""

import re
import shlex
import subprocess
import sys

import pytest

from tests.doors import OPTIMISED, ROOT, environment

PAGE = (ROOT / "docs" / "start.md").read_text()
BLOCKS = re.findall(r"^```\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if "python -m" in line]
FEW = ("--config.optim.steps=25", "--config.eval.every=25", "--config.log.plots=False")
# Streets of which training, validation and test are told apart, but in minutes: a sample takes 19
# evaluations of the network, and the page's 48 streets of 16 frames have 112 frames in each split.
STREETS = ("--config.data.synthetic_scenes=14", "--config.data.synthetic_frames=3")


def run(words, folder):
    """A command of the page; its trainings have few updates, and streets few frames."""
    few = FEW if words[2] == "tds_jax.train" else ()
    few += STREETS if few and "--config=voxel" in words[3] else ()
    return subprocess.run(
        [sys.executable, *words[1:], *few],
        cwd=folder, env=environment(PYTHONPATH=str(ROOT), **OPTIMISED),
        capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.long
def test_every_command_of_the_first_steps_leads_to_the_next(tmp_path, monkeypatch):
    assert len(COMMANDS) >= 11
    for command in COMMANDS:
        words = shlex.split(command, comments=True)
        done = run(words, tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    for written in ("angles", "forecast.nc", "seen", "samples", "runs/quick_demo/report.html"):
        assert (tmp_path / written).exists(), written
    monkeypatch.chdir(tmp_path)
    readme = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    names = {}
    for block in readme:
        exec(compile(block, "README.md", "exec"), names)
    assert names["angles"].shape == (4000, 20)
