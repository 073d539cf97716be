"""Runs a case and judges what it says."""

import os
import runpy
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from experiments.bad_inputs import doors, folders, settings, tolerated
from experiments.bad_inputs.case import ROOT, Case, train
from experiments.bad_inputs.recordings import fill

CASES = [*folders.CASES, *settings.CASES, *doors.CASES, *tolerated.CASES]
TRUE_PROCESSES = ("missing folder", "unknown setting", "predict: wrong channels")


def run_forked(module: str, args: list[str], folder: Path) -> tuple[int, str]:
    """Exit code and stderr of a door in a fork of this process."""
    out, err = folder / "stdout.txt", folder / "stderr.txt"
    sys.stdout.flush()
    child = os.fork()
    if not child:
        for number, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        run_here(module, args)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), err.read_text()


def run_here(module: str, args: list[str]) -> None:
    """Becomes the door; never returns."""
    sys.argv = [module, *args]
    code = 1
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run_process(module: str, args: list[str]) -> tuple[int, str]:
    """Exit code and stderr of a door as the user starts it."""
    done = subprocess.run(
        [sys.executable, "-m", module, *args], cwd=ROOT, capture_output=True, text=True
    )
    return done.returncode, done.stderr


def run_case(case: Case, base: Path, number: int, real: bool) -> tuple[int, list[str], str]:
    """(exit code, lines of the message, what is wrong with them or '')."""
    folder = base / f"case{number}"
    folder.mkdir()
    shutil.copytree(base / "good", folder / "data")
    case.prepare(folder)
    args = [a.replace("{d}", str(folder)) for a in case.args]
    module = f"tds_jax.{case.door}"
    code, stderr = run_process(module, args) if real else run_forked(module, args, folder)
    lines = [line for line in stderr.splitlines() if line.strip()]
    faults = [f"exit {case.code} expected"] if code != case.code else []
    faults += ["traceback"] if "Traceback" in stderr else []
    plain = [line for line in lines if not line.startswith("warning: ")]
    faults += [f"{len(plain)} lines"] if case.code == 2 and len(plain) != 1 else []
    faults += [f"no {s!r}" for s in case.says if s.replace("{d}", str(folder)) not in stderr]
    shutil.rmtree(folder)
    return code, [line.replace(str(folder), "DIR") for line in lines], "; ".join(faults)


def results(base: Path, chosen: str, real: bool) -> Iterator[dict[str, object]]:
    """One entry per case whose name contains `chosen`."""
    fill(base / "good")
    prepared = train("prepare", says=(), code=0)
    (base / "trained").mkdir()
    shutil.copytree(base / "good", base / "trained" / "data")
    args = [a.replace("{d}", str(base / "trained")) for a in prepared.args]
    code, stderr = run_forked("tds_jax.train", args, base / "trained")
    assert code == 0, stderr
    for number, case in enumerate(CASES):
        if chosen in case.name:
            process = real or case.name in TRUE_PROCESSES
            code, lines, fault = run_case(case, base, number, process)
            yield {"input": case.name, "door": case.door, "code": code, "lines": lines,
                   "fault": fault}  # fmt: skip
