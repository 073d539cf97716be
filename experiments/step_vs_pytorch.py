"""How much faster is a training step than PyTorch's, and how much memory does it take?

    pip install torch==2.13.0   (the extra `bench`)
    python -m experiments.step_vs_pytorch [--rounds=10] [--batch=8] [--cores=1] [--compile]

The full-size tracking network (TDS encoder 16 channels -> 64 features, two LSTM layers of 512,
velocities from a given pose, windows of 11,790 samples, 250 decoder steps), L1 loss, gradient norm
clipped at 1, Adam; f32 on both sides. PyTorch: nn.Conv1d, nn.LSTM called once per step, autograd,
as one would write it, also under `torch.compile`. tds_jax: `PoseModel` and the engine's train step,
with malloc as every door of tds_jax sets it (huge pages, two arenas); PyTorch is also shown with
the same huge pages. Each side lives in a process of its own and makes a few steps in its turn.
Others on the machine slow both, PyTorch's two threads much more (each waits for the other at every
loop): the minimum on a quiet machine counts, and CPU seconds on one core hardly depend on them.
Memory: peak resident set while stepping, less what the process held once its libraries were
imported.
"""

import argparse
import functools
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from tds_jax.sizes import format_bytes

HUGE = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
SIDES = {
    "PyTorch": ("torch", {"GLIBC_TUNABLES": ""}),
    "PyTorch, huge pages": ("torch", HUGE),
    "torch.compile": ("compile", {"GLIBC_TUNABLES": ""}),
    "tds_jax": ("jax", HUGE),
}
TIME, STEPS, JOINTS, CHANNELS = 11_790, 250, 20, 16
SQUARE = 2048
BURST = 4  # calls in a row, as steps follow on each other in training
KERNELS, STRIDES, TDS_KERNELS, BLOCKS = (11, 5, 17, 9), (5, 2, 4, 2), (1, 1, 9, 5), (0, 0, 2, 2)
WIDE, GROUPS, FEATURES, HIDDEN, SCALE, SLOPE = 256, 16, 64, 512, 0.01, 0.01


def make_batch(batch):
    """emg (B, T, C), poses (B, 250, J) around which the first one is given."""
    rng = np.random.default_rng(0)
    emg = rng.normal(size=(batch, TIME, CHANNELS)).astype(np.float32)
    return emg, rng.normal(size=(batch, STEPS, JOINTS)).astype(np.float32)


