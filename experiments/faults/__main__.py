"""What does a user lose, and see, when something goes wrong? Every fault, one row each.

    python -m experiments.faults [--only=WORDS] [--jobs=2] [--json=FILE]

Hurts the smallest real pose run in its middle, says what the user saw (the last line), the exit
status and what was lost when the same command was given again: its parameters, metrics.jsonl and
report.json must be those of an undisturbed run, bit for bit, and nothing half-written may lie
about. Ends with exit status 1 if a row loses something, shows a traceback, hangs or ends with
another status than it should.

Each door runs in a fork of one process that has imported jax but not started it; signals are sent,
disks filled and files hurt from inside it, in the middle of the function that is named. A disk is
full on a tmpfs of a few MiB where this process may mount one, elsewhere by RLIMIT_FSIZE; rows of
permissions give up root's rights.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from experiments.faults.running import begin, load, rows
from tds_jax.budget import heap


def main() -> int:
    """Runs the faults and prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="part of the names of the faults to run")
    parser.add_argument("--jobs", type=int, default=2, help="rows at once")
    parser.add_argument("--json", default="", help="also write the table to this file")
    options = parser.parse_args()
    load()
    started, table = time.monotonic(), []
    print("| what was done | what the user saw | exit | s | lost |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="faults_") as base:
        Path(base).chmod(0o755)
        begin(Path(base))
        for row in rows(Path(base), options.only, options.jobs):
            table.append(row._asdict())
            lost = row.lost or "nothing"
            cells = (row.name, row.seen[:150], row.code, f"{row.seconds:.1f}", lost)
            print("|", *(f"{cell} |" for cell in cells), flush=True)
            if row.wrong or row.lost:
                print(f"WRONG: {row.wrong} {row.lost}", flush=True)
    wrong = sum(bool(row["wrong"] or row["lost"]) for row in table)
    print(f"{len(table)} faults, {wrong} wrong, {time.monotonic() - started:.0f} s")
    if options.json:
        Path(options.json).write_text(json.dumps(table, indent=1) + "\n")
    return int(wrong > 0)


# Programs are compiled quickly, and once for all rows.
QUICKLY = {
    "JAX_PLATFORMS": "cpu",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}

if __name__ == "__main__":
    os.environ |= QUICKLY
    heap.use_huge_pages()  # now, or every fork that becomes a door would start this program anew
    sys.exit(main())
