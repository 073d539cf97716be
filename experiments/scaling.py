"""Question: is a run of several devices and processes the run of one, and what does each hold?

    python -m experiments.scaling runs  [--tasks pose,forecast,voxel]
        [--ways 1x1,cut,1x8,2x2,4x1,killed]
    python -m experiments.scaling bytes [--configs voxel_standard,…] [--target cpu|h100|v5e]
        [--devices 1,2,4,8,64,256] [--shards none,fsdp] [--base 320] [--dtype float32]
        [--shape 16,64,64]

runs: 20 updates of each task from the command line, by processes x devices of each; killed: two
processes of which one is killed in the midst, gone on by one alone; cut: 1x1 whose batch is cut in
pieces of one example, as 8 devices have them. Verdict: parameters differ from those of 1x1 by f32
rounding, at most four times as much as those of `cut`. They are no bits the same: each device adds
up its own rows first, and f32 addition is not associative.

bytes: of compiled training steps, nothing is run: what one device holds, and what it sends and
receives for an update, with memory.shard none and fsdp. Targets need the extras of `plan`.
"""

import argparse
import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
STEPS, BATCH, ACCUMULATE, KILLED_AT = 20, 16, 2, 8
# How far rounding moves a run is measured beside it: `cut` is one process on one device that adds
# up the same gradients example by example. What a sum over few examples is rounded to differs from
# one over many: an update of SGD of the voxel network is apart by 3.6e-10 in pieces of 4, by
# 1.66e-9 in pieces of 1, on one device as on 8. AdamW divides a gradient by its own size, so that
# one which is rounding alone (of a bias before a norm) moves a parameter as far as any other: what
# a run of 20 updates makes of 2^-24 is the network's matter.
CUT, TIMES, LEAST = "cut", 4, 2.0**-24
SMALL = {
    "pose": ("quick_demo", "synthetic_users=2 synthetic_sessions=4 synthetic_seconds=8.0"),
    "forecast": (
        "forecast_soil_moisture",
        "synthetic_months=14 synthetic_missing_month= synthetic_grid=(8,8)",
    ),
    "voxel": ("voxel_ultra", "synthetic_scenes=4 synthetic_frames=8 synthetic_shape=(8,16,16)"),
}
COMMON = {
    "optim.steps": STEPS,
    "optim.batch_size": BATCH,
    "optim.accumulate": ACCUMULATE,
    "optim.warmup_steps": 2,
    "eval.every": 10,
    "checkpoint.every": 4,
    "log.every": 1,
    "log.plots": False,
    "data.workers": 0,
}


def command(task, run, data, accumulate=ACCUMULATE):
    """Of one process, without what says which one."""
    config, sizes = SMALL[task]
    settings = COMMON | {"data.cache_dir": data, "optim.accumulate": accumulate}
    words = [f"data.{size}" for size in sizes.split()]
    words += [f"{name}={value}" for name, value in settings.items()]
    door = [sys.executable, "-m", "tds_jax.train", f"--config=configs/{config}.py"]
    return [*door, f"--workdir={run}", *(f"--config.{word}" for word in words)]


def start(task, run, data, processes, devices, accumulate=ACCUMULATE):
    """All processes of a run."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = f"--xla_force_host_platform_device_count={devices}"
    together = [f"--coordinator={address}", f"--processes={processes}"]
    told = command(task, run, data, accumulate)
    return [
        subprocess.Popen(
            [*told, *[*together, f"--process={i}"] * (processes > 1)],
            cwd=ROOT, env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for i in range(processes)
    ]  # fmt: skip


def finish(started):
    """(exit status, the last line it said) of each."""
    ended = [(*process.communicate(), process.returncode) for process in started]
    return [(status, (err.strip() or out.strip()).splitlines()[-1]) for out, err, status in ended]


def steps_logged(run):
    """The last update of a run's log."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def killed(task, run, data):
    """Two processes, the second killed in the midst; then one alone, whose end is returned."""
    started = start(task, run, data, 2, 1)
    while steps_logged(run) < KILLED_AT and started[0].poll() is None:
        time.sleep(0.05)
    started[1].send_signal(signal.SIGKILL)
    when = time.monotonic()
    (status, words), _ = finish(started)
    print(f"{task}: after {time.monotonic() - when:.0f} s, exit status {status}: {words}")
    return finish(start(task, run, data, 1, 1))


