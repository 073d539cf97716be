"""The doors in processes of their own, as a user opens them."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def door(name, *args):
    """The finished process; it has one device and compiles as the tests do (see conftest)."""
    options = os.environ["XLA_FLAGS"].split()
    kept = " ".join(option for option in options if "device_count" not in option)
    return subprocess.run(
        [sys.executable, "-m", f"tds_jax.{name}", *args],
        cwd=ROOT, env=os.environ | {"XLA_FLAGS": kept}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
