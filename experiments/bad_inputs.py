"""What does a user get for a bad input? Runs every door on broken data, files and settings.

    python -m experiments.bad_inputs [--json=FILE]

Prints input, exit code and the lines on stderr. Exit code 2 must come with exactly one line, beside
warnings about what was skipped, which names the thing, its value, what was expected and the fix;
never a traceback. Runs that can go on say what they skipped and exit 0. Ends with exit code 1 if
any case differs from that. Cases run in forks of one process that has imported jax but not started
it, which saves ~5 s each; TRUE_PROCESSES of them run as the user would.
"""

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np

ROOT = Path(__file__).parents[1]
CONFIG = str(ROOT / "configs" / "emg_hands.py")
GROUP, RATE, CHANNELS, JOINTS, ROWS = "emg2pose", 250.0, 8, 5, 3000
TRUE_PROCESSES = ("missing folder", "unknown setting", "predict: wrong channels")
# A few steps of the smallest network that is still the real one.
SMALL = {
    "model.groups": (2,), "model.hidden": 8, "data.window": 400, "data.eval_window": 800,
    "data.synthetic_seconds": 5.0, "optim.batch_size": 4, "optim.steps": 2,
    "optim.warmup_steps": 1, "eval.every": 0, "log.plots": False,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
    """One command. prepare: folder -> changes it. args: after the door; {d} is the case's folder.

    says: texts the message must contain. code: expected exit code. small: begin with SMALL.
    """

    name: str
    door: str
    args: tuple[str, ...]
    says: tuple[str, ...]
    prepare: Callable[[Path], object] = lambda folder: None
    code: int = 2


def good_rows(seed: int, rows: int = ROWS, channels: int = CHANNELS) -> np.ndarray:
    """Rows of a usable session."""
    kind = [("time", "<f8"), ("joint_angles", "<f4", (JOINTS,)), ("emg", "<f4", (channels,))]
    found = np.zeros(rows, kind)
    rng = np.random.default_rng(seed)
    found["time"] = np.arange(rows) / RATE
    found["joint_angles"] = rng.uniform(0.1, 1, (rows, JOINTS))
    found["emg"] = rng.normal(size=(rows, channels))
    return found


def write(
    path: Path,
    rows: np.ndarray,
    group: str = GROUP,
    dataset: str = "timeseries",
    rate: float | str = RATE,
) -> None:
    """One session file; its session name is the file's."""
    with h5py.File(path, "w") as file:
        node = file.create_group(group)
        node.create_dataset(dataset, data=rows)
        node.attrs.update({"sample_rate": rate, "session": path.stem})


def fill(folder: Path, sessions: int = 6) -> Path:
    """A good folder of sessions s0.hdf5, s1.hdf5, …"""
    folder.mkdir(parents=True)
    for i in range(sessions):
        write(folder / f"s{i}.hdf5", good_rows(i))
    return folder


def put(field: str, value: float, *where: object) -> Callable[[Path], None]:
    """A change of s1.hdf5: field[where] = value."""

    def change(folder: Path) -> None:
        rows = good_rows(1)
        rows[field][where] = value
        write(folder / "data" / "s1.hdf5", rows)

    return change


def without(*fields: str) -> Callable[[Path], None]:
    """A change of s1.hdf5: fields left out."""

    def change(folder: Path) -> None:
        rows = good_rows(1)
        kept = [name for name in rows.dtype.names if name not in fields]
        kind = [(name, rows.dtype[name]) for name in kept]
        fewer = np.zeros(len(rows), kind)
        for name in kept:
            fewer[name] = rows[name]
        write(folder / "data" / "s1.hdf5", fewer)

    return change


def session(**changes: object) -> Callable[[Path], None]:
    """s1.hdf5 written with other `write` arguments."""
    return lambda folder: write(folder / "data" / "s1.hdf5", **({"rows": good_rows(1)} | changes))


def text(name: str, content: str) -> Callable[[Path], object]:
    """A text file."""
    return lambda folder: (folder / name).write_text(content)


def truncate(folder: Path) -> None:
    """Half of s1.hdf5."""
    path = folder / "data" / "s1.hdf5"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(folder: Path) -> None:
    """A folder without a file."""
    shutil.rmtree(folder / "data")
    (folder / "data").mkdir()


def all_failed(folder: Path) -> None:
    """No session has a label."""
    for i in range(6):
        rows = good_rows(i)
        rows["joint_angles"] = 0
        write(folder / "data" / f"s{i}.hdf5", rows)


def no_labels(folder: Path) -> None:
    """A recording to predict for, EMG and time only."""
    rows = good_rows(1)
    fewer = np.zeros(len(rows), [("time", "<f8"), ("emg", "<f4", (CHANNELS,))])
    fewer["time"], fewer["emg"] = rows["time"], rows["emg"]
    write(folder / "emg.hdf5", fewer)


def recording(**changes: object) -> Callable[[Path], None]:
    """x.hdf5 to predict for."""
    return lambda folder: write(folder / "x.hdf5", **({"rows": good_rows(9)} | changes))


def train(name: str, *extra: str, says: tuple[str, ...], **rest: object) -> Case:
    """A case of the train door on {d}/data; the flags in `extra` win."""
    flags = [f"--config.{key}={value}" for key, value in SMALL.items()]
    base = (f"--config={CONFIG}", "--workdir={d}/run", "--config.data.path={d}/data",
            "--config.data.cache_dir={d}/cache")  # fmt: skip
    return Case(name, "train", (*base, *flags, *extra), says, **rest)


def setting(name: str, value: object, *says: str) -> Case:
    """A case of one wrong setting; the message names it and its value."""
    flag = f"--config.{name}={value}"
    return train(f"{name}={value}", flag, says=(f"{name}={value}", *says))


def choice(name: str, value: str, *says: str) -> Case:
    """The same for a word, which the message may quote."""
    flag = f"--config.{name}={value}"
    return train(f"{name}={value}", flag, says=(f"{name}=", value, *says))


def predict(name: str, *args: str, says: tuple[str, ...], **rest: object) -> Case:
    """A case of the predict door on the trained run."""
    return Case(
        f"predict: {name}", "predict", ("--workdir={d}/../trained/run", *args), says, **rest
    )


CASES = [
    # the data folder
    train("missing folder", "--config.data.path={d}/nowhere",
          says=("data.path={d}/nowhere", "no such folder", "check")),
    train("a file as folder", "--config.data.path={d}/data/s0.hdf5",
          says=("data.path={d}/data/s0.hdf5 is a file", "give the folder")),
    train("empty folder", prepare=empty, says=("data.path={d}/data", "no session files", "give")),
    train("mixed rates", prepare=session(rate=500.0),
          says=("sample rate (Hz)", "s0.hdf5 has 250, s1.hdf5 has 500", "separate folders")),
    train("mixed channel counts", prepare=session(rows=good_rows(1, channels=16)),
          says=("EMG channels", "s0.hdf5 has 8, s1.hdf5 has 16", "separate folders")),
    train("all labels failed", prepare=all_failed,
          says=("none of the 6 sessions is usable", "no row has valid joint angles")),
    train("every session too short", "--config.data.window=3500", "--config.data.eval_window=3500",
          says=("none of the 6 sessions is usable", "3000 samples", "window of 3500", "lower")),
    train("more bad files than allowed", "--config.data.max_bad_sessions=0", prepare=truncate,
          says=("data.max_bad_sessions=0", "s1.hdf5: truncated", "copy or download")),
    train("one session only", prepare=lambda d: [os.remove(d / "data" / f"s{i}.hdf5")
                                                 for i in range(1, 6)],
          says=("the test split has no session", "data.split_ratio")),
    train("metadata names a missing file",
          prepare=text("data/metadata.csv", "filename,split\ns0,train\ns77,val\n"),
          says=("metadata.csv", "1 of 2 named files", "s77", "remove their rows")),
    train("metadata without a split column", prepare=text("data/metadata.csv", "filename\ns0\n"),
          says=("metadata.csv", "missing column split", "found ['filename']", "add it")),
    train("metadata with an unknown split",
          prepare=text("data/metadata.csv", "filename,split\ns0,dev\n"),
          says=("line 2 has split 'dev'", "train, val, test", "correct it")),
    # settings
    train("unknown setting", "--config.optim.learning_rat=1",
          says=("--config.optim.learning_rat is not a setting", "did you mean learning_rate")),
    train("wrong type", "--config.optim.steps=many", says=("optim.steps=many", "whole number")),
    train("not numbers", "--config.model.widths=a", says=("model.widths", "'a'", "int")),
    train("not a tuple", "--config.data.split_ratio=(1,", says=("split_ratio=(1,", "tuple")),
    train("not a number", "--config.optim.learning_rate=fast",
          says=("optim.learning_rate=fast", "use a number")),
    train("a group as setting", "--config.optim=1", says=("--config.optim=1", "settings")),
    train("unknown group", "--config.optimm.steps=1", says=("optimm.steps", "did you mean optim")),
    choice("optim.optimizer", "lion", "adam, adamw, sgd"),
    setting("optim.batch_size", 0, "use 1 or more"),
    setting("model.dropout", 1.5, "0 to 0.95"),
    choice("memory.remat", "all", "none, dots, names, full"),
    train("eval.metric=accuracy", "--config.eval.metric=accuracy", "--config.eval.every=1",
          says=("eval.metric='accuracy'", "loss, mae_rad")),
    choice("data.jitter", "maybe", "True or False"),
    setting("data.workers", -1, "use 0 to 256"),
    train("batch not divisible", "--config.optim.accumulate=3",
          says=("optim.batch_size=4", "optim.accumulate=3", "use 3 or 6")),
    train("split ratio that is not 1", "--config.data.split_ratio=(0.5, 0.5, 0.5)",
          says=("data.split_ratio=(0.5, 0.5, 0.5)", "add up to 1")),
    train("split ratio of two", "--config.data.split_ratio=(0.5, 0.5)", says=("data.split_ratio",)),
    train("negative split ratio", "--config.data.split_ratio=(1.2, -0.1, -0.1)",
          says=("data.split_ratio=(1.2, -0.1, -0.1)", "none negative")),
    train("rollout rate that does not fit", "--config.model.rollout_freq=40",
          says=("model.rollout_freq=40", "250", "for example rollout_freq=50")),
    train("window inside the receptive field", "--config.data.window=20",
          says=("data.window=20", "receptive field of", "longer window")),
    train("... reference_rate", "--config.data.window=20", "--config.model.reference_rate=True",
          says=("data.window=20", "receptive field of", "longer window")),
    train("stages of different lengths", "--config.model.widths=(8, 8)",
          says=("model", "widths: 2", "groups: 1", "one entry per stage")),
    train("channels not divisible into groups", "--config.model.widths=(0,)",
          says=("model.widths=0", "use 1 or more")),
    Case("missing config file", "train", ("--config={d}/none.py",),
         ("--config={d}/none.py", "No such file", "check the path")),
    Case("config file that fails", "train", ("--config={d}/bad.py",), ("bad.py", "SyntaxError"),
         prepare=text("bad.py", "def get_config(:\n")),
    Case("no config", "train", (), ("--config is missing", "--help")),
    Case("stray word", "train", (f"--config={CONFIG}", "steps=3"), ("'steps=3'", "--config.")),
    Case("help", "train", ("--help",), (), code=0),
    train("workdir is a file", "--workdir={d}/notes.txt", prepare=text("notes.txt", ""),
          says=("--workdir={d}/notes.txt", "folder")),
    train("workdir of another config", "--workdir={d}/../trained/run", "--config.seed=7",
          says=("seed: 0 -> 7", "another --workdir")),
    # evaluate, predict, plan, synthesize
    Case("evaluate: empty workdir", "evaluate", ("--workdir={d}",),
         ("--workdir={d}", "config.json", "give a folder that train wrote")),
    Case("evaluate: no checkpoint yet", "evaluate", ("--workdir={d}/run",),
         ("--workdir={d}/run", "no checkpoint", "train first"),
         prepare=lambda d: ((d / "run").mkdir(), *(shutil.copy(
             d.parent / "trained" / "run" / name, d / "run")
             for name in ("config.json", "inputs.json")))),
    Case("evaluate: unknown split", "evaluate", ("--workdir={d}/../trained/run", "--split=dev"),
         ("--split='dev'", "train, val, test")),
    Case("evaluate: no --workdir", "evaluate", (), ("--workdir is missing", "--help")),
    Case("evaluate: --json nowhere", "evaluate",
         ("--workdir={d}/../trained/run", "--json={d}/no/a.json"),
         ("--json={d}/no/a.json", "folder")),
    predict("missing file", "--input={d}/no.hdf5", "--output={d}/o.hdf5",
            says=("--input={d}/no.hdf5", "no such file")),
    predict("not HDF5", "--input={d}/a.hdf5", "--output={d}/o.hdf5", prepare=text("a.hdf5", "hi"),
            says=("a.hdf5: not an HDF5 file", "replace")),
    predict("wrong channels", "--input={d}/x.hdf5", "--output={d}/o.hdf5",
            prepare=recording(rows=good_rows(9, channels=4)),
            says=("x.hdf5 has 4 EMG channels", "8", "give")),
    predict("wrong rate", "--input={d}/x.hdf5", "--output={d}/o.hdf5",
            prepare=recording(rate=500.0), says=("x.hdf5 has 500", "250", "resample")),
    predict("too short", "--input={d}/x.hdf5", "--output={d}/o.hdf5",
            prepare=recording(rows=good_rows(9, rows=5)),
            says=("x.hdf5 has 5 samples", "receptive field", "longer")),
    predict("no emg field", "--input={d}/x.hdf5", "--output={d}/o.hdf5",
            prepare=recording(rows=np.zeros(900, [("time", "<f8")])),
            says=("x.hdf5: field 'emg' is missing", "['time']")),
    predict("other group", "--input={d}/x.hdf5", "--output={d}/o.hdf5",
            prepare=recording(group="mine"), says=("group 'emg2pose' is missing", "['mine']")),
    predict("output equals input", "--input={d}/x.hdf5", "--output={d}/x.hdf5",
            prepare=recording(), says=("--output={d}/x.hdf5 is the input", "another")),
    predict("output under a file", "--input={d}/x.hdf5", "--output={d}/x.hdf5/o.hdf5",
            prepare=recording(), says=("--output={d}/x.hdf5/o.hdf5", "folder")),
    predict("folder to a file", "--input={d}/data", "--output={d}/x.hdf5",
            prepare=recording(), says=("--output={d}/x.hdf5", "another folder")),
    predict("folder without recordings", "--input={d}", "--output={d}/o",
            says=("--input={d} holds no .hdf5 or .h5 file",)),
    Case("plan: unknown remat", "plan", (f"--config={CONFIG}", "--config.memory.remat=some"),
         ("memory.remat='some'", "none, dots, names, full")),
    Case("synthesize: too few sessions", "synthesize",
         ("--task=pose", "--output={d}/o", "--sessions=2"),
         ("sessions=2", "3")),
    Case("synthesize: folder in use", "synthesize", ("--task=pose", "--output={d}/data",),
         ("{d}/data exists", "another folder")),
    # what training goes on with: counted warnings, exit 0
    train("truncated file", prepare=truncate, code=0, says=("s1.hdf5: truncated HDF5 file",)),
    train("not HDF5", prepare=text("data/s1.hdf5", "hi"), code=0, says=("s1.hdf5: not an HDF5",)),
    train("missing group", prepare=session(group="mine"), code=0,
          says=("s1.hdf5: group 'emg2pose' is missing", "set data.group")),
    train("missing dataset", prepare=session(dataset="series"), code=0,
          says=("s1.hdf5: dataset emg2pose/timeseries is missing", "['series']")),
    train("missing field", prepare=without("joint_angles"), code=0,
          says=("s1.hdf5: field 'joint_angles' is missing", "rename")),
    train("one session too short", prepare=session(rows=good_rows(1, rows=300)), code=0,
          says=("s1.hdf5: 300 samples", "window of 400")),
    train("time runs backwards", prepare=put("time", 0.0, 2000), code=0,
          says=("s1.hdf5: time runs backwards at row 2000", "sort")),
    train("NaN and Inf in EMG", prepare=put("emg", np.nan, slice(100, 110), 2), code=0,
          says=("s1.hdf5: 10 of 3000 rows have NaN or Inf in emg",)),
    train("NaN in labels", prepare=put("joint_angles", np.inf, slice(100, 107), 2), code=0,
          says=("s1.hdf5: 0 of 3000", "7 in joint_angles", "weight 0")),
    train("labels failed in one session", prepare=put("joint_angles", 0, slice(None)), code=0,
          says=("s1.hdf5: no row has valid joint angles", "leave the file out")),
    train("files that metadata does not name", code=0,
          prepare=text("data/metadata.csv",
                       "filename,split\ns0,train\ns1,train\ns2,val\ns3,test\n"),
          says=("2 files are not in metadata.csv", "s4.hdf5", "add rows")),
    train("no test split", code=2,
          prepare=text("data/metadata.csv", "filename,split\ns0,train\ns2,val\n"),
          says=("the test split has no session", "metadata.csv")),
    predict("recording without labels", "--input={d}/emg.hdf5", "--output={d}/o.hdf5",
            prepare=no_labels, code=0, says=()),
]  # fmt: skip


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
    import runpy
    import traceback

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


def main() -> int:
    """Runs the cases and prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="part of the names of the cases to run")
    parser.add_argument("--json", default="", help="also write the table to this file")
    parser.add_argument("--processes", action="store_true", help="every case in its own process")
    options = parser.parse_args()
    import tds_jax.tasks  # noqa: F401 - once for all forks
    from tds_jax.pose import task  # noqa: F401

    table = []
    with tempfile.TemporaryDirectory() as base:
        for row in results(Path(base), options.only, options.processes):
            table.append(row)
            print(f"{row['code']}  {row['input']}", flush=True)
            for line in row["lines"]:
                print(f"     {line}")
            if row["fault"]:
                print(f"     WRONG: {row['fault']}")
    wrong = sum(bool(row["fault"]) for row in table)
    print(f"{len(table)} cases, {wrong} wrong")
    if options.json:
        Path(options.json).write_text(json.dumps(table, indent=1) + "\n")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
