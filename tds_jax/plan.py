"""Says before training what a run will need on the device; nothing is allocated.

python -m tds_jax.plan --config=configs/low_memory.py [--json=FILE]
"""

import json
from pathlib import Path

import jax
from absl import flags
from ml_collections import config_flags

from tds_jax import cli, tasks
from tds_jax.engine.memory import format_bytes
from tds_jax.engine.program import Program

CONFIG = config_flags.DEFINE_config_file("config", None, "File with get_config().")
flags.mark_flag_as_required("config")
flags.DEFINE_string("json", None, "Also write the numbers to this file.")


def main() -> None:
    """Compile the real training step for this config's shapes and print XLA's account."""
    cli.require_writable("--json", flags.FLAGS.json)
    config = cli.resolve(CONFIG.value.to_dict())
    program = Program(tasks.get(config), config)
    need = program.predicted
    names = ("arguments", "outputs", "temporaries", "total")
    numbers = {name: getattr(need, name) for name in names}
    for name, count in numbers.items():
        print(f"{name:>12} {format_bytes(count):>10}   device, predicted")
    numbers["parameters"] = sum(p.size for p in jax.tree.leaves(program.abstract_state.params))
    print(f"{numbers['parameters']:,} parameters")
    optim = config.optim
    print(f"micro-batch {optim.micro_batch} x {optim.accumulate} = batch {optim.batch_size}")
    if flags.FLAGS.json:
        Path(flags.FLAGS.json).write_text(json.dumps(numbers) + "\n")


if __name__ == "__main__":
    cli.launch(main)