def torch_network():
    """The network in PyTorch, (B, C, T) and (B, J) -> (B, 250, J)."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Norm(nn.LayerNorm):
        def forward(self, x):
            return super().forward(x.transpose(1, 2)).transpose(1, 2)

    class Block(nn.Module):
        def __init__(self, kernel):
            super().__init__()
            self.conv = nn.Conv2d(GROUPS, GROUPS, (1, kernel))
            self.conv_norm = Norm(WIDE)
            self.fc = nn.Sequential(nn.Linear(WIDE, WIDE), nn.ReLU(), nn.Linear(WIDE, WIDE))
            self.fc_norm = nn.LayerNorm(WIDE)

        def forward(self, x):
            y = self.conv(x.reshape(len(x), GROUPS, WIDE // GROUPS, -1)).relu()
            y = y.reshape(len(x), WIDE, -1)
            x = self.conv_norm(y + x[..., -y.shape[-1] :]).transpose(1, 2)
            return self.fc_norm(self.fc(x) + x).transpose(1, 2)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            layers, size = [], CHANNELS
            for kernel, stride, tds, blocks in zip(
                KERNELS, STRIDES, TDS_KERNELS, BLOCKS, strict=True
            ):
                layers += [nn.Conv1d(size, WIDE, kernel, stride), nn.ReLU(), Norm(WIDE)]
                layers += [Block(tds) for _ in range(blocks)]
                size = WIDE
            self.encoder = nn.Sequential(*layers)
            self.out = nn.Linear(WIDE, FEATURES)
            self.lstm = nn.LSTM(FEATURES + JOINTS, HIDDEN, 2, batch_first=True)
            self.head = nn.Linear(HIDDEN, JOINTS)

        def forward(self, emg, pose):
            frames = self.out(self.encoder(emg).transpose(1, 2)).transpose(1, 2)
            frames = functional.interpolate(frames, STEPS, mode="linear", align_corners=True)
            state, poses = None, []
            for n in range(STEPS):
                hidden, state = self.lstm(torch.cat([frames[..., n], pose], 1)[:, None], state)
                pose = pose + SCALE * self.head(functional.leaky_relu(hidden[:, 0], SLOPE))
                poses.append(pose)
            return torch.stack(poses, 1)

    return Network()


def torch_side(batch, compiled):
    """What a child process can be asked for: name -> function, and its number of parameters."""
    import torch

    emg, poses = (torch.from_numpy(a) for a in make_batch(batch))
    emg = emg.transpose(1, 2).contiguous()
    network = torch_network()
    run = torch.compile(network) if compiled else network
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)

    def step():
        optimizer.zero_grad()
        loss = (run(emg, poses[:, 0]) - poses).abs().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    parameters = sum(p.numel() for p in network.parameters())
    facts = {"parameters": parameters, "peak": peak_of(step)}
    a = torch.ones(SQUARE, SQUARE)
    return {"step": step, "product": lambda: a @ a}, facts


def jax_model(rngs):
    """The network in tds_jax."""
    import jax.numpy as jnp

    from tds_jax.pose.models import PoseModel

    return PoseModel(
        num_channels=CHANNELS,
        num_joints=JOINTS,
        sample_rate=2000.0,
        conv_kernels=KERNELS,
        conv_strides=STRIDES,
        groups=(GROUPS,) * 4,
        widths=(WIDE // GROUPS,) * 4,
        tds_kernels=TDS_KERNELS,
        tds_blocks=BLOCKS,
        dropout=0.0,
        norm_order="relu_norm",
        conv_bias=True,
        out_features=FEATURES,
        decoder="lstm",
        hidden=HIDDEN,
        layers=2,
        mlp_hidden=(),
        slope=SLOPE,
        rollout_freq=50.0,
        output="velocity",
        output_scale=SCALE,
        initial_pose="given",
        reference_rate=False,
        decoder_chunk=0,
        remat="none",
        dtype=jnp.float32,
        rngs=rngs,
    )


def l1(model, batch, train):
    """The engine's loss function."""
    import jax.numpy as jnp

    from tds_jax.engine.step import Objective

    error = jnp.abs(model(batch["emg"], batch["poses"][:, 0]) - batch["poses"])
    row = jnp.mean(error, axis=-1)
    return Objective(jnp.sum(row), jnp.float32(row.size)), {}


