"""Says before training what a run will need, and how to fit it; nothing is allocated.

    python -m tds_jax.plan --config=configs/low_memory.py [--budget=1GiB] \\
        [--target=here|cpu|h100|v5e] [--devices=8] [--json=FILE]

Compiles the real training step, and shows the device and host bytes and the relative cost of every
split of the batch, of recomputation too where that is needed to fit, and the cheapest that fits. A
--json file that is there already is replaced with --overwrite alone.
Train with it: python -m tds_jax.train --config=... --config.memory.budget=1GiB
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from tds_jax import cli, tasks
from tds_jax import config as configuration
from tds_jax.data import json_file
from tds_jax.fields import require_at_least, require_choice

CONFIG = config_flags.DEFINE_config_file("config", None, cli.CONFIG)
flags.mark_flag_as_required("config")
flags.DEFINE_string("budget", None, "Device bytes, such as 1GiB; default: memory.budget, or all.")
flags.DEFINE_string("target", "here", "Device to plan for: here, cpu, h100 or v5e.")
flags.DEFINE_integer("devices", None, "How many of them; default: all that are here, or one.")
flags.DEFINE_string("json", None, "Also write the plan to this file.")


def main() -> None:
    """Plan for the config's shapes and show the table."""
    from tds_jax.budget import settling, table, targets
    from tds_jax.engine import compilation
    from tds_jax.engine.blueprint import remembered
    from tds_jax.progress import table_console

    cli.require_writable("--json", flags.FLAGS.json)
    require_choice("--target", flags.FLAGS.target, targets.NAMES)
    devices = flags.FLAGS.devices
    require_at_least("--devices", 1 if devices is None else devices, 1)
    targets.prepare(flags.FLAGS.target, devices or 1)
    config = cli.resolve(CONFIG.value.to_dict())
    if flags.FLAGS.budget is not None:
        config = configuration.replace(config, {"memory.budget": flags.FLAGS.budget})
    compilation.keep_programs(config.memory.compile_cache, cli.default_workdir())
    build = remembered(tasks.get(config))
    plan = settling.make(build, config, targets.find(flags.FLAGS.target, devices), whole=True)
    table.show(plan, table_console())
    if flags.FLAGS.json:
        json_file.write(Path(flags.FLAGS.json), table.to_dict(plan))


if __name__ == "__main__":
    cli.define_overwrite("a file")
    cli.launch(main)
