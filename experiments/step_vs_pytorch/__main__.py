"""How much faster is a training step than PyTorch's, and how much memory does it take?

    pip install torch==2.13.0   (the extra `bench`)
    python -m experiments.step_vs_pytorch [--rounds=10] [--batch=8] [--cores=1] [--compile]

The full-size tracking network (TDS encoder 16 channels -> 64 features, two LSTM layers of 512,
velocities from a given pose, windows of 11,790 samples, 250 decoder steps), L1 loss, gradient norm
clipped at 1, Adam; f32 on both sides. PyTorch: nn.Conv1d, nn.LSTM called once per step, autograd,
as one would write it, also under `torch.compile`. tds_jax: the step that
configs/emg2pose_tracking.py trains with (alignment 'fixed', L1 alone, one micro-batch), with malloc
as every door of tds_jax sets it (huge pages, two arenas); PyTorch is also shown with the same huge
pages. Each side lives in a process of its own and makes a few steps in its turn. Others on the
machine slow both, PyTorch's two threads much more (each waits for the other at every loop): the
minimum on a quiet machine counts, and CPU seconds on one core hardly depend on them. Memory: peak
resident set while stepping, less what the process held once its libraries were imported.
"""

import argparse
import os

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.step_vs_pytorch.network import HIDDEN, SQUARE, STEPS, TIME, multiplications
from experiments.step_vs_pytorch.serving import Side
from tds_jax.sizes import format_bytes

HUGE = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
SIDES = {
    "PyTorch": ("torch", {"GLIBC_TUNABLES": ""}),
    "PyTorch, huge pages": ("torch", HUGE),
    "torch.compile": ("compile", {"GLIBC_TUNABLES": ""}),
    "tds_jax": ("jax", HUGE),
}


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
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--cores", type=int, default=0, help="that each side may use; 0 = all")
    parser.add_argument("--compile", action="store_true", help="torch.compile too: minutes")
    options = parser.parse_args()
    names = [name for name in SIDES if options.compile or name != "torch.compile"]
    sides = {name: Side(*SIDES[name], options.batch, options.cores) for name in names}
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
