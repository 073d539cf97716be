"""Where numbers go while a run lasts: metrics.jsonl, the console, loggers; process 0 only.

metrics.jsonl has one object a line: step (optimizer steps planned so far), examples, split, then
name -> value. Names under perf/ depend on the machine; everything else repeats exactly when a run
is repeated or interrupted.
"""

import contextlib
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from tds_jax import progress
from tds_jax.config import Config
from tds_jax.data import json_file
from tds_jax.data.whole_file import DAMAGED, naming, set_aside, whole_file
from tds_jax.engine import loggers, processes

Line = dict[str, Any]
KEYS = ("step", "examples", "split")  # of every line


def read_lines(path: Path) -> list[Line]:
    """The lines of a metrics.jsonl; those that cannot be read are left out."""
    return json_file.read_lines(path, ("step", "split"))[0]


def cut_back(path: Path, examples: int, evaluated: int) -> str:
    """Drops what was logged after the restored position; the run will write it again.

    evaluated: the last position of which a score was saved; later evaluations come again. Returns
    words on damaged lines, '' without any: a copy of the file that has them is kept.
    """
    last = {"train": examples}
    lines, damaged = json_file.read_lines(path, KEYS)
    kept = [line for line in lines if line["examples"] <= last.get(line["split"], evaluated)]
    words = ""
    if damaged:
        place = set_aside(path, path.parent / DAMAGED)
        words = f"warning: {damaged} lines of {path} cannot be read; it is kept as {place}"
    with whole_file(path) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
    return words


class _Console(Console):
    """A console whose reader may go (`| head`): the run is then told to stop, and saves."""

    def on_broken_pipe(self) -> None:
        """Nothing is printed any more."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        signal.raise_signal(signal.SIGTERM)


class Log:
    """Writes lines as they come and shows progress; a context manager.

    describe: values -> the few words a person watches. On a terminal one live bar with the time
    remaining; elsewhere one printed line per log line, with the time of day, examples per second
    and the time remaining.
    """

    def __init__(self, workdir: Path, config: Config, describe: Callable[[Line], str]) -> None:
        self._main = processes.first()
        self.path = workdir / "metrics.jsonl"
        self.console = _Console(quiet=not self._main, soft_wrap=True, highlight=False)
        self._describe = describe
        self._total, self._batch_size = config.optim.steps, config.optim.batch_size
        self._config = config
        self._loggers: list[loggers.Logger] = []
        self._progress = _step_bar(self.console)
        self._bar = self._progress.add_task("", total=self._total, words="")

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.console.is_terminal:  # elsewhere rich would print an empty line
            self._progress.stop()
        for logger in self._loggers:
            logger.close()

    def begin(self, step: int) -> None:
        """Starts the bar, and the curves of loggers, at a step."""
        self._progress.reset(self._bar, total=self._total, completed=step)
        if self._main:
            self._loggers = loggers.opened(self.path.parent, self._config, step)

    @contextlib.contextmanager
    def working(self, words: str) -> Iterator[None]:
        """Inside, something other than a step goes on; says so."""
        if not self.console.is_terminal:
            with progress.working(words) if self._main else contextlib.nullcontext():
                yield
            return
        before = self._progress.tasks[0].fields["words"]
        self._progress.update(self._bar, words=words)
        yield
        self._progress.update(self._bar, words=before)

    def say(self, text: str) -> None:
        """One plain line for the person watching."""
        self.console.print(text, markup=False)

    def write(self, line: Line) -> None:
        """Appends a line and shows it. Not-a-number values are stored as null."""
        if not self._main:
            return
        stamped = line | {"perf/time": round(time.time(), 2)}
        with naming(self.path), self.path.open("a") as file:
            file.write(json.dumps({k: _finite(v) for k, v in stamped.items()}) + "\n")
        self._show(line)
        values = {
            f"{line['split']}/{name}": value
            for name, value in line.items()
            if name not in KEYS and isinstance(value, int | float) and math.isfinite(value)
        }
        for logger in self._loggers:
            logger.log(line["step"], values)

    def _show(self, line: Line) -> None:
        words = self._describe(line)
        if self.console.is_terminal and line["split"] == "train":
            self._progress.update(self._bar, completed=line["step"], words=words)
        else:
            clock = time.strftime("%H:%M:%S")
            place = f"{line['split']:>5} {line['step']:>6}/{self._total}"
            self.say(f"{clock} {place}  {words}{self._pace(line)}")

    def _pace(self, line: Line) -> str:
        """Examples per second, and at this speed the time until the last step."""
        speed = line.get("perf/samples_per_s")
        if not speed:
            return ""
        seconds = (self._total - line["step"]) * self._batch_size / speed
        return f"  {speed:.3g}/s  ETA {progress.span(seconds)}"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _step_bar(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("step"),
        MofNCompleteColumn(),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[words]}"),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=console,
        auto_refresh=True,
    )


def series(lines: list[Line], split: str) -> Iterator[tuple[str, list[int], list[float]]]:
    """(name, steps, values) of every logged number of a split, perf/ left out."""
    chosen = [line for line in lines if line["split"] == split]
    names = dict.fromkeys(name for line in chosen for name in line)
    for name in names:
        if name in KEYS or name.startswith("perf/"):
            continue
        points = [(ln["step"], ln[name]) for ln in chosen if ln.get(name) is not None]
        if points:
            steps, values = zip(*points, strict=True)
            yield name, list(steps), list(values)
