"""How many bytes does a training step of each forecast network take, against the published code?

    python -m experiments.forecast_memory [--targets=cpu,h100] [--measure]

The step: forward, masked squared error, backward, Adam, on 4 x 20 days x 4 channels x 181 x 360.
Published: peak of PyTorch's own accounting at this shape, unfused LSTM, convolutions without
workspace, input and target not counted. Ours: temporaries in the compiler's account of the step,
predicted for the device named (arguments, which are state, input and target, come on top, as
theirs do). Nothing is allocated; h100 needs the extra plan-gpu and no GPU. Claims: at most 1/3 in
f32 and 1/4 in bf16 of the published bytes. --measure runs steps here, one process per network, and
says by how much the resident set of the host rises above state and batch.
"""

import argparse
import dataclasses
import functools
import gc
import json
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import psutil
from flax import nnx
from rich.console import Console
from rich.table import Table

from tds_jax.budget import heap, targets
from tds_jax.budget.memory import predict
from tds_jax.engine import sharding
from tds_jax.engine.step import split
from tds_jax.forecast.cnn3d_lstm import CNN3DLSTM, structure
from tds_jax.forecast.convlstm import ConvLSTM

BATCH, DAYS, LEADS, CHANNELS, HEIGHT, WIDTH = 4, 20, 10, 4, 181, 360
SHAPE = (BATCH, DAYS, HEIGHT, WIDTH)
GB = 1e9
DTYPES = {"f32": jnp.float32, "bf16": jnp.bfloat16}
BARS = {"f32": 3, "bf16": 4}  # published bytes over ours, at least
# Published peak in bytes (facts of the original), hidden sizes, memory settings.
NETWORKS = {
    "convlstm": (2.62 * GB, 16, 0, {"remat": "full", "day_chunk": 5}),
    "cnn3d_lstm_micro": (
        1.47 * GB,
        16,
        8,
        {"remat": "full", "example_chunk": 1, "pixel_chunk": 16384},
    ),
    "cnn3d_lstm_lite": (
        3.32 * GB,
        32,
        16,
        {"remat": "full", "example_chunk": 1, "pixel_chunk": 16384},
    ),
    "cnn3d_lstm": (
        14.70 * GB,
        64,
        32,
        {"remat": "full", "example_chunk": 1, "pixel_chunk": 16384},
    ),
}
PLAIN = {"remat": "none", "example_chunk": 0, "pixel_chunk": 0, "day_chunk": 0}
OF_CNN = {"layout": "pixels", "norm": "batch", "groups": 1, "dropout": 0.1, "cells": 0}


def build(name, dtype, settings):
    """The repaired network, one map per lead, published widths."""
    _, hidden, lstm_hidden, _ = NETWORKS[name]
    common = {"num_channels": CHANNELS, "leads": LEADS, "head": "leads", "dtype": dtype}
    if name == "convlstm":
        return ConvLSTM(**common, hidden=hidden, **settings, rngs=nnx.Rngs(0))
    shape = dataclasses.asdict(structure(name, hidden, lstm_hidden))
    return CNN3DLSTM(**common, **OF_CNN, **shape, **settings, rngs=nnx.Rngs(0))


def make_step(name, dtype, settings):
    """init() -> state (params, rest, of the optimizer); step(state, batch) -> (state, loss)."""
    optimizer = optax.adam(1e-3)
    graphdef = split(nnx.eval_shape(lambda: build(name, dtype, settings)))[0]

    def init():
        _, params, rest = split(build(name, dtype, settings))
        return params, rest, optimizer.init(params)

    def step(state, batch):
        params, rest, opt_state = state

        def loss(params):
            network = nnx.merge(graphdef, params, rest)
            maps = network(batch["x"], True, batch["key"])
            weight = jnp.broadcast_to(batch["mask"][None, None], maps.shape)
            total = jnp.sum((maps - batch["target"]) ** 2 * weight)
            return total / jnp.sum(weight), split(network)[2]

        (value, rest), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), rest, opt_state), value

    return init, jax.jit(step, donate_argnums=0)


