"""How long does a window of days, or a pair of volumes, take to read: kept in memory, and not?

    python -m experiments.loader_kept [--data=air_temperature.nc] [--rounds 5]

CPU ms an example of each config, shuffled, one thread, files in the system's cache; sides by turns
in one process. `first`: the first 16, when nothing is kept; `again`: once all are.
--data: for the configs of air temperature, which are left out without it; the others read what
they generate.
"""

import argparse
import statistics
import time

from rich.console import Console
from rich.table import Table

from experiments.loader_rates import loader
from experiments.measuring import load

CONFIGS = ("forecast_soil_moisture", "forecast_soil_weather", "voxel_ultra", "voxel_direct")
OF_AIR = ("forecast_air_temperature", "forecast_air_ensemble")
EXAMPLES = 16


def rounds_of(name, data, keep_bytes):
    """Endless CPU ms an example, of `EXAMPLES` at a time; the first when nothing was read."""
    changes = {"data__path": data} if name in OF_AIR else {}
    made = loader(load(name, data__keep_bytes=keep_bytes, **changes), 1)
    batches = made.train_batches(0)
    while True:
        started = time.process_time()
        for _ in range(EXAMPLES):
            next(batches)
        yield (time.process_time() - started) * 1e3 / EXAMPLES


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    table = Table(title="CPU ms an example, least (median)")
    for column in ("config", "days or volumes", "first", "again"):
        table.add_column(column, justify="right")
    for name in (*CONFIGS, *(OF_AIR if options.data else ())):
        keep = load(name).data.keep_bytes
        sides = {"kept": rounds_of(name, options.data, keep)}
        sides["from the files"] = rounds_of(name, options.data, 0)
        first = {side: next(times) for side, times in sides.items()}
        for _ in range(2000 // EXAMPLES):  # enough to have met every day and volume
            next(sides["kept"])
        found = {side: [] for side in sides}
        for _ in range(options.rounds):
            for side, times in sides.items():
                found[side].append(next(times))
        for side, times in found.items():
            again = f"{min(times):.2f} ({statistics.median(times):.2f})"
            table.add_row(name, side, f"{first[side]:.2f}", again)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
