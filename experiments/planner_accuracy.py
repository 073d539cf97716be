"""Are predicted bytes what a step takes? One process per case, measured as resident set.

    python -m experiments.planner_accuracy [--runs=3]

On the CPU backend the device's memory is the process's. Measured is the state and the batch, and by
how much the resident set rises above them in ten steps: the median of some runs, least and most
beside it, since it depends on how the threads of a product overlap. The bar is 10 % or 20 MiB.
"""

import argparse
import ast
import json
import statistics
import subprocess
import sys

from rich.console import Console
from rich.table import Table

from tds_jax.budget import heap
from tds_jax.sizes import MIB, format_bytes

CASES = (
    ("quick_demo", {}),
    ("quick_demo", {"optim__batch_size": 128}),
    ("quick_demo", {"memory__dtype": "bfloat16", "optim__batch_size": 128}),
    ("low_memory", {}),
    ("low_memory", {"optim__accumulate": 2}),
    ("low_memory", {"optim__accumulate": 16}),
    ("low_memory", {"memory__decoder_chunk": 7}),
    ("low_memory", {"memory__dtype": "bfloat16"}),
    ("low_memory", {"memory__remat": "full"}),
    ("default", {}),
    ("default", {"memory__remat": "names", "memory__decoder_chunk": 7}),
    ("default", {"optim__optimizer": "sgd"}),
    ("high_performance", {"optim__accumulate": 8}),
    ("high_performance", {"optim__accumulate": 16, "memory__remat": "dots"}),
    ("emg2pose_tracking", {"optim__accumulate": 64}),
    ("forecast_air_temperature", {}),
    ("forecast_soil_moisture", {}),
    ("voxel_ultra", {}),
)


def measure(name, changes):
    """(predicted, measured) bytes of one case, from a child."""
    command = [sys.executable, "-m", "experiments.planner_accuracy", "--case", name, repr(changes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="of each case")
    parser.add_argument("--case", nargs=2, help="one case, in this process")
    options = parser.parse_args()
    if options.case:
        from experiments.measuring import load, measured_peak

        heap.limit_arenas()  # as every door does
        name, changes = options.case
        print(json.dumps(measured_peak(load(name, **ast.literal_eval(changes)))))
        return
    table = Table(title="CPU, f32 unless said, resident set")
    for name in ("config", "changes", "predicted", "measured", "of runs", "difference", "within"):
        table.add_column(name, justify="left" if name in ("config", "changes") else "right")
    good = 0
    for name, changes in CASES:
        found = [measure(name, changes) for _ in range(options.runs)]
        predicted, peaks = found[0][0], sorted(peak for _, peak in found)
        measured = statistics.median_low(peaks)
        away = measured - predicted
        fine = abs(away) <= max(0.1 * measured, 20 * MIB)
        good += fine
        words = ", ".join(f"{key.split('__')[1]}={value}" for key, value in changes.items())
        table.add_row(
            *(name, words, format_bytes(predicted), format_bytes(measured)),
            f"{peaks[0] / MIB:.0f} - {peaks[-1] / MIB:.0f}",
            *(f"{away / MIB:+.0f} MiB ({away / measured:+.1%})", "yes" if fine else "NO"),
        )
    Console(width=130).print(table)
    print(f"{good} of {len(CASES)} within 10 % or 20 MiB")


if __name__ == "__main__":
    heap.use_huge_pages()  # as every door does
    main()