def jax_parts(graphdef, state, emg, poses):
    """Forward, and forward with backward, of encoder and decoder alone."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    # The step donates its own.
    params, rest = jax.tree.map(jnp.copy, (state.params, state.rest))

    def encode(params, emg):
        return nnx.merge(graphdef, params, rest).features(emg)

    def decode(params, features):
        model = nnx.merge(graphdef, params, rest)
        carry = model.initial_carry(len(poses), poses[:, 0])
        return model.decode(features, carry)[0]

    features = jax.jit(encode)(params, emg)
    parts = {}
    for name, f, x in (("encoder", encode, emg), ("decoder", decode, features)):
        value = jax.jit(lambda p, x, f=f: jnp.sum(jnp.abs(f(p, x))))
        gradient = jax.jit(jax.grad(value, (0, 1) if f is decode else 0))
        parts[f"{name}, forward"] = functools.partial(value, params, x)
        parts[f"{name}, forward and backward"] = functools.partial(gradient, params, x)
    return {name: lambda f=f: jax.block_until_ready(f()) for name, f in parts.items()}


def jax_side(batch):
    """The same of tds_jax."""
    import jax
    import jax.numpy as jnp

    from tds_jax.budget import heap, memory
    from tds_jax.config import OptimConfig
    from tds_jax.engine import optim
    from tds_jax.engine.step import graphdef_of, make_init, make_train_step

    heap.limit_arenas()
    config = OptimConfig(
        batch_size=batch,
        accumulate=1,
        steps=1000,
        optimizer="adam",
        learning_rate=1e-3,
        schedule="constant",
        warmup_steps=0,
        end_factor=1.0,
        weight_decay=0.0,
        clip_norm=1.0,
        ema_decay=0.0,
    )
    optimizer, graphdef = optim.make_optimizer(config), graphdef_of(jax_model)
    emg, poses = map(jnp.asarray, make_batch(batch))
    example = {"emg": emg, "poses": poses}
    state = jax.jit(make_init(jax_model, optimizer, l1, example))(jax.random.key(0))
    train = make_train_step(graphdef, optimizer, l1).lower(state, example).compile()
    heap.trim()

    def step():
        nonlocal state
        state, objective = train(state, example)
        return float(objective.sum / objective.weight)

    parameters = sum(p.size for p in jax.tree.leaves(state.params))
    facts = {"parameters": parameters, "predicted": memory.predict(train).total}
    facts["peak"] = peak_of(step)
    tasks = {"step": step} | jax_products(batch) | jax_parts(graphdef, state, emg, poses)
    return tasks, facts


def jax_products(batch):
    """A large square product; and, in a loop as long as the decoder's, three of its products.

    Those have `batch` rows and each needs the one before, as the decoder's do; nothing else but
    adding up the four gates is in that loop.
    """
    import jax
    import jax.numpy as jnp

    a, square = jnp.ones((SQUARE, SQUARE)), jax.jit(jnp.matmul)
    weights = [jnp.full((HIDDEN, 4 * HIDDEN), 0.25 / HIDDEN) for _ in range(3)]

    def step(x, _):
        for w in weights:
            x = (x @ w).reshape(batch, 4, HIDDEN).sum(1)
        return x, None

    loop = jax.jit(lambda x, weights: jax.lax.scan(step, x, None, STEPS)[0])
    rows = jnp.ones((batch, HIDDEN))
    return {
        "product": lambda: square(a, a).block_until_ready(),
        "loop": lambda: loop(rows, weights).block_until_ready(),
    }


def resident(key):
    """VmRSS (now) or VmHWM (peak) of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return 1024 * int(line.split()[1])
    raise KeyError(key)


def peak_of(step):
    """Peak resident set of one step, in bytes, what is held all the time included."""
    step()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    step()
    return resident("VmHWM")


def serve(kind, batch, cores):
    """The child: answers each line that names a task with its seconds, of the clock and of CPU."""
    if cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    importlib.import_module("tds_jax.pose.models" if kind == "jax" else "torch")
    held = resident("VmRSS")
    answer = functools.partial(print, file=os.fdopen(os.dup(1), "w"), flush=True)
    os.dup2(2, 1)  # whatever libraries print goes elsewhere
    tasks, facts = jax_side(batch) if kind == "jax" else torch_side(batch, kind == "compile")
    facts["peak"] -= held
    for task in tasks.values():
        task()
    answer(json.dumps(facts | {"tasks": list(tasks)}))
    for line in sys.stdin:
        started, cpu = time.perf_counter(), time.process_time()
        tasks[line.strip()]()
        answer(time.perf_counter() - started, time.process_time() - cpu)


