"""What does accumulation save, and what does it cost? One batch of 64, cut in ever smaller pieces.

    python -m experiments.accumulation [--rounds 7]

Temporaries are XLA's account of the compiled training step; times are of a whole update, all sides
interleaved in one run.
"""

import argparse

import jax
from rich.console import Console
from rich.table import Table

from experiments.measuring import Step, interleaved, load, times
from tds_jax.budget import heap
from tds_jax.sizes import format_bytes


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--config", default="low_memory")
    options = parser.parse_args()
    batch = load(options.config).optim.batch_size
    sides = {k: Step(load(options.config, optim__accumulate=k)) for k in (1, 2, 4, 8, 16)}
    found = interleaved(sides, options.rounds)
    device = jax.devices()[0].device_kind
    table = Table(title=f"{options.config}, batch {batch}, f32, {device}, least (median) seconds")
    for name in ("micro-batch", "temporaries", "of whole", "peak", "s/update", "time of whole"):
        table.add_column(name, justify="right")
    whole = sides[1].program.predicted
    for k, side in sides.items():
        need = side.program.predicted
        table.add_row(
            *(f"{batch // k} x {k}", format_bytes(need.temporaries)),
            *(f"{need.temporaries / whole.temporaries:.0%}", format_bytes(need.total)),
            *(times(found[k]), f"{min(found[k]) / min(found[1]):.0%}"),
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    heap.use_huge_pages()  # as every door does
    main()
