"""One process of a run of the toy task: python -m tests.engine.together '{…}'.

Started by `peers` with its number, the devices it has, and what shall happen to it.
"""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.doors import ROOT, environment

SILENCE = 6.0  # s; of the product 30


class OneOf:
    """In place of a process's peers: it has the number it is given, and hears itself alone."""

    def __init__(self, index, count):
        self.index, self.count, self.assembled = index, count, []

    def ask(self, value, of):
        return [value for _ in of]

    def assemble(self, words):
        self.assembled.append(words)


class OfTheFirst(Exception):
    """Something was asked of process 0 (`processes.by_first`)."""

    @classmethod
    def asked(cls, work):
        raise cls


def peers(folder, count, devices=1, **options):
    """Started processes of one run in a folder, each with so many devices; see `main`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    env = environment()
    env["XLA_FLAGS"] += f" --xla_force_host_platform_device_count={devices}"
    asked = {"folder": str(folder), "address": address, "count": count, **options}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.engine.together", json.dumps(asked | {"index": index})],
            cwd=ROOT, env=env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for index in range(count)
    ]  # fmt: skip


def ended(started, seconds=300):
    """(exit status, stdout, stderr) of each."""
    try:
        found = [process.communicate(timeout=seconds) for process in started]
    finally:
        for process in started:
            process.kill()
    return [(p.returncode, *text) for p, text in zip(started, found, strict=True)]


def main():
    """Trains. at: step -> what happens to process `to` there, to all without one: a signal's name,
    'error', or 'memory', which runs out at that call. 'score': of its own, ever better. 'late': it
    comes to the training `at` seconds after the others."""
    import jax
    from absl import flags

    from tds_jax import cli
    from tds_jax.budget import giving_way
    from tds_jax.budget.memory import Exhausted
    from tds_jax.engine import loop, peers, processes, program
    from tds_jax.engine.blueprint import Blueprint
    from tds_jax.engine.peers import Left
    from tds_jax.errors import UserError
    from tests.engine import toy

    asked = json.loads(sys.argv[1])
    folder = Path(asked["folder"])
    processes.SILENCE, processes.GATHERING = SILENCE, asked.get("gathering", 60.0)
    peers.BEAT = 0.5

    what = asked.get("what") if asked.get("to", asked["index"]) == asked["index"] else None
    step, look = loop.Run.step, program.Program.evaluate
    calls, looks = itertools.count(1), itertools.count(1)

    class Harm(loop.Callback):
        """What happens in the midst of a run."""

        def on_update(self, update):
            if update.step == asked.get("at") and what == "error":
                raise UserError("this process alone finds its input wrong")
            if update.step == asked.get("at") and what in signal.Signals.__members__:
                os.kill(os.getpid(), signal.Signals[what])

    def short_of_memory(run, state, batch):
        if next(calls) == asked["at"]:
            raise Exhausted("optim.accumulate")
        return step(run, state, batch)

    def content(ours, state, source):
        return look(ours, state, source) | {"loss": -float(next(looks))}

    if what == "memory":
        loop.Run.step = short_of_memory
    if what == "score":
        program.Program.evaluate = content

    def fit(config):
        jax.devices()  # for which JAX lets all come; nothing later
        if what == "late":
            time.sleep(asked["at"])
        task = toy.ToyTask(**asked.get("task", {}))
        return loop.fit(Blueprint(task, config), folder, [Harm()])

    def train():
        address = (asked["address"], asked["count"], asked["index"])
        processes.start(*address if asked["count"] > 1 else (None, None, None))
        config = toy.config(**asked.get("config", {}))
        with loop.StopSignal() as stop:
            finished, config = giving_way.within_memory(fit, config, lambda config: None)
        del stop
        print(json.dumps(vars(finished) | {"accumulate": config.optim.accumulate}))
        if finished.signal:
            processes.leave(Left(0, "stopped", finished.signal))
            cli.leave(0)

    flags.FLAGS(["together"])
    sys.argv = ["together"]
    cli.launch(train)


if __name__ == "__main__":
    main()