class Side:
    """A child process, and the seconds of what it was asked to do."""

    def __init__(self, name, batch, cores):
        kind, environment = SIDES[name]
        command = [sys.executable, "-m", "experiments.step_vs_pytorch", f"--serve={kind}"]
        self.child = subprocess.Popen(
            [*command, f"--batch={batch}", f"--cores={cores}"],
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.facts = json.loads(self.child.stdout.readline())
        self.seconds = {task: [] for task in self.facts["tasks"]}
        self.cpu = []

    def run(self, task):
        """A burst; its first call finds memory as the other sides left it and does not count."""
        for n in range(BURST):
            self.child.stdin.write(f"{task}\n")
            self.child.stdin.flush()
            seconds, cpu = map(float, self.child.stdout.readline().split())
            if n:
                self.seconds[task].append(seconds)
            if n and task == "step":
                self.cpu.append(cpu)

    def best(self, task):
        return min(self.seconds[task])


def multiplications(batch):
    """Of one forward pass of encoder and decoder."""
    length, size, encoder = TIME, CHANNELS, 0
    for kernel, stride, tds, blocks in zip(KERNELS, STRIDES, TDS_KERNELS, BLOCKS, strict=True):
        length = (length - kernel) // stride + 1
        encoder += length * kernel * size * WIDE
        size = WIDE
        for _ in range(blocks):
            length -= tds - 1
            encoder += length * (tds * GROUPS * WIDE + 2 * WIDE * WIDE)
    encoder += length * WIDE * FEATURES
    decoder = STEPS * ((FEATURES + JOINTS + 3 * HIDDEN) * 4 * HIDDEN + HIDDEN * JOINTS)
    return batch * encoder, batch * decoder


def compare(sides, batch, cores):
    """The table of steps."""
    table = Table(title=f"training step, batch {batch}, {TIME} samples, f32, {cores} CPU cores")
    for name in ("", "parameters", "min [s]", "", "median [s]", "", "CPU [s]", "", "peak", ""):
        table.add_column(name, justify="right")
    first = next(iter(sides.values()))

    def numbers(side):
        steps = side.seconds["step"]
        return min(steps), np.median(steps), min(side.cpu), side.facts["peak"]

    for name, side in sides.items():
        cells = []
        for value, base in zip(numbers(side), numbers(first), strict=True):
            text = format_bytes(value) if value > 1e6 else f"{value:.3f}"
            cells += [text, f"{base / value:.2f}x"]
        table.add_row(name, f"{side.facts['parameters']:,}", *cells)
    return table


def account(side, batch):
    """Where tds_jax's time goes, against products alone.

    floor: at the speed of a large square one. in a loop: the decoder's, but for the gradients of
    its weights (one large product each), at the speed of products of `batch` rows in a loop.
    """
    encoder, decoder = multiplications(batch)
    large = SQUARE**3 / side.best("product")
    small = STEPS * 3 * batch * 4 * HIDDEN**2 / side.best("loop")
    parts = {  # (multiplications in large products, in a loop's)
        "encoder, forward": (encoder, 0),
        "encoder, forward and backward": (3 * encoder, 0),
        "decoder, forward": (0, decoder),
        "decoder, forward and backward": (decoder, 2 * decoder),
        "step": (3 * encoder + decoder, 2 * decoder),
    }
    title = f"tds_jax: minima; products at {2e-9 * large:.0f} GFLOP/s, in a loop {2e-9 * small:.0f}"
    table = Table(title=title)
    for name in ("part", "min [ms]", "GFLOP", "floor [ms]", "of it", "in a loop [ms]", "of it"):
        table.add_column(name, justify="right")
    for name, (many, few) in parts.items():
        seconds = side.best(name)
        cells = [name, f"{1e3 * seconds:.0f}", f"{2e-9 * (many + few):.1f}"]
        for floor in ((many + few) / large, many / large + few / small):
            cells += [f"{1e3 * floor:.0f}", f"{seconds / floor:.2f}x"]
        table.add_row(*cells)
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", choices=("torch", "compile", "jax"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--cores", type=int, default=0, help="that each side may use; 0 = all")
    parser.add_argument("--compile", action="store_true", help="torch.compile too: minutes")
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.batch, options.cores)
        return
    names = [name for name in SIDES if options.compile or name != "torch.compile"]
    sides = {name: Side(name, options.batch, options.cores) for name in names}
    for _ in range(options.rounds):
        for task in sides["tds_jax"].seconds:
            for side in sides.values():
                if task in side.seconds:
                    side.run(task)
    console = Console(width=110)
    console.print(compare(sides, options.batch, options.cores or os.cpu_count()))
    console.print(account(sides["tds_jax"], options.batch))
    predicted = format_bytes(sides["tds_jax"].facts["predicted"])
    print(f"tds_jax's step by its compiler's account: {predicted}")


if __name__ == "__main__":
    main()