def batch_spec(shape):
    """Leaves of a batch; the fields are f32 as the data are, whatever the network computes in."""
    batch, days, height, width = shape
    leaves = {
        "x": ((batch, days, height, width, CHANNELS), jnp.float32),
        "target": ((batch, LEADS, height, width), jnp.float32),
        "mask": ((height, width), jnp.float32),
        "key": ((batch, 2), jnp.uint32),
    }
    return {name: jax.ShapeDtypeStruct(*leaf) for name, leaf in leaves.items()}


def compiled(name, dtype, settings, shape, mesh):
    """The training step compiled for a mesh of one device."""
    init, step = make_step(name, dtype, settings)
    state = sharding.abstract(jax.eval_shape(init), mesh)
    batch = sharding.abstract(batch_spec(shape), mesh)
    return step.lower(state, batch).compile()


def measured(name, dtype, settings, shape, steps=2):
    """(predicted temporaries, rise of the resident set above state and batch, seconds of a step).

    The first step is not counted: it touches the runtime's own code.
    """
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    run = compiled(name, dtype, settings, shape, mesh)
    rng = np.random.default_rng(0)
    spec = batch_spec(shape)
    fill = {"key": lambda s: rng.integers(2**32, size=s.shape, dtype=np.uint32)}
    draw = functools.partial(rng.standard_normal, dtype=np.float32)
    batch = {n: fill.get(n, lambda s: draw(s.shape).astype(s.dtype))(s) for n, s in spec.items()}
    state, batch = jax.device_put((make_step(name, dtype, settings)[0](), batch))
    state, loss = run(state, batch)
    jax.block_until_ready((state, loss))
    gc.collect()
    heap.trim()
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    seconds = []
    for _ in range(steps):
        started = time.perf_counter()
        state, loss = run(state, batch)
        jax.block_until_ready((state, loss))
        seconds.append(time.perf_counter() - started)
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
    return predict(run).temporaries, peak - before, min(seconds)


def in_a_process(name, kind, height):
    """`measured` at a height, from a child."""
    command = [sys.executable, "-m", "experiments.forecast_memory", "--case", name, kind]
    done = subprocess.run(
        [*command, "--height", str(height)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def predictions(names, console, models):
    """One line per network and dtype: published bytes, ours for every target, their ratios."""
    table = Table(title=f"temporaries of a training step, {BATCH} x {DAYS} x {HEIGHT} x {WIDTH}")
    columns = ["network", "dtype", "settings", "published", "bar"]
    for title in (*columns, *(x for n in names for x in (f"predicted, {n}", ""))):
        table.add_column(title, justify="right")
    found = {name: targets.find(name) for name in names}
    for name in models:
        published, *_, settings = NETWORKS[name]
        words = " ".join(f"{k}={v}" for k, v in settings.items())
        for kind, dtype in DTYPES.items():
            cells = [name, kind, words, f"{published / GB:.2f} GB", f"1/{BARS[kind]}"]
            for target in found.values():
                run = compiled(name, dtype, settings, SHAPE, target.mesh(1))
                ours = predict(run).temporaries
                verdict = "" if ours * BARS[kind] <= published else " FAILS"
                cells += [f"{ours / GB:.3f} GB", f"1/{published / ours:.2f}{verdict}"]
            table.add_row(*cells)
            console.print(" ".join(cells))
    console.print(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", default="cpu")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--height", type=int, default=HEIGHT, help="of the map, when measuring")
    parser.add_argument("--case", nargs=2, help="measures one network in this process")
    options = parser.parse_args()
    shape = (BATCH, DAYS, options.height, WIDTH)
    if options.case:
        heap.limit_arenas()  # as every door does
        name, kind = options.case
        print(json.dumps(measured(name, DTYPES[kind], NETWORKS[name][-1], shape)))
        return
    names, models = options.targets.split(","), options.networks.split(",")
    for name in names:
        targets.prepare(name)
    console = Console(width=160)
    predictions(names, console, models)
    if options.measure:
        table = Table(title=f"measured here (host), {BATCH} x {DAYS} x {options.height} x {WIDTH}")
        for title in ("network", "dtype", "predicted", "resident set", "seconds a step"):
            table.add_column(title, justify="right")
        for name in models:
            for kind in DTYPES:
                predicted, rise, seconds = in_a_process(name, kind, options.height)
                cells = (f"{predicted / GB:.3f} GB", f"{rise / GB:.3f} GB", f"{seconds:.1f}")
                table.add_row(name, kind, *cells)
        console.print(table)


if __name__ == "__main__":
    main()
