"""Question: does a run that is killed again and again end exactly where an undisturbed one ends?

    python -m experiments.kill_resume [--kills 12] [--terms 4] [--seed 0] [--folder DIR]
        [--call micro_batch] [--platform cuda]

Trains a small pose model once undisturbed, then the same with `kills` times SIGKILL and `terms`
times SIGTERM at random moments: while starting (imports, generating data, compiling, restoring),
while stepping, while validating, while a checkpoint is being written. Every restart is the same
command but for the number of data workers. Micro-batches are a quarter of a batch, so that almost
every death falls into a half-filled accumulation window; SIGTERM also saves there (with --call
update a call of the compiled step makes a whole update, and SIGTERM waits for its end).

Verdict: the latest checkpoints hold the same bits (parameters, statistics, optimizer, progress),
metrics.jsonl is the same but for perf/*, report.json is the same, and no data worker survived.
About five minutes on two CPU cores.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

BATCH, ACCUMULATE, EVALUATE_EVERY = 16, 4, 20
SETTINGS = {
    "model.conv_kernels": (5,),
    "model.conv_strides": (10,),
    "model.groups": (4,),
    "model.widths": (4,),
    "model.tds_kernels": (5,),
    "model.tds_blocks": (1,),
    "model.hidden": 16,
    "model.layers": 1,
    "data.window": 1000,
    "data.stride": 500,
    "data.eval_window": 4000,
    "data.synthetic_users": 2,
    "data.synthetic_sessions": 5,
    "data.synthetic_seconds": 6.0,
    "optim.batch_size": BATCH,
    "optim.accumulate": ACCUMULATE,
    "optim.warmup_steps": 5,
    "eval.every": EVALUATE_EVERY,
    "checkpoint.every": 5,
    "log.every": 2,
    "log.plots": False,
}
LIMIT = 300.0  # s per attempt; a start alone takes 5 to 20 s
ORPHANED = 20.0  # s
MOMENTS = ("starting", "stepping", "validating", "saving")


def environment(platform: str) -> dict[str, str]:
    """Variables of a run on cpu, cuda or tpu; '': on what jax finds.

    The comparison reads checkpoints on CPU, and a card is shared with what else is on it.
    """
    chosen = (
        {"JAX_PLATFORMS": f"{platform},cpu" if platform != "cpu" else "cpu"} if platform else {}
    )
    return {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} | chosen


@dataclasses.dataclass(frozen=True)
class Trial:
    """A workdir being trained with its own cache, so that killing can hit the data's birth, too."""

    folder: Path
    steps: int
    call: str
    platform: str

    def start(self, workers: int, seed: int = 0) -> subprocess.Popen:
        """The training command, its output appended to output.txt."""
        settings = SETTINGS | {
            "optim.steps": self.steps,
            "memory.call": self.call,
            "data.cache_dir": self.folder / "cache",
            "data.workers": workers,
            "seed": seed,
        }
        flags = [f"--config.{name}={value}" for name, value in settings.items()]
        command = [sys.executable, "-m", "tds_jax.train", "--config=configs/default.py"]
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "output.txt").open("a") as output:
            return subprocess.Popen(
                [*command, f"--workdir={self.folder / 'run'}", *flags],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | environment(self.platform),
            )

    def finish(self, workers: int, seed: int = 0) -> float:
        """Trains to the end; returns the seconds taken."""
        started = time.perf_counter()
        process = self.start(workers, seed)
        code = process.wait(LIMIT)
        assert code == 0, (self.folder / "output.txt").read_text()[-3000:]
        return time.perf_counter() - started

    def last_step(self) -> int | None:
        """The last step in metrics.jsonl; None before there is one."""
        path = self.folder / "run" / "metrics.jsonl"
        text = path.read_text() if path.exists() else ""
        lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return json.loads(lines[-1])["step"] if lines else None

    def saved(self) -> int | None:
        """Examples in the latest whole checkpoint."""
        found = [int(name) for name in self._checkpoints() if name.isdigit()]
        return max(found, default=None)

    def unfinished(self) -> set[str]:
        """Checkpoints being written, or left behind by a killed writer."""
        return {name for name in self._checkpoints() if "tmp" in name}

    def _checkpoints(self) -> list[str]:
        folder = self.folder / "run" / "checkpoints"
        return os.listdir(folder) if folder.exists() else []


def moment_arrives(
    trial: Trial, moment: str, leftovers: set[str], rng: random.Random, startup: float
) -> Iterator[bool]:
    """False until it is time to strike, polled every two milliseconds."""
    before, started = trial.last_step(), time.perf_counter()
    if moment == "starting":
        delay = rng.uniform(0.05, 1.0) * startup
        while time.perf_counter() - started < delay:
            yield False
    else:
        while (step := trial.last_step()) is None or step == before:
            yield False
        delay = rng.uniform(0, 2.5) if moment != "validating" else rng.uniform(0, 0.1)
        while moment == "validating" and (trial.last_step() or 0) % EVALUATE_EVERY:
            yield False
        seen = time.perf_counter()
        while time.perf_counter() - seen < delay:
            yield False
        while moment == "saving" and not trial.unfinished() - leftovers:
            yield False
    yield True


def strike(process: subprocess.Popen, number: int) -> int:
    """Sends a signal, waits for the end; returns how many children outlive it.

    A worker looks for its parent every second once it works; one that is still importing what it
    needs, on cores that are busy, sees only afterwards that it is alone.
    """
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        children = []
    process.send_signal(number)
    process.wait(LIMIT)
    _, alive = psutil.wait_procs(children, timeout=ORPHANED)
    return len(alive)


