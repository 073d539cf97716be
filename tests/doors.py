"""The doors in processes of their own, as a user opens them."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Where a program runs for long: without optimisation a forecast's step takes a minute.
OPTIMISED = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}


def environment(**more):
    """Of a process with one device, which compiles as the tests do (see conftest)."""
    options = os.environ["XLA_FLAGS"].split()
    kept = " ".join(option for option in options if "device_count" not in option)
    return os.environ | {"XLA_FLAGS": kept} | more


def door(name, *args):
    """The finished process, in the root of the repository."""
    return subprocess.run(
        [sys.executable, "-m", f"tds_jax.{name}", *args],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
