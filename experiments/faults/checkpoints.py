"""What has happened to the files of a run that was stopped in its middle."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from experiments.faults.hooks import remove
from experiments.faults.judging import STATE, Fault, differences, finish, goes_on
from experiments.faults.trial import Seen, Trial


def truncate(path: Path) -> None:
    """Half of it."""
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """One bit in its middle."""
    content = bytearray(path.read_bytes() or b"\n")
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    """No bytes."""
    path.write_bytes(b"")


HURTS = {"deleted": remove, "truncated": truncate, "flipped by a bit": flip}
IN_CHECKPOINT = (
    "state/d/*", "state/manifest.ocdbt", "state/_METADATA", "state/_sharding",
    "progress/metadata", "sums.json", "_CHECKPOINT_METADATA",
)  # fmt: skip
IN_RUN = ("config.json", "inputs.json", "metrics.jsonl", "history.jsonl", ".lock")


def positions(run: Path) -> list[int]:
    """Of its checkpoints, the newest first."""
    names = (path.name for path in (run / "checkpoints").iterdir())
    return sorted((int(name) for name in names if name.isdigit()), reverse=True)


def newest(run: Path) -> Path:
    """The folder of its newest checkpoint."""
    return run / "checkpoints" / str(positions(run)[0])


def hurt(act: Callable[[Path], object], source: str = "half") -> Callable[[Trial], Seen]:
    """A copy of a run, hurt, goes on."""

    def do(trial: Trial) -> Seen:
        shutil.copytree(trial.home / source / "run", trial.run)
        act(trial.run)
        return finish(trial)

    return do


def after(name: str = "", source: str = "half") -> Callable[[Trial], str]:
    """Where the run was refused, it goes on once the file is as it was."""

    def look(trial: Trial) -> str:
        if (trial.folder / STATE).exists():
            return differences(trial)
        shutil.copy2(trial.home / source / "run" / name, trial.run / name)
        return goes_on(trial)

    return look


def _without_log(trial: Trial) -> str:
    """Lines that a user has deleted are not made again; all else is."""
    found = after("metrics.jsonl")(trial)
    return found.replace("other metrics.jsonl", "").strip("; ")


def _in_checkpoint(pattern: str, act: Callable[[Path], object]) -> Callable[[Path], object]:
    def change(run: Path) -> None:
        files = sorted(newest(run).glob(pattern), key=lambda path: path.stat().st_size)
        act(files[-1])

    return change


def _scored(act: Callable[[Path], object]) -> Callable[[Path], object]:
    """Its best checkpoint's score."""

    def change(run: Path) -> None:
        act(next((run / "checkpoints").glob("*/metrics/metrics")))

    return change


def _all(act: Callable[[Path], object]) -> Callable[[Path], object]:
    def change(run: Path) -> None:
        for position in positions(run):
            act(run / "checkpoints" / str(position) / "state" / "manifest.ocdbt")

    return change


def _refused(trial: Trial) -> str:
    """With the checkpoints as they were, the run goes on."""
    shutil.rmtree(trial.run)
    shutil.copytree(trial.home / "half" / "run", trial.run)
    return goes_on(trial)


def _between(run: Path) -> None:
    """A half-written checkpoint of a killed writer."""
    shutil.copytree(newest(run), run / "checkpoints" / "16.orbax-checkpoint-tmp-1")


def _foreign(run: Path) -> None:
    (run / "checkpoints" / "notes.txt").write_text("mine")
    (run / "checkpoints" / "old").mkdir()


def _moved(trial: Trial) -> Seen:
    shutil.copytree(trial.home / "half" / "run", trial.folder / "elsewhere" / "run")
    trial.run = trial.folder / "elsewhere" / "run"
    return finish(trial)


def _linked(trial: Trial) -> Seen:
    shutil.copytree(trial.home / "half" / "run", trial.folder / "true")
    trial.run.symlink_to(trial.folder / "true")
    return finish(trial)


_FAULTS = [
    *(Fault(f"newest checkpoint: {pattern} {words}", hurt(_in_checkpoint(pattern, act)), after())
      for pattern in IN_CHECKPOINT for words, act in HURTS.items()),
    *(Fault(f"best checkpoint's score {words}", hurt(_scored(act)), after())
      for words, act in HURTS.items()),
    Fault("newest checkpoint deleted", hurt(lambda run: remove(newest(run))), after()),
    Fault("newest checkpoint empty", hurt(lambda run: (remove(newest(run)), newest(run).parent
          .joinpath("12").mkdir())), after()),
    Fault("every checkpoint truncated", hurt(_all(truncate)), _refused, (2,), "is whole"),
    Fault("checkpoints/ deleted", hurt(lambda run: remove(run / "checkpoints")), after()),
    Fault("half-written checkpoint lies there", hurt(_between), after()),
    Fault("other files in checkpoints/", hurt(_foreign), after()),
    *(Fault(f"{name} {words}", hurt(lambda run, n=name, a=act: a(run / n)),
            _without_log if name == "metrics.jsonl" else after(name), (0, 2))
      for name in IN_RUN for words, act in {**HURTS, "emptied": empty}.items()
      if name != ".lock" or act is not truncate),
    *(Fault(f"after the end: {name} {words}",
            hurt(lambda run, n=name, a=act: a(run / n), "calm"), after(name, "calm"), (0, 2))
      for name in ("report.json", "report_test.csv") for words, act in HURTS.items()),
    Fault("workdir moved", _moved, after()),
    Fault("workdir is a link", _linked, after()),
]  # fmt: skip
FAULTS = [
    *(Fault(f"after the end: baselines.npz {words}",
            hurt(lambda run, a=act: a(run / "baselines.npz"), "calm"),
            after("baselines.npz", "calm"), (0, 2))
      for words, act in HURTS.items()),
    *(fault._replace(task="signal") for fault in _FAULTS),
]  # fmt: skip
