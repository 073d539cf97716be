"""Every preset resolves, says what it is, and gives a program of known shapes."""

import ast
import importlib
import re
from pathlib import Path

import jax
import pytest
from ml_collections import ConfigDict

from tds_jax import config as configuration
from tds_jax import tasks
from tds_jax.engine.blueprint import Blueprint
from tds_jax.pose.task import PoseTask
from tests.data.sessions import make_rows, write_rows
from tests.pose.small import write_recordings

CONFIGS = Path(__file__).parents[1] / "configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.py") if path.stem != "__init__")
PRESETS = [name for name in NAMES if name != "base"]


def load(name):
    return importlib.import_module(f"configs.{name}")


def leaves(values):
    for value in values.values():
        yield from leaves(value) if isinstance(value, ConfigDict) else [value]


@pytest.mark.parametrize("name", NAMES)
def test_a_config_has_a_docstring_and_imports_nothing_heavy(name):
    tree = ast.parse((CONFIGS / f"{name}.py").read_text())
    assert (ast.get_docstring(tree) or "").strip()
    modules = {
        node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
    } | {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import)
         for alias in node.names}  # fmt: skip
    assert modules <= {"ml_collections", "configs", "math"}


# What a claim holds beside its command: the device it is for and its bytes there; then what a run
# took and gave, with the spread over seeds or that it is not known, or that nobody has run it here.
PLANNED = (r"\bCPU\b|\bGPU\b", r"[\d.]+ [MG]iB on the device")
RUN = (r"[\d.]+ minutes of CPU time", r"[\d.]+ [MG]iB on the host", r"[\d.]+ ± [\d.]+|one seed")
NOT_RUN = "not trained here"
BYTES_OR_SPREAD = re.compile(r"[\d.]+ [MG]iB|[\d.]+ ± [\d.]+")
PAGES = [CONFIGS.parent / "README.md", *(CONFIGS.parent / "tds_jax").glob("*/README.md")]
ROW = re.compile(r"^\| *`(?:configs/)?(\w+)(?:\.py)?` *\|(.*)$", re.MULTILINE)
ROWS = [(page, *row) for page in PAGES for row in ROW.findall(page.read_text())]


def claim(name):
    """The docstring of a config, on one line."""
    return " ".join((load(name).__doc__ or "").split())


def lacking(text, name):
    """What a claim for configs/{name}.py leaves out."""
    command = rf"python -m tds_jax\.(train|import_torch) --config=configs/{name}\.py"
    wanted = (command, *PLANNED, *(() if NOT_RUN in text else RUN))
    return [pattern for pattern in wanted if not re.search(pattern, text)]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_claims_its_command_device_minutes_bytes_and_error(name):
    assert not lacking(claim(name), name)


@pytest.mark.parametrize("name", [name for name in PRESETS if NOT_RUN not in claim(name)])
def test_a_claim_without_any_part_of_it_is_none(name):
    for pattern in (*PLANNED, *RUN):
        assert lacking(re.sub(pattern, "", claim(name)), name)
    assert lacking(claim(name), "another")


@pytest.mark.parametrize(("page", "name", "cells"), [row for row in ROWS if row[1] in PRESETS])
def test_a_table_repeats_what_the_config_claims(page, name, cells):
    numbers = BYTES_OR_SPREAD.findall(cells)
    assert all(number in claim(name) for number in numbers), numbers


@pytest.mark.parametrize("name", NAMES)
def test_a_config_holds_plain_values_and_no_lists(name):
    for value in leaves(load(name).get_config()):
        assert isinstance(value, (bool, int, float, str, tuple)), value


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_resolves_and_comes_back_from_json(name):
    values = load(name).get_config().to_dict()
    groups = tasks.groups(values["task"])
    config = configuration.resolve(values, groups)
    assert configuration.resolve(config.to_dict(), groups) == config
    assert load(name).get_config().to_dict() == values, "get_config must not change what it shares"


# Recordings a preset is for: samples per second, channels, joints.
BANDS = dict.fromkeys(("emg_hands", "emg_hands_conformer"), (250.0, 8, 5))
POSE = [name for name in PRESETS if load(name).get_config().task == "pose"]


@pytest.mark.parametrize("name", POSE)
def test_a_preset_gives_a_training_state_without_allocating(name, tmp_path):
    rate, channels, joints = BANDS.get(name, (2000.0, 16, 20))
    values = load(name).get_config()
    length = max(values.data.window, values.data.eval_window)
    write_recordings(tmp_path / "data", (1, 1, 1), ("train", "val", "test"))
    for i in range(3):
        rows = make_rows(length, channels=channels, joints=joints, rate=rate)
        write_rows(tmp_path / "data" / f"s{i}.hdf5", rows, attributes={"sample_rate": rate})
    values.data.path, values.data.cache_dir = str(tmp_path / "data"), str(tmp_path)
    config = configuration.resolve(values.to_dict(), tasks.groups(values.task))
    task = PoseTask(config)
    state = Blueprint(task, config).shapes
    assert all(leaf.size for leaf in jax.tree.leaves(state.params))
    spec = task.batch_spec(config.optim.micro_batch)
    assert {leaf.shape[0] for leaf in spec.values()} == {config.optim.micro_batch}
    assert spec["weight"].shape[1] > 0
    for split in ("train", "val", "test"):
        assert len(task.source(split))
