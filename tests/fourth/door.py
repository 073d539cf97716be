"""`python -m tests.fourth.door train --config=...`: a door of the project that knows the domain."""

import runpy
import sys

from tds_jax import tasks

tasks.DOMAINS["signal"] = tasks.Domain(
    task="tests.fourth.signal:SignalTask",
    groups={
        "model": "tests.fourth.signal:ModelConfig",
        "data": "tests.fourth.signal:DataConfig",
        "loss": "tests.fourth.signal:LossConfig",
    },
    evaluate="tests.fourth.signal:evaluate",
    predict="tests.fourth.signal:predict",
)

if __name__ == "__main__":
    runpy.run_module(f"tds_jax.{sys.argv.pop(1)}", run_name="__main__")
