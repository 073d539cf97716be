"""Other processes on the same workdir, limits on this one, and readers that go away."""

import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable

from experiments.faults.hooks import before, instead, limit
from experiments.faults.judging import Fault, goes_on
from experiments.faults.trial import ROOT, Seen, Trial, waited
from tds_jax.sizes import MIB


def _slowly(real: Callable) -> Callable:
    def step(*args: object) -> object:
        time.sleep(0.2)
        return real(*args)

    return step


def _together(count: int) -> Callable[[Trial], Seen]:
    """One trains, the others are told so; statuses and lines of all."""

    def do(trial: Trial) -> Seen:
        slow = instead("tds_jax.engine.loop:Run.step", _slowly)
        with contextlib.ExitStack() as stack:
            doors = [
                stack.enter_context(trial.opened("train", trial.flags(), slow))
                for _ in range(count)
            ]
            seen = [waited(*door) for door in doors]
        codes = sorted(one.code for one in seen)
        right = codes == [0] + [2] * (count - 1)
        refused = [one for one in seen if one.code]
        words = "\n".join(one.text for one in seen)
        told = all("is being written by process" in one.text for one in refused)
        line = "" if right and told else f"\nerror: statuses {codes}"
        return Seen(0 if right else 1, words + line, max(one.seconds for one in seen))

    return do


def _stale_lock(host: str) -> Callable[[Trial], Seen]:
    def do(trial: Trial) -> Seen:
        trial.run.mkdir()
        (trial.run / ".lock").write_text(json.dumps({"host": host, "process": 1}))
        return trial.train()

    return do


def _limited(kind: int, amount: int) -> Callable[[Trial], Seen]:
    return lambda trial: trial.train(limit(kind, amount))


def _memory(more: int) -> Callable[[Trial], Seen]:
    """So much address space beside what is mapped when training begins."""

    def act() -> None:
        with open("/proc/self/statm") as file:
            mapped = int(file.read().split()[0]) * resource.getpagesize()
        limit(resource.RLIMIT_AS, mapped + more)()

    return lambda trial: trial.train(before("tds_jax.engine.loop:Program", act))


def _head(lines: int) -> Callable[[Trial], Seen]:
    """Its reader reads so many lines and goes."""

    def do(trial: Trial) -> Seen:
        started = time.monotonic()
        command = [sys.executable, "-m", "tests.fourth.door", "train", *trial.flags()]
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as door:
            read = [door.stdout.readline() for _ in range(lines)]
            door.stdout.close()
            told = door.stderr.read()
            code = door.wait()
        return Seen(code, "".join(read) + told, time.monotonic() - started)

    return do


def _closed(*descriptors: int) -> Callable[[Trial], Seen]:
    return lambda trial: trial.train(lambda: [os.close(number) for number in descriptors])


_FAULTS = [
    Fault("two trainers on one workdir", _together(2), goes_on),
    Fault("five trainers on one workdir", _together(5), goes_on),
    Fault("lock of a dead process here", _stale_lock(os.uname().nodename), goes_on),
    Fault("lock of a dead process on another host", _stale_lock("elsewhere"), goes_on),
    *(Fault(f"ulimit -v: {more // MIB} MiB more", _memory(more), goes_on, (0, 2, -6, -11))
      for more in (16 * MIB, 128 * MIB, 512 * MIB)),
    Fault("ulimit -n 40", _limited(resource.RLIMIT_NOFILE, 40), goes_on, (0, 2)),
    Fault("ulimit -t 3 (seconds of CPU)", _limited(resource.RLIMIT_CPU, 3), goes_on, (0, -24)),
    *(Fault(f"reader goes after {n} lines (head -{n})", _head(n), goes_on) for n in (0, 1, 3)),
    Fault("no stdin", _closed(0), goes_on),
]  # fmt: skip
FAULTS = [fault._replace(task="signal") for fault in _FAULTS]
