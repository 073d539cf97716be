"""What the benchmarks share: a training step on random numbers, fair timing, a child's peak."""

import gc
import importlib
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import psutil

from tds_jax import config as configuration
from tds_jax import tasks
from tds_jax.budget import heap
from tds_jax.engine import sharding
from tds_jax.engine.blueprint import Blueprint
from tds_jax.engine.program import Program

RECORDED = {"num_channels": 16, "num_joints": 20, "sample_rate": 2000.0}
AIR = {"height": 25, "width": 53, "variables": ("air",), "grid": "", "land": 0}


def make_task(config):
    """The task of a config on data of the usual shape; without files."""
    inputs = RECORDED if config.task == "pose" else None
    if config.task == "forecast" and config.data.target == "air":
        inputs = AIR
    return tasks.get(config, inputs)


def load(name, **changes):
    """The resolved config of a preset; `group__field=value` changes it."""
    values = importlib.import_module(f"configs.{name}").get_config().to_dict()
    config = configuration.resolve(values, tasks.groups(values["task"]))
    return configuration.replace(config, {k.replace("__", "."): v for k, v in changes.items()})


def random_batch(task, config, mesh, seed=0):
    """A batch of the task's shapes, every row counting, on the devices."""
    rng = np.random.default_rng(seed)

    def fill(name, spec):
        if name in ("weight", "mask"):
            return np.ones(spec.shape, spec.dtype)
        if jnp.issubdtype(spec.dtype, jnp.integer):
            return rng.integers(0, 100, spec.shape).astype(spec.dtype)
        return rng.normal(size=spec.shape).astype(spec.dtype)

    spec = task.batch_spec(config.optim.micro_batch)
    return sharding.put_batch({name: fill(name, leaf) for name, leaf in spec.items()}, mesh)


class Step:
    """The compiled training step of a config on random numbers; calling it makes one update."""

    def __init__(self, config):
        self.task = make_task(config)
        self.program = Program(Blueprint(self.task, config))
        self.accumulate = config.optim.accumulate
        self.state = self.program.fresh({})
        self.batch = random_batch(self.task, config, self.program.mesh)

    def __call__(self):
        for _ in range(self.accumulate):
            self.state, objective = self.program.train_step(self.state, self.batch)
        jax.block_until_ready(objective)


def interleaved(sides, rounds):
    """{name: [seconds]} of calling every side twice in a row, round after round.

    Only the second counts: the first finds memory and caches as the other sides left them.
    """
    found = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            side()
            started = time.perf_counter()
            side()
            found[name].append(time.perf_counter() - started)
    return found


def times(seconds):
    """'0.081 (0.084)': the least and the median."""
    return f"{min(seconds):.3f} ({statistics.median(seconds):.3f})"


def measured_peak(config, steps=10):
    """(predicted total, measured peak of resident memory) of training steps, in bytes.

    Measured: the state and the batch, as their arrays say, and by how much the resident set rises
    above them while stepping. What initialising, compiling and the first step took is given back
    before: it touches the runtime's own code, about 15 MiB. Linux; call in a process of its own.
    """
    task = make_task(config)
    program = Program(Blueprint(task, config))
    state = program.fresh({})
    batch = random_batch(task, config, program.mesh)
    state, objective = program.train_step(state, batch)
    jax.block_until_ready((state, batch, objective))
    held = sum(leaf.nbytes for leaf in jax.tree.leaves((state, batch)))
    gc.collect()
    heap.trim()
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    for _ in range(steps):
        state, objective = program.train_step(state, batch)
        jax.block_until_ready((state, objective))  # as the loop does: one step at a time
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
    return program.predicted.total, held + peak - before
