"""Question: does the same seed give the same run, number for number, and another seed another one?

    python -m experiments.determinism

Three runs of the small pose model of kill_resume.py: twice the same command with other data
workers, then another seed. Verdict: sha256 of metrics.jsonl without perf/*, and the bits of the
last checkpoint, agree for the first two and differ for the third. About a minute.
"""

import sys
import tempfile
from pathlib import Path

from experiments.kill_resume import SETTINGS, Trial, metrics_digest, same

STEPS = 100

if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="determinism_") as folder:
        first, second, other = (Trial(Path(folder) / name, STEPS) for name in "abc")
        first.finish(workers=0)
        second.finish(workers=2)
        SETTINGS["seed"] = 1
        other.finish(workers=0)
        equal = same(first, second)
        different = metrics_digest(other) != metrics_digest(first)
        print(f"another seed: {metrics_digest(other):>80}")
    print(f"verdict: {'same seed, same run' if equal and different else 'NOT deterministic'}")
    sys.exit(0 if equal and different else 1)
