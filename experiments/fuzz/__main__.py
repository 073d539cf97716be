"""Does any damaged file crash, hang, swell or run a program? Damages good ones at random.

    python -m experiments.fuzz [--minutes=5 | --files=N] [--only=NAME] [--seed=0]

Every parser reads copies of a good file with bytes flipped, numbers made extreme, pages zeroed,
ends cut, members of archives damaged under right checksums. It must give a value or a UserError
of one line. Prints a table of files read and findings, each cause once with the seed that repeats
it; ends with exit status 1 if there was any.

Where HDF5 itself never returns, which no Python can interrupt, that is counted apart.
Doors name the file before they open it, so that the user knows which to move away.
"""

import argparse
import sys
import time
from collections.abc import Iterator

from experiments.fuzz.parsers import PARSERS
from experiments.fuzz.running import Finding, readings

BATCH = 200
OF_HDF5 = "h5py/"


def main() -> int:
    """Fuzzes each parser for its share of the time, or with so many files."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--files", type=int, default=0, help="per parser, whatever the minutes")
    parser.add_argument("--only", default="", help="part of the names of the parsers")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chosen = [name for name in PARSERS if options.only in name]
    wrong = 0
    print(f"{'parser':22} {'files':>7} {'findings':>9} {'causes':>7} {'HDF5 hangs':>11}")
    for name in chosen:
        seconds = options.minutes * 60 / len(chosen)
        found = list(_fuzz(name, seconds, options.files, options.seed))
        hangs = [f for f in found if f.fault.startswith("hangs") and f.where.startswith(OF_HDF5)]
        faults = [f for f in found if f.fault and f not in hangs]
        causes = {(f.fault.split(":")[0], f.where): f for f in [*hangs, *faults]}
        print(f"{name:22} {len(found):7} {len(faults):9} {len(causes):7} {len(hangs):11}")
        for cause in causes.values():
            print(f"    {cause.where}: {cause.fault} (seed {cause.seed}, {cause.done})")
        sys.stdout.flush()
        wrong += len(faults)
    return int(wrong > 0)


def _fuzz(name: str, seconds: float, files: int, first: int) -> Iterator[Finding]:
    if files:
        yield from readings(PARSERS[name], range(first, first + files))
        return
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield from readings(PARSERS[name], range(first, first + BATCH))
        first += BATCH


if __name__ == "__main__":
    sys.exit(main())
