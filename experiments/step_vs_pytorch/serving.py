"""A side in a process of its own: the child that makes steps, and what its parent knows of it.

python -m experiments.step_vs_pytorch.serving KIND BATCH CORES
"""

import functools
import importlib
import json
import os
import subprocess
import sys
import time

from experiments import resident

KINDS = {
    "torch": ("torch_side", {}),
    "compile": ("torch_side", {"compiled": True}),
    "jax": ("jax_side", {}),
}
BURST = 4  # calls in a row, as steps follow on each other in training


def peak_of(step):
    """Peak resident set of one step, in bytes, what is held all the time included."""
    step()
    resident.forget_peak()
    step()
    return resident.peak()


def serve(kind, batch, cores):
    """The child: answers each line that names a task with its seconds, of the clock and of CPU."""
    if cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    module, options = KINDS[kind]
    side = importlib.import_module(f"experiments.step_vs_pytorch.{module}")
    held = resident.now()
    answer = functools.partial(print, file=os.fdopen(os.dup(1), "w"), flush=True)
    os.dup2(2, 1)  # whatever libraries print goes elsewhere
    step, others, facts = side.prepare(batch, **options)
    facts["peak"] = peak_of(step) - held
    tasks = {"step": step} | others()
    for task in tasks.values():
        task()
    answer(json.dumps(facts | {"tasks": list(tasks)}))
    for line in sys.stdin:
        started, cpu = time.perf_counter(), time.process_time()
        tasks[line.strip()]()
        answer(time.perf_counter() - started, time.process_time() - cpu)


class Side:
    """A child process, and the seconds of what it was asked to do."""

    def __init__(self, kind, environment, batch, cores):
        command = [sys.executable, "-m", __spec__.name, kind, str(batch), str(cores)]
        self.child = subprocess.Popen(
            command,
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.facts = json.loads(self.child.stdout.readline())
        self.seconds = {task: [] for task in self.facts["tasks"]}
        self.cpu = []

    def run(self, task):
        """A burst; its first call finds memory as the other sides left it and does not count."""
        for n in range(BURST):
            self.child.stdin.write(f"{task}\n")
            self.child.stdin.flush()
            seconds, cpu = map(float, self.child.stdout.readline().split())
            if n:
                self.seconds[task].append(seconds)
            if n and task == "step":
                self.cpu.append(cpu)

    def best(self, task):
        """The least seconds of a task."""
        return min(self.seconds[task])


if __name__ == "__main__":
    serve(sys.argv[1], *map(int, sys.argv[2:]))
