"""kill -9, SIGTERM, SIGINT and others in every phase of every door that writes."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from experiments.faults.hooks import before, instead, kill_workers, send
from experiments.faults.judging import Fault, goes_on, leftovers
from experiments.faults.trial import Seen, Trial
from tests.interchange.torch_files import Tensor, lightning, write_zip
from tests.test_import_torch import SETTINGS, SHAPES

KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
NAMES = {KILL: "kill -9", TERM: "SIGTERM", INT: "Ctrl-C"}
# Of train: a scheduler's SIGTERM is no failure; after Ctrl-C, `train && predict` goes no further.
ENDS = {KILL: (-9,), TERM: (0,), INT: (130,)}

# Phase -> (function it is in the middle of, its how-manieth call, seconds later).
PHASES = {
    "reading the index": ("tds_jax.data.index:scan_file", 3, 0.0),
    "looking at the data's content": ("tds_jax.engine.workdir:identity.of_files", 1, 0.0),
    "planning": ("tds_jax.budget.settling:Planner.choose", 1, 0.1),
    "compiling": ("tds_jax.engine.loop:Program", 1, 0.05),
    "statistics": ("tds_jax.pose.task:fit_normalizer", 1, 0.0),
    "beginning the log": ("tds_jax.engine.loop:cut_back", 1, 0.0),
    "stepping, half a batch": ("tds_jax.engine.loop:Run.step", 4, 0.0),
    "logging": ("tds_jax.engine.logs:Log.write", 2, 0.0),
    "evaluation": ("tds_jax.engine.evaluation:Loader.eval_batches", 1, 0.0),
    "saving": ("tds_jax.engine.checkpoint:seal.seal", 2, 0.0),
    "adding a score": ("tds_jax.engine.checkpoint:_signed", 4, 0.0),
    "plotting": ("tds_jax.engine.loop:curves.draw_curves", 1, 0.0),
    "final evaluation": ("tds_jax.pose.evaluation:fit_baselines", 1, 0.0),
    "writing the report": ("tds_jax.engine.report:Report.write", 1, 0.0),
}
OF_ENGINE = (
    "planning", "compiling", "beginning the log", "stepping, half a batch", "logging", "evaluation",
    "saving", "adding a score", "plotting", "writing the report",
)  # fmt: skip


def _hit(number: int, phase: str) -> Callable[[Trial], Seen]:
    def do(trial: Trial) -> Seen:
        if phase == "planning":
            trial.settings["memory.budget"] = "1GiB"
        target, call, after = PHASES[phase]
        return trial.train(before(target, send(number, after=after), call))

    return do


def _signals() -> list[Fault]:
    return [
        Fault(f"{NAMES[number]} while {phase}", _hit(number, phase),
              _unplanned if phase == "planning" else goes_on,
              ENDS[number], task="signal" if phase in OF_ENGINE else "pose")
        for phase in PHASES for number in NAMES
    ]  # fmt: skip


def _unplanned(trial: Trial) -> str:
    """No plan was kept; without a budget it is the undisturbed run."""
    del trial.settings["memory.budget"]
    return goes_on(trial)


def _generating(number: int) -> Callable[[Trial], Seen]:
    def do(trial: Trial) -> Seen:
        trial.settings |= {"data.path": "", "data.synthetic_seconds": 5.0}
        return trial.train(before("tds_jax.pose.synthetic:write_session", send(number), 3))

    return do


def _generated(trial: Trial) -> str:
    """The same command goes on; its data are others' than the undisturbed run's."""
    seen = trial.train()
    return "" if seen.code == 0 else f"does not go on: {seen.last}"


def _resuming(number: int) -> Callable[[Trial], Seen]:
    def do(trial: Trial) -> Seen:
        shutil.copytree(trial.home / "half" / "run", trial.run)
        return trial.train(before("tds_jax.engine.loop:workdir.resume", send(number)))

    return do


def _starting(seconds: float) -> Callable[[Trial], Seen]:
    def do(trial: Trial) -> Seen:
        seen = trial.process("train", trial.flags(), kill_after=seconds)
        return seen._replace(text=seen.text or "(nothing)")

    return do


def _twice(*numbers: int, phase: str) -> Callable[[Trial], Seen]:
    def do(trial: Trial) -> Seen:
        target, call, after = PHASES[phase]
        slowly = instead("tds_jax.engine.seal:_sum", _slow)
        return trial.train(slowly, before(target, send(*numbers, after=after), call))

    return do


def _slow(real: Callable) -> Callable:
    import time

    return lambda *args: (time.sleep(0.05), real(*args))[1]


def _workers(act: Callable, call: int) -> Callable[[Trial], Seen]:
    def do(trial: Trial) -> Seen:
        trial.settings["data.workers"] = 1
        return trial.train(before("tds_jax.engine.loop:Run.step", act, call))

    return do


# Door -> (its arguments, function it is in the middle of, its call).
def _doors(trial: Trial) -> dict[str, tuple[str, list[str], str, int]]:
    out, run = trial.folder, f"--workdir={trial.calm}"
    return {
        "predicting": (
            "predict", [run, f"--input={trial.data}/s1.hdf5", f"--output={out}/out.hdf5"],
            "tds_jax.data.hdf5_write:_require_rows", 1,
        ),
        "predicting a folder": (
            # Some of its files are there when it is given again.
            "predict", [run, f"--input={trial.data}", f"--output={out}/out", "--overwrite"],
            "tds_jax.data.hdf5_write:_require_rows", 3,
        ),
        "exporting": (
            "export", [run, f"--output={out}/model.npz"], "tds_jax.interchange.artefact:read", 1,
        ),
        "preparing": (
            "prepare",
            ["--task=pose", f"--input={trial.data}", f"--output={out}/store", "--rate_hz=125"],
            "tds_jax.data.hdf5_write:_require_rows", 3,
        ),
        "synthesizing": (
            "synthesize", ["--task=pose", f"--output={out}/made", "--users=1", "--sessions=3",
                           "--seconds=2"],
            "tds_jax.data.hdf5_write:_require_rows", 2,
        ),
        "importing": (
            "import_torch", [f"--config={_tracking()}", f"--checkpoint={out}/last.ckpt",
                             f"--workdir={out}/imported",
                             *(f"--config.{name}={value}" for name, value in SETTINGS.items())],
            "tds_jax.engine.checkpoint:seal.seal", 1,
        ),
        "evaluating": (
            "evaluate", [f"--workdir={trial.run}", "--split=val"],
            "tds_jax.engine.report:Report.write", 1,
        ),
    }  # fmt: skip


def _tracking() -> Path:
    return Path(__file__).parents[2] / "configs" / "emg2pose_tracking.py"


def _prepare_for(door: str, trial: Trial) -> None:
    if door == "evaluate":
        shutil.copytree(trial.calm, trial.run)
    if door == "import_torch":
        import numpy as np

        tensors = {f"model.{n}": Tensor.of(np.zeros(s, np.float32)) for n, s in SHAPES.items()}
        write_zip(trial.folder / "last.ckpt", lightning(tensors))


def _hit_door(name: str, number: int) -> Callable[[Trial], Seen]:
    def do(trial: Trial) -> Seen:
        door, args, target, call = _doors(trial)[name]
        _prepare_for(door, trial)
        return trial.door(door, args, before(target, send(number), call))

    return do


def _door_again(name: str) -> Callable[[Trial], str]:
    def after(trial: Trial) -> str:
        door, args, _, _ = _doors(trial)[name]
        seen = trial.door(door, args)
        return "; ".join(leftovers(trial.folder)) if not seen.code else f"no end: {seen.last}"

    return after


def _of_doors() -> list[Fault]:
    ends = {KILL: (-9,), TERM: (143,), INT: (130,)}
    names = _doors(Trial(Path(), Path(), "pose"))
    return [
        Fault(f"{NAMES[n]} while {name}", _hit_door(name, n), _door_again(name), ends[n])
        for name in names for n in NAMES
    ]  # fmt: skip


FAULTS = [
    *(Fault(f"kill -9 {s:g} s after the start", _starting(s), goes_on, (-9,)) for s in (0.3, 1.5)),
    *(Fault(f"{NAMES[n]} while generating", _generating(n), _generated,
            ENDS[n]) for n in NAMES),
    *_signals(),
    *(Fault(f"{NAMES[n]} while resuming", _resuming(n), goes_on,
            ENDS[n], task="signal") for n in NAMES),
    Fault("Ctrl-C twice, stepping", _twice(INT, INT, phase="stepping, half a batch"), goes_on,
          (130,), task="signal"),
    Fault("Ctrl-C twice, saving", _twice(INT, INT, phase="saving"), goes_on, (130,),
          task="signal"),
    Fault("Ctrl-C twice, evaluating", _twice(INT, INT, phase="evaluation"), goes_on, (130,),
          task="signal"),
    Fault("SIGTERM twice, stepping", _twice(TERM, TERM, phase="stepping, half a batch"), goes_on,
          task="signal"),
    Fault("SIGTERM, then kill -9", _twice(TERM, KILL, phase="saving"), goes_on, (0, -9),
          task="signal"),
    Fault("terminal closed (SIGHUP), stepping",
          lambda t: t.train(before("tds_jax.engine.loop:Run.step", send(signal.SIGHUP), 4)),
          goes_on, (0, -1), task="signal"),
    Fault("kill -9 with a data worker", _workers(send(KILL), 4), goes_on, (-9,)),
    Fault("kill -9 of the data workers", _workers(kill_workers, 4), goes_on, (0, 1, 2)),
    *_of_doors(),
]  # fmt: skip
