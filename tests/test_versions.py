"""jax and flax go together: what is asked for is what is known to work, and what is pinned fits."""

import tomllib

import pytest
from packaging.requirements import Requirement

from tests.doors import ROOT

PAIRS = {"3.11": ("0.10.2", "0.12.8"), "3.12": ("0.11.2", "0.12.10")}


def applying(lines, python):
    """Name -> versions of the requirements that hold for a Python."""
    wanted = map(Requirement, lines)
    return {
        one.name: one.specifier
        for one in wanted
        if one.marker is None or one.marker.evaluate({"python_version": python})
    }


@pytest.mark.parametrize("python", PAIRS)
def test_each_python_gets_a_pair_that_works_and_no_other(python):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = applying(project["dependencies"], python)
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = applying([line for line in pins if line and not line.startswith("#")], python)
    jax, flax = PAIRS[python]
    assert asked["jax"].contains(jax)
    assert asked["flax"].contains(flax)
    assert str(pinned["jax"]) == str(pinned["jaxlib"]) == f"=={jax}"
    assert str(pinned["flax"]) == f"=={flax}"
    for other, (_, not_its) in PAIRS.items():
        assert asked["flax"].contains(not_its) == (other == python)
