"""Descriptions of devices that are not here."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tds_jax.budget import targets
from tds_jax.errors import UserError
from tds_jax.sizes import GIB, MIB

PLAN = """
import sys
from tds_jax.budget import targets
targets.prepare(sys.argv[1])
import json, jax, jax.numpy as jnp
from tds_jax.budget import memory
from tds_jax.engine import sharding
target = targets.find(sys.argv[1])
where = sharding.batch_sharding(target.mesh(1))
x = jax.ShapeDtypeStruct((8192, 8192), jnp.float32, sharding=where)
loss = lambda a: jnp.sum((jnp.tanh(a @ a) @ a) ** 2)
need = memory.predict(jax.jit(jax.grad(loss)).lower(x).compile())
print(json.dumps([target.kind, target.limit, need.arguments, need.outputs, need.temporaries]))
"""


def test_the_device_here_has_a_limit_and_takes_all_devices():
    here = targets.find("here")
    assert here.limit > 100 * MIB
    assert here.mesh(2).size == 2
    assert here.on_host


def test_a_margin_is_a_share_and_at_least_some_bytes():
    here = targets.find("here")
    assert here.usable(GIB) == GIB - 20 * MIB


@pytest.mark.parametrize(("name", "extra"), [("h100", "plan-gpu"), ("v5e", "tpu")])
def test_a_missing_compiler_is_named_with_its_extra(monkeypatch, name, extra):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    with pytest.raises(UserError, match=rf"--target={name} needs its compiler.*\[{extra}\]"):
        targets.find(name)


@pytest.mark.parametrize("other", ["jax-cuda12-plugin", "jax-cuda12-pjrt"])
def test_a_compiler_of_another_release_is_one_line(monkeypatch, other):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: True)
    found = {"jaxlib": "0.10.2", "jax-cuda12-plugin": "0.10.2.1", "jax-cuda12-pjrt": "0.10.2"}
    found[other] = "0.12.0.1"
    monkeypatch.setattr(metadata, "version", found.__getitem__)
    words = (
        rf"--target=h100: {other} is 0\.12\.0\.1, jaxlib 0\.10\.2; pip install {other}==0\.10\.2"
    )
    with pytest.raises(UserError, match=words):
        targets.find("h100")


@pytest.mark.parametrize(
    ("name", "module", "least"), [("h100", "jax_cuda12_plugin", 59), ("v5e", "libtpu", 15)]
)
def test_a_described_device_compiles_and_counts_bytes(name, module, least):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", PLAN, name],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    kind, limit, arguments, outputs, temporaries = json.loads(done.stdout.splitlines()[-1])
    assert kind
    assert limit >= least * GIB
    assert arguments == outputs == 256 * MIB
    assert 256 * MIB <= temporaries <= 4 * GIB


def test_the_least_budget_of_a_peak_is_usable_for_it():
    here = targets.find("here")
    for margin in (0.0, 0.05, 0.1):
        target = dataclasses.replace(here, margin=margin)
        for peak in (5 * MIB, 30 * GIB):
            least = target.budget_for(peak)
            assert target.usable(least) >= peak > target.usable(least - 2)
