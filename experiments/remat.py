"""What does each way of keeping less for the backward pass save, and what does it cost?

    python -m experiments.remat [--rounds=5] [--batch=4] [--steps=1000]

Gradients of a pose network (the encoder of configs/high_performance.py, LSTM 2 x 256) on a long
window, and of its decoder alone, f32. Kept: bytes between forward and backward, less arguments, as
autodiff hands them to the compiler; holds for every device. Temporaries: predicted by the compiler
for this machine; XLA on CPU undoes `memory.remat` outside scans. The rows take turns; minima and
medians. Gradient: largest difference of an entry from the first row's, relative to the largest
entry of its leaf. Claims: chunks keep a tenth of the decoder's bytes for at most a quarter more
time; gradients agree to f32 rounding.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.console import Console
from rich.table import Table

from tds_jax.budget import heap
from tds_jax.engine.step import split
from tds_jax.pose.models import PoseModel
from tds_jax.sizes import format_bytes

CHANNELS, JOINTS, RATE = 16, 20, 2000.0
WHOLE = "whole network"
ROWS = {  # name: (memory.remat, memory.decoder_chunk)
    "none": ("none", 0),
    "dots": ("dots", 0),
    "names": ("names", 0),
    "full": ("full", 0),
    "chunks of 32": ("none", 32),
    "names, chunks of 32": ("names", 32),
}


def build(policy, chunk):
    """A network with 64 features at 250 Hz and a decoder at 50 Hz."""
    return PoseModel(
        num_channels=CHANNELS,
        num_joints=JOINTS,
        sample_rate=RATE,
        conv_kernels=(7, 5, 3),
        conv_strides=(2, 2, 2),
        groups=(8, 8, 8),
        widths=(8, 8, 8),
        tds_kernels=(21, 11, 7),
        tds_blocks=(2, 2, 2),
        dropout=0.0,
        norm_order="norm_relu",
        conv_bias=False,
        decoder="lstm",
        hidden=256,
        layers=2,
        mlp_hidden=(),
        slope=0.1,
        rollout_freq=50.0,
        output="position",
        output_scale=1.0,
        initial_pose="zeros",
        reference_rate=False,
        decoder_chunk=chunk,
        remat=policy,
        dtype=jnp.float32,
        rngs=nnx.Rngs(0),
    )


def kept_bytes(f, *arguments):
    """What autodiff keeps of f between forward and backward, less the arguments themselves."""
    pullback = jax.eval_shape(lambda *a: jax.vjp(f, *a)[1], *arguments)
    kept, given = (
        sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
        for tree in (pullback, arguments)
    )
    return kept - given


class Row:
    """One way of keeping less: its program, its bytes, its seconds."""

    def __init__(self, policy, chunk, part, x):
        graphdef, self.params, rest = split(build(policy, chunk))

        def f(params, x):
            model = nnx.merge(graphdef, params, rest)
            poses = model(x) if part == WHOLE else model.decode(x, model.initial_carry(len(x)))[0]
            return jnp.mean(poses**2)

        self.x = x
        self.kept = kept_bytes(f, self.params, x)
        self.compiled = jax.jit(jax.grad(f)).lower(self.params, x).compile()
        self.temporaries = self.compiled.memory_analysis().temp_size_in_bytes
        self.gradient = jax.tree.map(np.asarray, self.run())
        self.seconds = []

    def run(self):
        return jax.block_until_ready(self.compiled(self.params, self.x))

    def measure(self):
        """Three calls; the first finds the memory as the other rows left it and does not count."""
        self.run()
        for _ in range(2):
            started = time.perf_counter()
            self.run()
            self.seconds.append(time.perf_counter() - started)


def difference(row, base):
    """Largest relative difference of a gradient leaf."""
    pairs = zip(jax.tree.leaves(row.gradient), jax.tree.leaves(base.gradient), strict=True)
    return max(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30) for a, b in pairs)


def table_of(rows, title):
    """One line per row, ratios to the first."""
    table = Table(title=title)
    for name in ("", "kept", "", "temporaries", "", "min [s]", "", "median [s]", "gradient"):
        table.add_column(name, justify="right")
    base = next(iter(rows.values()))
    for name, row in rows.items():
        fast = min(row.seconds)
        table.add_row(
            *(name, format_bytes(row.kept), f"÷{base.kept / row.kept:.1f}"),
            *(format_bytes(row.temporaries), f"÷{base.temporaries / row.temporaries:.1f}"),
            *(f"{fast:.3f}", f"{fast / min(base.seconds) - 1:+.0%}"),
            *(f"{np.median(row.seconds):.3f}", f"{difference(row, base):.0e}"),
        )
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=1000, help="of the decoder, at 50 Hz")
    options = parser.parse_args()
    heap.limit_arenas()  # as every door does
    model = build("none", 0)
    window = model.left_context + 1 + (options.steps - 1) * model.step
    rng = np.random.default_rng(0)
    inputs = {
        WHOLE: (options.batch, window, CHANNELS),
        "decoder alone": (options.batch, options.steps, model.encoder.features),
    }
    for part, shape in inputs.items():
        x = jnp.asarray(rng.normal(size=shape), jnp.float32)
        ways = {n: way for n, way in ROWS.items() if part == WHOLE or way[0] == "none"}
        rows = {name: Row(*way, part, x) for name, way in ways.items()}
        for _ in range(options.rounds):
            for row in rows.values():
                row.measure()
        title = f"{part}, batch {options.batch}, {options.steps} steps of {model.step} samples"
        Console(width=120).print(table_of(rows, f"{title}, f32, CPU"))


if __name__ == "__main__":
    heap.use_huge_pages()  # as every door does
    main()
