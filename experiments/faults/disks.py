"""A disk that is full, and folders that are read-only, when a file is about to be written."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from experiments.faults import hooks
from experiments.faults.hooks import Hook, at_file, before
from experiments.faults.judging import Fault, goes_on, leftovers
from experiments.faults.trial import Seen, Trial

SIZE = "24m"

# What is about to be written -> how to be there just then.
MOMENTS: dict[str, Callable[[hooks.Action], Hook]] = {
    "the lock": lambda act: before("tds_jax.engine.lock:_take", act),
    "config.json": lambda act: at_file("config.json", act),
    "inputs.json": lambda act: at_file("inputs.json", act),
    "history.jsonl": lambda act: before("tds_jax.engine.history:_append", act),
    "the end in history.jsonl": lambda act: before("tds_jax.engine.history:_append", act, 2),
    "metrics.jsonl at its beginning": lambda act: at_file("metrics.jsonl", act),
    "a line of metrics.jsonl": lambda act: before("tds_jax.engine.logs:Log.write", act, 2),
    "a checkpoint": lambda act: before("tds_jax.engine.checkpoint:Checkpoints.save", act, 2),
    "a checkpoint's seal": lambda act: at_file("sums.json", act),
    "a checkpoint's score": lambda act: at_file("metrics", act, 2),
    "a checkpoint's progress": lambda act: at_file("metadata", act),
    "curves.png": lambda act: at_file("curves.png", act),
    "baselines.npz": lambda act: at_file("baselines.npz", act),
    "report.json": lambda act: at_file("report.json", act),
    "report_test.csv": lambda act: at_file("report_test.csv", act),
    "a picture of the report": lambda act: at_file("test_", act),
}
SCARCE = (8, 20, 32, 48)  # KiB left: of a checkpoint's 90, some parts are written as others fail
SHORT = ("the end in history.jsonl",)  # the file's last block may have room for it
OF_POSE = ("baselines.npz", "a picture of the report")


def mounted(trial: Trial) -> Path:
    """A small disk of its own where that is permitted, else a folder."""
    disk = trial.folder / "disk"
    disk.mkdir(exist_ok=True)
    if not os.path.ismount(disk):
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=755", "none", str(disk)]
        subprocess.run(command, capture_output=True, check=False)
    return disk


def unmount(trial: Trial) -> None:
    """Lets go of it."""
    if os.path.ismount(trial.folder / "disk"):
        subprocess.run(["umount", "-l", str(trial.folder / "disk")], check=True)


def _full(what: str, room: int = 0) -> Callable[[Trial], Seen]:
    def do(trial: Trial) -> Seen:
        disk = mounted(trial)
        trial.run = disk / "run"
        return trial.train(MOMENTS[what](hooks.fill_disk(disk, room)))

    return do


def _room(trial: Trial) -> None:
    (trial.folder / "disk" / "ballast").unlink(missing_ok=True)


def _with_room(trial: Trial) -> str:
    _room(trial)
    return goes_on(trial)


def _read_only(what: str) -> Callable[[Trial], Seen]:
    def do(trial: Trial) -> Seen:
        trial.run.mkdir()
        run = trial.run
        act = hooks.forbid(
            run, run / "plots", run / "checkpoints", *run.glob("checkpoints/*"),
            *(run / "checkpoints" / str(n) / part for n in (8, 16) for part in ("", "progress")),
        )  # fmt: skip
        return trial.train(hooks.obey_permissions, MOMENTS[what](act))

    return do


def _writable(trial: Trial) -> str:
    hooks.allow(trial.folder)
    return goes_on(trial)


def _cache(act: str) -> Callable[[Trial], Seen]:
    def do(trial: Trial) -> Seen:
        disk = mounted(trial)
        trial.cache = disk / "cache"
        hook = {
            "full": at_file("index-", hooks.fill_disk(disk)),
            "read-only": hooks.forbid(trial.cache),
        }[act]
        if act == "read-only":
            trial.cache.mkdir()
            return trial.train(hooks.obey_permissions, hook)
        return trial.train(hook)

    return do


def _compiled(setting: str) -> Callable[[Trial], Seen]:
    def do(trial: Trial) -> Seen:
        place = trial.folder / "compiled"
        place.mkdir(mode=0o555)
        trial.settings["memory.compile_cache"] = place if setting == "named" else "auto"
        os.chmod(trial.folder, 0o555)
        trial.run.mkdir()
        return trial.train(hooks.obey_permissions)

    return do


def _compiled_full(trial: Trial) -> Seen:
    disk = mounted(trial)
    trial.settings["memory.compile_cache"] = disk / "compiled"
    return trial.train(before("tds_jax.engine.loop:Program", hooks.fill_disk(disk)))


def _again_without(trial: Trial) -> str:
    hooks.allow(trial.folder)
    trial.settings["memory.compile_cache"] = "off"
    return goes_on(trial)


def _outputs(trial: Trial) -> dict[str, list[str]]:
    out, run = trial.folder / "disk", f"--workdir={trial.calm}"
    good = f"--input={trial.data}"
    return {
        "predict": [run, f"{good}/s1.hdf5", f"--output={out}/out.hdf5"],
        "export": [run, f"--output={out}/model.npz"],
        "prepare": ["--task=pose", good, f"--output={out}/store", "--rate_hz=125"],
        "synthesize": ["--task=pose", f"--output={out}/made", "--users=1", "--sessions=3",
                       "--seconds=2"],
        "evaluate": [f"--workdir={out}/run", "--split=val", f"--json={out}/val.json"],
        "check": ["--task=pose", good, f"--json={out}/check.json"],
    }  # fmt: skip


def _door(name: str, act: str) -> Callable[[Trial], Seen]:
    def do(trial: Trial) -> Seen:
        disk = mounted(trial)
        if name == "evaluate":
            shutil.copytree(trial.calm, disk / "run")
        if act == "full":
            hooks_ = [hooks.fill_disk(disk)]
        else:
            hooks.forbid(disk, disk / "run", disk / "run" / "plots")()
            hooks_ = [hooks.obey_permissions]
        return trial.door(name, _outputs(trial)[name], *hooks_)

    return do


def _door_again(name: str) -> Callable[[Trial], str]:
    def look(trial: Trial) -> str:
        _room(trial)
        hooks.allow(trial.folder)
        seen = trial.door(name, _outputs(trial)[name])
        return "; ".join(leftovers(trial.folder)) if seen.code == 0 else seen.last

    return look


DOORS = ("predict", "export", "prepare", "synthesize", "evaluate", "check")
FAULTS = [
    *(Fault(f"disk full before {what}", _full(what), _with_room,
            *(((0, 2), "") if what in SHORT else ((2,), "No space left")),
            "pose" if what in OF_POSE else "signal") for what in MOMENTS),
    *(Fault(f"disk all but {room} KiB full before a checkpoint",
            _full("a checkpoint", room * 1024), _with_room, (2,), "No space left", "signal")
      for room in SCARCE),
    *(Fault(f"read-only before {what}", _read_only(what), _writable, (0, 2),
            task="pose" if what in OF_POSE else "signal") for what in MOMENTS),
    *(Fault(f"disk full at {door}", _door(door, "full"), _door_again(door), (2,), "No space left")
      for door in DOORS),
    *(Fault(f"read-only output at {door}", _door(door, "read-only"), _door_again(door), (2,),
            "Permission denied") for door in DOORS),
    Fault("cache of the index on a full disk", _cache("full"), _with_room, (0,),
          "cannot be written"),
    Fault("cache of the index read-only", _cache("read-only"), _writable, (0,),
          "cannot be written"),
    Fault("cache of programs read-only, named", _compiled("named"), _again_without, (2,),
          "cannot be written", "signal"),
    Fault("cache of programs read-only, auto", _compiled("auto"), _again_without, (0,),
          "cannot be written", "signal"),
    Fault("cache of programs on a full disk", _compiled_full, _again_without, (0,),
          task="signal"),
]  # fmt: skip
