"""One row's folder, and the doors opened in it: each in a fork that does not know what comes."""

import contextlib
import os
import resource
import runpy
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from experiments.faults.hooks import Hook

ROOT = Path(__file__).parents[2]
LIMIT = 150.0  # s; what takes longer hangs
POSE = {
    "model.notch_hz": (), "model.power_samples": (25, 125), "model.groups": (2,),
    "model.hidden": 8, "data.window": 400,
    "data.eval_window": 800, "data.stride": 100, "data.synthetic_users": 1,
    "data.synthetic_sessions": 3, "data.synthetic_seconds": 5.0, "optim.batch_size": 4,
    "optim.accumulate": 2, "optim.steps": 4, "optim.warmup_steps": 1, "eval.every": 2,
    "checkpoint.every": 1, "log.every": 1, "log.plots": False,
}  # fmt: skip
SIGNAL = {
    "model.hidden": 8, "optim.batch_size": 4, "optim.accumulate": 2, "optim.steps": 4,
    "optim.warmup_steps": 1, "eval.every": 2, "checkpoint.every": 1, "log.every": 1,
    "eval.batch_size": 8,
}  # fmt: skip


class Seen(NamedTuple):
    """What a user saw of a door: exit status (-9: killed), all lines, seconds it took."""

    code: int
    text: str
    seconds: float

    @property
    def last(self) -> str:
        """The last line that says something: of errors and warnings, or else of all."""
        lines = [line for line in self.text.splitlines() if line.strip()]
        loud = [line for line in lines if line.startswith(("error:", "warning:"))]
        return (loud or lines or [""])[-1].strip()


class Trial:
    """A folder with a workdir `run`. data: the recordings of task pose.

    home: where undisturbed runs of the same task are.
    """

    def __init__(self, folder: Path, base: Path, task: str) -> None:
        self.folder, self.base, self.task, self.home = folder, base, task, base / task
        self.run, self.data, self.cache = folder / "run", base / "data", folder / "cache"
        self.settings: dict[str, object] = {}
        folder.mkdir(exist_ok=True)

    @property
    def calm(self) -> Path:
        """The workdir of an undisturbed run."""
        return self.home / "calm" / "run"

    def flags(self) -> list[str]:
        """The command line of training."""
        values: dict[str, object] = {"memory.compile_cache": self.base / "compiled"}
        if self.task == "pose":
            config = "configs/emg_hands.py"
            values |= POSE | {"data.path": self.data, "data.cache_dir": self.cache}
        else:
            config = "tests/fourth/config.py"
            values |= SIGNAL
        flags = [f"--config.{name}={value}" for name, value in (values | self.settings).items()]
        return [f"--config={ROOT}/{config}", f"--workdir={self.run}", *flags]

    def train(self, *hooks: Hook) -> Seen:
        """Begins or goes on."""
        return self.door("train", self.flags(), *hooks)

    def door(self, name: str, args: list[str], *hooks: Hook, after: Hook | None = None) -> Seen:
        """Opens a door in a fork and waits. after: called there when it has ended well."""
        with self.opened(name, args, *hooks, after=after) as (child, output):
            return waited(child, output)

    @contextlib.contextmanager
    def opened(
        self, name: str, args: list[str], *hooks: Hook, after: Hook | None = None
    ) -> Iterator[tuple[int, Path]]:
        """(process, file of its output) of a door in a fork, which is killed at the end."""
        number = len(list(self.base.glob("output*")))
        output = self.base / f"output{number}-{os.getpid()}-{time.monotonic_ns()}.txt"
        child = os.fork()
        if not child:
            _become(f"tds_jax.{name}", args, output, hooks, after)
        try:
            yield child, output
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)

    def process(self, name: str, args: list[str], kill_after: float = LIMIT, **more: str) -> Seen:
        """Opens a door as the user does, with other variables in its environment."""
        started = time.monotonic()
        start = [f"tds_jax.{name}"] if self.task == "pose" else ["tests.fourth.door", name]
        command = [sys.executable, "-m", *start, *args]
        child = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | more, text=True, errors="replace",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            text, _ = child.communicate(timeout=kill_after)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            text, _ = child.communicate()
        return Seen(child.returncode, text, time.monotonic() - started)


def waited(child: int, output: Path) -> Seen:
    """What a door in a fork did; status 'hang' is None's."""
    started = time.monotonic()
    while time.monotonic() - started < LIMIT:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            code = os.waitstatus_to_exitcode(status)
            return Seen(code, output.read_text(errors="replace"), time.monotonic() - started)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    text = output.read_text(errors="replace") + f"\nHANGS: no end after {LIMIT:.0f} s"
    return Seen(-signal.SIGKILL, text, LIMIT)


def _become(
    module: str, args: list[str], output: Path, hooks: tuple[Hook, ...], after: Hook | None
) -> None:
    """Never returns."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    where = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(where, 1)
    os.dup2(where, 2)
    warnings.filterwarnings("ignore", module="runpy")  # doors have been imported before
    sys.argv = [module, *args]
    sys.orig_argv = ["python", "-m", module, *args]
    code = 1
    try:
        for hook in hooks:
            hook()
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if after and code == 0:
            after()
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
