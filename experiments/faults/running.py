"""Runs the faults, as many at once as there are processes for them."""

import importlib
import multiprocessing
import shutil
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib.figure

from experiments.bad_inputs.recordings import fill
from experiments.faults import cgroups, checkpoints, company, data, disks, places, signals
from experiments.faults.hooks import before, send
from experiments.faults.judging import Row, finish, judge
from experiments.faults.trial import Trial

GROUPS = {
    "signals": signals.FAULTS,
    "checkpoints": checkpoints.FAULTS,
    "disks": disks.FAULTS,
    "data": data.FAULTS,
    "places": places.FAULTS,
    "company": company.FAULTS,
    "cgroups": cgroups.FAULTS,
}
FAULTS = [(group, fault) for group, faults in GROUPS.items() for fault in faults]


def load() -> None:
    """Imports once for all forks what doors import; jax is not started."""
    modules = (
        "tds_jax.evaluate", "tds_jax.engine.loop", "tds_jax.budget.settling",
        "tds_jax.budget.giving_way", "tds_jax.pose.task", "tds_jax.pose.evaluation",
        "tds_jax.pose.prediction", "tds_jax.pose.export", "tds_jax.pose.prepare",
        "tds_jax.pose.checking", "tds_jax.interchange.artefact", "matplotlib.figure",
        "matplotlib.backends.backend_agg", "tests.fourth.door",
    )  # fmt: skip
    for module in modules:
        importlib.import_module(module)
    matplotlib.figure.Figure.draw = _blank


def _blank(figure: Any, renderer: Any) -> None:
    """Pictures are written, but drawing them is not what is hurt, and takes a third of a run."""


def begin(base: Path) -> None:
    """The data, an undisturbed run and one that was stopped in its middle."""
    fill(base / "data")
    for task in ("pose", "signal"):
        (base / task).mkdir()
        calm = finish(Trial(base / task / "calm", base, task))
        assert calm.code == 0, calm.text
        half = Trial(base / task / "half", base, task)
        stopped = half.train(before("tds_jax.engine.loop:Run.step", send(signals.TERM), 6))
        assert stopped.code == 0, stopped.text
        assert len(list((half.run / "checkpoints").iterdir())) > 1, stopped.text


def rows(base: Path, chosen: str, jobs: int) -> Iterator[Row]:
    """A row for every fault whose 'group: name' contains `chosen`."""
    numbers = [i for i, (group, fault) in enumerate(FAULTS) if chosen in f"{group}: {fault.name}"]
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(jobs, mp_context=fork) as pool:
        yield from pool.map(_row, numbers, [base] * len(numbers))


def _row(number: int, base: Path) -> Row:
    _, fault = FAULTS[number]
    trial = Trial(base / f"fault{number}", base, fault.task)
    try:
        return judge(fault, trial)
    # One fault that surprises the campaign itself does not hide the others.
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        words = f"{error!r} in {Path(at.filename).name}:{at.lineno}"
        return Row(fault.name, words, 1, 0.0, "", "the campaign failed")
    finally:
        disks.unmount(trial)
        shutil.rmtree(trial.folder, ignore_errors=True)
