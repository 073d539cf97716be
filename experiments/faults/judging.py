"""What is lost: a run that was hurt and has gone on is compared with one that never was."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from experiments.faults.trial import Seen, Trial
from experiments.kill_resume import metrics_digest, numbers, state_leaves

STATE = "state.json"


class Fault(NamedTuple):
    """A row. do: hurts a trial, returns what the user saw. ends: the statuses that are right.

    says: what one of the lines must say. after: what is lost by then, in words; '' is nothing.
    task: what it trains; the engine's own faults take the smallest of all, tests/fourth.
    """

    name: str
    do: Callable[[Trial], Seen]
    after: Callable[[Trial], str]
    ends: tuple[int, ...] = (0,)
    says: str = ""
    task: str = "pose"


class Row(NamedTuple):
    """A line of the table. wrong: why this is no way to end, '' if it is."""

    name: str
    seen: str
    code: int
    seconds: float
    lost: str
    wrong: str


def judge(fault: Fault, trial: Trial) -> Row:
    """Hurts, looks, and goes on."""
    seen = fault.do(trial)
    wrong = [] if seen.code in fault.ends else [f"exit {fault.ends} expected"]
    wrong += [word for word in ("Traceback", "HANGS") if word in seen.text]
    said = " ".join(seen.text.split())  # a table's title may be broken anywhere
    wrong += [] if fault.says in said else [f"does not say {fault.says!r}"]
    lost = fault.after(trial)
    line = seen.last.replace(str(trial.folder), "DIR").replace(str(trial.base), "BASE")
    return Row(fault.name, line, seen.code, seen.seconds, lost, ", ".join(wrong))


def goes_on(trial: Trial) -> str:
    """The same command again, which must end as if nothing had been."""
    seen = finish(trial)
    if seen.code:
        return f"does not go on: {seen.last}"
    return differences(trial)


def finish(trial: Trial) -> Seen:
    """Trains to the end and notes the hash of every array of the newest checkpoint."""

    def note() -> None:
        leaves = state_leaves(trial.run)
        sums = {name: hashlib.sha256(value).hexdigest() for name, value in leaves.items()}
        (trial.folder / STATE).write_text(json.dumps(sums))

    return trial.door("train", trial.flags(), after=note)


def differences(trial: Trial) -> str:
    """What of a finished run is not as in the undisturbed one, and what lies about."""
    calm = trial.calm
    found = [] if _state(trial.folder) == _state(calm.parent) else ["other parameters"]
    if metrics_digest(trial.run) != metrics_digest(calm):
        found.append("other metrics.jsonl")
    if numbers(trial.run) != numbers(calm):
        found.append("other report.json")
    return "; ".join(found + leftovers(trial.folder))


def _state(folder: Path) -> str:
    return (folder / STATE).read_text()


def leftovers(folder: Path) -> list[str]:
    """What half-written things are called."""
    marks = (".tmp", "-tmp", ".building-")
    found = [path for path in folder.rglob("*") if any(mark in path.name for mark in marks)]
    return [f"left behind: {path.name}" for path in found]


def nothing(trial: Trial) -> str:
    """For faults after which nobody goes on."""
    return "; ".join(leftovers(trial.folder))