def steps_words(examples: int | None) -> str:
    """'12' or '12 + 3/4' steps."""
    if examples is None:
        return "nothing"
    step, rest = divmod(examples, BATCH)
    part = rest * ACCUMULATE // BATCH
    return f"{step} + {part}/{ACCUMULATE}" if part else str(step)


def torment(trial: Trial, kills: int, terms: int, seed: int, startup: float) -> bool:
    """Kills and restarts the trial, prints a row for each attempt; True if no worker was left."""
    rng = random.Random(seed)
    moments = [MOMENTS[i % len(MOMENTS)] for i in range(kills)]
    plan = [(signal.SIGKILL, moment) for moment in moments] + [(signal.SIGTERM, "stepping")] * terms
    first, *others = plan
    rng.shuffle(others)
    print("| attempt | signal | moment | workers | from step | last logged | saving | orphans |")
    print("|---|---|---|---|---|---|---|---|")
    clean = True
    for attempt, (number, moment) in enumerate([first, *others], 1):
        workers, resumed, leftovers = rng.choice((0, 1, 2)), trial.saved(), trial.unfinished()
        process = trial.start(workers)
        for now in moment_arrives(trial, moment, leftovers, rng, startup):
            if now or process.poll() is not None:
                break
            time.sleep(0.002)
        if process.poll() is not None:
            moment = "too late"
        saving, orphans = trial.unfinished() - leftovers, strike(process, number)
        clean = clean and not orphans
        row = [attempt, number.name, moment, workers, steps_words(resumed), trial.last_step()]
        print("|", *(f"{cell} |" for cell in [*row, "yes" if saving else "", orphans]), flush=True)
        if number == signal.SIGTERM:
            assert process.returncode == 0, f"SIGTERM: exit code {process.returncode}"
    workers, resumed = rng.choice((0, 1, 2)), trial.saved()
    trial.finish(workers)
    print(
        f"| {attempt + 1} | none | end | {workers} | {steps_words(resumed)} | {trial.steps} | | |"
    )
    return clean


def state_leaves(run: Path) -> dict[str, bytes]:
    """Every array of a workdir's latest checkpoint as bytes, and its progress."""
    import jax

    jax.config.update("jax_platforms", "cpu")  # the card is the runs'

    from tds_jax import cli, tasks
    from tds_jax.engine import sharding, workdir
    from tds_jax.engine.blueprint import Blueprint

    config = cli.resolve(workdir.read_config(run))
    checkpoints = workdir.open_checkpoints(run, config)
    shapes = Blueprint(tasks.get(config), config).shapes
    position = checkpoints.latest()
    restored = checkpoints.restore(position, sharding.abstract(shapes, sharding.make_mesh(4)))
    checkpoints.close()
    leaves = {
        jax.tree_util.keystr(path): np.asarray(leaf).tobytes()
        for path, leaf in jax.tree_util.tree_flatten_with_path(restored.state)[0]
    }
    # The config names the workers, which differ on purpose.
    remembered = {k: v for k, v in restored.progress.items() if k != "config"}
    progress = json.dumps(remembered, sort_keys=True)
    return leaves | {"position": str(position).encode(), "progress": progress.encode()}


def metrics_digest(run: Path) -> str:
    """sha256 of a workdir's metrics.jsonl without its perf/* entries."""
    text = (run / "metrics.jsonl").read_text()
    kept = [
        json.dumps({k: v for k, v in json.loads(line).items() if not k.startswith("perf/")})
        for line in text.splitlines()
    ]
    return hashlib.sha256("\n".join(kept).encode()).hexdigest()


def numbers(run: Path) -> str:
    """report.json without when it was written."""
    return json.dumps(json.loads((run / "report.json").read_text())["splits"])


def same(a: Trial, b: Trial) -> bool:
    """Compares the two trials' results and prints how."""
    one, two = state_leaves(a.folder / "run"), state_leaves(b.folder / "run")
    different = [name for name in one.keys() | two.keys() if one.get(name) != two.get(name)]
    size = sum(len(value) for value in one.values())
    verdict = f"DIFFERENT: {different}" if different else "identical"
    print(f"\nlatest checkpoints ({len(one)} leaves, {size} bytes): {verdict}")
    digests = metrics_digest(a.folder / "run"), metrics_digest(b.folder / "run")
    print(f"metrics.jsonl without perf/*, sha256: {digests[0]}\n{digests[1]:>102}")
    reports = [numbers(t.folder / "run") for t in (a, b)]
    print(f"report.json: {'identical' if reports[0] == reports[1] else 'DIFFERENT'}")
    return not different and digests[0] == digests[1] and reports[0] == reports[1]


def prove(
    folder: Path,
    steps: int,
    kills: int,
    terms: int,
    seed: int,
    call: str = "micro_batch",
    platform: str = "cpu",
) -> bool:
    """The whole experiment; True if the tormented run equals the undisturbed one."""
    names = "calm", "tormented"
    calm, tormented = (Trial(folder / name, steps, call, platform) for name in names)
    seconds = calm.finish(workers=0)
    print(f"undisturbed: {steps} steps in {seconds:.0f} s, all of it\n", flush=True)
    clean = torment(tormented, kills, terms, seed, startup=min(seconds / 2, 10))
    equal = same(calm, tormented)
    print(f"\nverdict: {'bit for bit equal' if equal and clean else 'NOT equal'}")
    return equal and clean


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--terms", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--call", default="micro_batch", choices=("micro_batch", "update"))
    parser.add_argument("--platform", default="cpu", help="cpu, cuda, tpu; '' for what jax finds")
    parser.add_argument("--folder", type=Path, help="keeps the runs here")
    arguments = vars(parser.parse_args())
    with tempfile.TemporaryDirectory(prefix="kill_resume_") as temporary:
        target = arguments.pop("folder") or Path(temporary)
        sys.exit(0 if prove(target, **arguments) else 1)
