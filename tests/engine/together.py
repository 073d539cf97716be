"""One process of a run of the toy task: python -m tests.engine.together '{…}'.

Started by `peers` with its number, the devices it has, and what shall happen to it.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SILENCE = 6.0  # s; of the product 30


def peers(folder, count, devices=1, **options):
    """Started processes of one run in a folder, each with so many devices; see `main`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = f"--xla_force_host_platform_device_count={devices}"
    asked = {"folder": str(folder), "address": address, "count": count, **options}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.engine.together", json.dumps(asked | {"index": index})],
            cwd=ROOT, env=os.environ | {"XLA_FLAGS": flags}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for index in range(count)
    ]  # fmt: skip


def ended(started, seconds=100):
    """(exit status, stdout, stderr) of each."""
    try:
        found = [process.communicate(timeout=seconds) for process in started]
    finally:
        for process in started:
            process.kill()
    return [(p.returncode, *text) for p, text in zip(started, found, strict=True)]


def main():
    """Trains. at: step -> what happens to process `to` there: a signal's name, or 'error'."""
    from absl import flags

    from tds_jax import cli
    from tds_jax.engine import loop, peers, processes
    from tds_jax.engine.blueprint import Blueprint
    from tds_jax.engine.peers import Left
    from tds_jax.errors import UserError
    from tests.engine import toy

    asked = json.loads(sys.argv[1])
    folder = Path(asked["folder"])
    processes.SILENCE, processes.GATHERING = SILENCE, asked.get("gathering", 60.0)
    peers.BEAT = 0.5

    class Harm(loop.Callback):
        """What happens in the midst of a run."""

        def on_update(self, update):
            if update.step == asked.get("at") and asked["index"] == asked["to"]:
                if asked["what"] == "error":
                    raise UserError("this process alone finds its input wrong")
                os.kill(os.getpid(), signal.Signals[asked["what"]])

    def train():
        address = (asked["address"], asked["count"], asked["index"])
        processes.start(*address if asked["count"] > 1 else (None, None, None))
        config = toy.config(**asked.get("config", {}))
        with loop.StopSignal() as stop:
            finished = loop.fit(Blueprint(toy.ToyTask(), config), folder, [Harm()])
        del stop
        print(json.dumps(vars(finished)))
        if finished.signal:
            processes.leave(Left(0, "stopped", finished.signal))
            cli.leave(0)

    flags.FLAGS(["together"])
    sys.argv = ["together"]
    cli.launch(train)


if __name__ == "__main__":
    main()
