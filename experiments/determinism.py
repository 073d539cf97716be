"""Question: does the same seed give the same run, number for number, and another seed another one?

    python -m experiments.determinism [--platform cuda]

Three runs of the small pose model of kill_resume.py: twice the same command with other data
workers, then another seed. Verdict: sha256 of metrics.jsonl without perf/*, and the bits of the
last checkpoint, agree for the first two and differ for the third. About a minute.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from experiments.kill_resume import Trial, metrics_digest, same

STEPS = 100


def prove(folder: Path, platform: str, steps: int = STEPS) -> bool:
    """Whether a run is repeated by its seed, and by no other."""
    first, second, other = (
        Trial(folder / name, steps, "micro_batch", platform) for name in ("a", "b", "c")
    )
    first.finish(workers=0)
    second.finish(workers=2)
    other.finish(workers=0, seed=1)
    equal = same(first, second)
    different = metrics_digest(other.folder / "run") != metrics_digest(first.folder / "run")
    print(f"another seed: {metrics_digest(other.folder / 'run'):>80}")
    print(f"verdict: {'same seed, same run' if equal and different else 'NOT deterministic'}")
    return equal and different


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--platform", default="cpu", help="cpu, cuda, tpu; '' for what jax finds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="determinism_") as name:
        sys.exit(0 if prove(Path(name), options.platform) else 1)
