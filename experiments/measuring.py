"""What the benchmarks share: a training step on random numbers, fair timing, a child's peak."""

import functools
import gc
import importlib
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from experiments import resident
from tds_jax import config as configuration
from tds_jax import tasks
from tds_jax.budget import heap
from tds_jax.engine import sharding
from tds_jax.engine.blueprint import Blueprint
from tds_jax.engine.program import Program

RECORDED = {"num_channels": 16, "num_joints": 20, "sample_rate": 2000.0}
AIR = {"height": 25, "width": 53, "variables": ("air",), "grid": "", "land": 0}


@functools.cache
def make_blueprint(config):
    """The blueprint of a config on data of the usual shape, without files; one per config."""
    inputs = RECORDED if config.task == "pose" else None
    if config.task == "forecast" and config.data.target == "air":
        inputs = AIR
    return Blueprint(tasks.get(config, inputs), config)


def load(name, **changes):
    """The resolved config of a preset; `group__field=value` changes it."""
    values = importlib.import_module(f"configs.{name}").get_config().to_dict()
    config = configuration.resolve(values, tasks.groups(values["task"]))
    return configuration.replace(config, {k.replace("__", "."): v for k, v in changes.items()})


def random_arrays(spec, seed=0):
    """Numbers of a batch's shapes, every row counting."""
    rng = np.random.default_rng(seed)

    def fill(name, spec):
        if name in ("weight", "mask"):
            return np.ones(spec.shape, spec.dtype)
        if jnp.issubdtype(spec.dtype, jnp.integer):
            return rng.integers(0, 100, spec.shape).astype(spec.dtype)
        return rng.normal(size=spec.shape).astype(spec.dtype)

    return {name: fill(name, leaf) for name, leaf in spec.items()}


def random_batch(program, seed=0):
    """A call's batch of the program's shapes, every row counting, on its devices."""
    blueprint = program.blueprint
    many = blueprint.config.micro_batches_per_call
    filled = random_arrays(blueprint.spec, seed)
    repeated = {name: np.concatenate([leaf] * many) for name, leaf in filled.items()}
    return sharding.put_batch(repeated, program.mesh, many)


class Step:
    """The compiled training step of a config on random numbers; calling it makes one update."""

    def __init__(self, config):
        self.program = Program(make_blueprint(config))
        self.calls = config.calls_per_update
        self.state = self.program.fresh({})
        self.batch = random_batch(self.program)

    def __call__(self):
        for _ in range(self.calls):
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
    program = Program(make_blueprint(config))
    state, batch = program.fresh({}), random_batch(program)
    state, objective = program.train_step(state, batch)
    jax.block_until_ready((state, batch, objective))
    held = sum(leaf.nbytes for leaf in jax.tree.leaves((state, batch)))
    gc.collect()
    heap.trim()
    before = resident.now()
    resident.forget_peak()
    for _ in range(steps):
        state, objective = program.train_step(state, batch)
        jax.block_until_ready((state, objective))  # as the loop does: one step at a time
    return program.predicted.total, held + resident.peak() - before