def parameters(run):
    """All numbers of the last checkpoint's parameters, in float64."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    from tds_jax import cli, tasks
    from tds_jax.engine import workdir
    from tds_jax.engine.blueprint import Blueprint
    from tds_jax.engine.step import split

    config = cli.resolve(workdir.read_config(run))
    task = tasks.get(config, workdir.read_inputs(run))
    model, restored = workdir.load_model(Blueprint(task, config), run, "last")
    assert restored.position == STEPS * BATCH, (run, restored.position)
    leaves = jax.tree.leaves(split(model)[1])
    return np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in leaves])


def runs(tasks, ways, folder):
    """The table of all runs; True if all ends agree."""
    table = Table("task", "processes x devices", "exit", "relative difference", "on test")
    good = True
    for task in tasks:
        first, limit = None, math.inf
        for way in ways:
            run, data = folder / task / way, folder / "data"
            if way == "killed":
                ended = killed(task, run, data)
            elif way == CUT:
                ended = finish(start(task, run, data, 1, 1, accumulate=BATCH))
            else:
                ended = finish(start(task, run, data, *map(int, way.split("x"))))
            assert all(status == 0 for status, _ in ended), ended
            found = parameters(run)
            first = found if first is None else first
            apart = float(np.linalg.norm(found - first) / np.linalg.norm(first))
            rows = json.loads((run / "report.json").read_text())
            limit = TIMES * max(apart, LEAST) if way == CUT else limit
            good &= apart <= limit
            table.add_row(task, way, "0", f"{apart:.1e}", _score(rows))
            Console(width=120).print(table)
    return good


def _score(report):
    """The model's first value on the test split."""
    name, value = next(iter(report["splits"]["test"]["model"].items()))
    return f"{name} {value:.6g}"


def bytes_table(names, target, devices, shards, wide):
    """What one device holds and moves, of compiled steps."""
    from tds_jax.budget import targets

    targets.prepare(target, max(devices))
    import jax

    from experiments.measuring import load, make_blueprint
    from tds_jax import config as configuration
    from tds_jax.budget import memory
    from tds_jax.budget.collectives import moved
    from tds_jax.engine import sharding
    from tds_jax.sizes import format_bytes

    head = ("config", "devices", "shard", "parameters", "optimizer", "accumulator", "temporaries")
    table = Table(*head, "step", "collective bytes an update")
    for name in names:
        for count in devices:
            for shard in shards if count > 1 else ("none",):
                changes = {"optim__batch_size": count, "optim__accumulate": 1}
                config = load(name, **wide, **changes, memory__shard=shard)
                blueprint = make_blueprint(
                    configuration.replace(config, {"memory.call": "micro_batch"})
                )
                if target == "cpu":
                    mesh = sharding.all_devices(jax.devices()[:count])
                else:
                    mesh = targets.find(target, count).mesh(count)
                compiled = blueprint.trace_step(mesh).lower().compile()
                held, need = blueprint.state_bytes(mesh), memory.predict(compiled)
                sent = moved(compiled.as_text(), count)
                cells = (held.parameters, held.optimizer, held.accumulator, need.temporaries)
                sizes = [format_bytes(size) for size in (*cells, need.total, sent)]
                table.add_row(name, str(count), shard, *sizes)
                Console(width=150).print(table)


def main():
    """Flags -> a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("runs", "bytes"))
    parser.add_argument("--tasks", default=",".join(SMALL))
    parser.add_argument("--ways", default="1x1,cut,1x8,2x2,4x1,killed")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--configs", default="emg2pose_tracking,voxel_standard")
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--devices", default="1,2,4,8")
    parser.add_argument("--shards", default="none,fsdp")
    parser.add_argument("--base", type=int)
    parser.add_argument("--shape", type=lambda text: tuple(map(int, text.split(","))))
    parser.add_argument("--dtype")
    args = parser.parse_args()
    if args.what == "bytes":
        devices = [int(count) for count in args.devices.split(",")]
        asked = {
            "model__base": args.base,
            "memory__dtype": args.dtype,
            "data__shape": args.shape,
        }
        wide = {name: value for name, value in asked.items() if value}
        bytes_table(args.configs.split(","), args.target, devices, args.shards.split(","), wide)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        sys.exit(not runs(args.tasks.split(","), args.ways.split(","), folder))


if __name__ == "__main__":
    main()
