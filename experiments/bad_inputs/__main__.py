"""What does a user get for a bad input? Runs every door on broken data, files and settings.

    python -m experiments.bad_inputs [--json=FILE]

Prints input, exit code and the lines on stderr. Exit code 2 must come with exactly one line, beside
warnings about what was skipped, which names the thing, its value, what was expected and the fix;
never a traceback. Runs that can go on say what they skipped and exit 0. Ends with exit code 1 if
any case differs from that. Cases run in forks of one process that has imported jax but not started
it, which saves ~5 s each; TRUE_PROCESSES of them run as the user would.
"""

import argparse
import importlib
import json
import sys
import tempfile
from pathlib import Path

from experiments.bad_inputs.running import results
from tds_jax.budget import heap


def main() -> int:
    """Runs the cases and prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="part of the names of the cases to run")
    parser.add_argument("--json", default="", help="also write the table to this file")
    parser.add_argument("--processes", action="store_true", help="every case in its own process")
    options = parser.parse_args()
    for module in ("tds_jax.tasks", "tds_jax.pose.task"):  # once for all forks
        importlib.import_module(module)
    table = []
    with tempfile.TemporaryDirectory() as base:
        for row in results(Path(base), options.only, options.processes):
            table.append(row)
            print(f"{row['code']}  {row['input']}", flush=True)
            for line in row["lines"]:
                print(f"     {line}")
            if row["fault"]:
                print(f"     WRONG: {row['fault']}")
    wrong = sum(bool(row["fault"]) for row in table)
    print(f"{len(table)} cases, {wrong} wrong")
    if options.json:
        Path(options.json).write_text(json.dumps(table, indent=1) + "\n")
    return int(wrong > 0)


if __name__ == "__main__":
    heap.use_huge_pages()  # now, or every fork that becomes a door would start this program anew
    sys.exit(main())
