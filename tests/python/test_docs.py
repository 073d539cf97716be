"""What documents and docstrings show is run as it stands.

Trainings shown are of a few updates of a tiny network on small recordings; where a test is not
marked long, their settings are checked, and a run that was trained before stands for theirs.
"""

import doctest
import importlib
import inspect
import re

import pytest

import tds_jax
from tds_jax import cli, tasks
from tds_jax.engine.blueprint import Blueprint
from tds_jax.engine.frozen import require_some
from tds_jax.settings import settings as named_settings
from tests.doors import ROOT
from tests.forecast import small as forecast
from tests.pose import small as pose
from tests.python.conftest import FEW

BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\w+\.py)\n")
MODULES = ("run", "settings", "own", "errors", "engine.callbacks", "engine.frozen")


def parameters(config):
    """Those of a pose config's model, as shapes: patterns that documents show are of these."""
    known = {"num_channels": 16, "num_joints": 20, "sample_rate": 2000.0}
    return Blueprint(tasks.get(config, known), config).shapes.params


@pytest.fixture
def desk(base, trained, tds, film, soil, radar, tmp_path, monkeypatch, request):
    """A folder that has what the documents name, in which trainings are small."""
    runs = {"a": trained.run, "tds": tds, "film": film}
    runs = {name: run.workdir for name, run in runs.items()} | {"soil": soil[2], "radar": radar[2]}
    (tmp_path / "runs").mkdir()
    for name, place in runs.items():
        (tmp_path / "runs" / name).symlink_to(place)
    for name in ("DIR", "DIR2"):
        (tmp_path / name).symlink_to(base / "data")
    forecast.write_record(tmp_path / "fields.nc", count=30, first="2021-03-01", seed=5)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    train, really = tds_jax.train, request.node.get_closest_marker("long")

    def small(config, data=None, workdir=None, **settings):
        if str(workdir) == "runs/a" or not really:
            inspect.signature(train).bind(config, data, workdir, **settings)
            given = {name: value for name, value in settings.items() if "." in name}
            checked = cli.checked(named_settings(config, given))
            require_some(parameters(checked), settings.get("frozen") or ())
            return tds_jax.load("runs/a")
        steps = {"optim.steps": 1, "eval.every": 1, "eval.batch_size": 8}
        cache = {"data.cache_dir": base / "cache"}
        shown = {name: value for name, value in settings.items() if name != "optim.steps"}
        if "frozen" in shown:
            shown["frozen"] = ("network/up",)  # of the tiny network
        return train("default", data, workdir, **pose.SETTINGS | FEW | steps | cache | shown)

    monkeypatch.setattr(tds_jax, "train", small, raising=False)
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        "python",
        pytest.param("python", marks=pytest.mark.long, id="python, trained"),
        pytest.param("own_parts", marks=pytest.mark.long),
    ],
)
def test_every_block_of_a_document_runs(desk, name):
    blocks = BLOCK.findall((ROOT / "docs" / f"{name}.md").read_text())
    assert len(blocks) >= 6
    names = {}
    for block in blocks:
        if file := FILE.match(block):
            (desk / file[1]).write_text(block)
        exec(compile(block, f"docs/{name}.md", "exec"), names)
    assert "run" in names


@pytest.mark.parametrize("name", MODULES)
def test_every_example_of_a_docstring_runs(desk, noise, name):
    module = importlib.import_module(f"tds_jax.{name}")
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner(verbose=False)
    words = []
    for test in finder.find(module, extraglobs={"tds_jax": tds_jax, "x": noise}):
        runner.run(test, out=words.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(words)
    assert runner.tries > 0
