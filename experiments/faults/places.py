"""Names, languages, time zones and clocks."""

import os
import shutil
import time
from collections.abc import Callable

from experiments.faults.hooks import before, send
from experiments.faults.judging import Fault, goes_on, nothing
from experiments.faults.trial import Seen, Trial

NAMES = {
    "blanks": "a  b ", "[1]": "run[1]", "[": "run[", "#": "#1", "umlauts": "für Größe",
    "a new line": "two\nlines", "250 letters": "x" * 250, "pattern characters": "a*b?c{d}",
    "a per cent sign": "a%20b", "quotes": "it's \"so\"", "$": "$HOME", "a backslash": "a\\b",
    "a dash": "-run", "a tilde": "~", "no UTF-8": os.fsdecode(b"\xff\xfe"), "a colon": "a:b",
    "an equals sign": "a=b", "an emoji": "\U0001f9ea",
}  # fmt: skip
STOP = before("tds_jax.engine.loop:Run.step", send(15), 5)


def _named(name: str) -> Callable[[Trial], Seen]:
    """The workdir has this name, and the run is stopped once."""

    def do(trial: Trial) -> Seen:
        trial.run = trial.folder / "w" / name
        return trial.train(STOP)

    return do


def _named_both(name: str) -> Callable[[Trial], Seen]:
    """The folder of the data has the name, too."""

    def do(trial: Trial) -> Seen:
        trial.run, trial.data = trial.folder / "w" / name, trial.folder / "d" / name
        shutil.copytree(trial.base / "data", trial.data)
        return trial.train(STOP)

    return do


def _files(name: str) -> Callable[[Trial], Seen]:
    """A recording has this name: predicted for, and written, one file and its folder."""

    def do(trial: Trial) -> Seen:
        source = trial.folder / "in"
        source.mkdir()
        shutil.copy2(trial.data / "s1.hdf5", source / f"{name}.hdf5")
        run = f"--workdir={trial.calm}"
        one = [run, f"--input={source}/{name}.hdf5", f"--output={trial.folder}/{name}.hdf5"]
        seen = trial.door("predict", one)
        if seen.code:
            return seen
        return trial.door("predict", [run, f"--input={source}", f"--output={trial.folder}/out"])

    return do


def _environment(**more: str) -> Callable[[Trial], Seen]:
    return lambda trial: trial.process("train", trial.flags(), **more)


def _elsewhere(**more: str) -> Callable[[Trial], Seen]:
    """Umlauts in names, in a language without them."""

    def do(trial: Trial) -> Seen:
        trial.run, trial.data = trial.folder / "für", trial.folder / "Größe"
        shutil.copytree(trial.base / "data", trial.data)
        (trial.data / "ü.hdf5").write_text("no recording")
        seen = trial.process("train", trial.flags(), **more)
        (trial.data / "ü.hdf5").unlink()
        return seen

    return do


def _clock(trial: Trial) -> Seen:
    """A day back in the middle of a run."""

    def back() -> None:
        real = time.time
        time.time = lambda: real() - 86_400

    return trial.train(before("tds_jax.engine.loop:Run.step", back, 3))


def _future(trial: Trial) -> Seen:
    """All files of a half run are of next year."""
    shutil.copytree(trial.home / "half" / "run", trial.run)
    later = time.time() + 3.2e7
    for path in trial.run.rglob("*"):
        os.utime(path, (later, later))
    return trial.train()


ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
FAULTS = [
    *(Fault(f"workdir named with {words}", _named(name), goes_on, task="signal")
      for words, name in NAMES.items()),
    *(Fault(f"workdir and data named with {words}", _named_both(name), goes_on)
      for words, name in NAMES.items() if words in ("[1]", "a new line", "no UTF-8", "blanks")),
    *(Fault(f"recording named with {words}", _files(name), nothing, (0,))
      for words, name in NAMES.items() if words != "250 letters"),
    Fault("recording with a name of 250 letters", _files("x" * 250), nothing, (0,)),
    Fault("recording with a name of 300 letters", lambda t: t.door("predict", [
          f"--workdir={t.calm}", f"--input={t.data}/s1.hdf5",
          f"--output={t.folder}/{'x' * 300}.hdf5"]), nothing, (2,)),
    Fault("in the C locale", _environment(**ASCII), goes_on),
    Fault("output in Latin-1", _environment(PYTHONIOENCODING="latin-1"), goes_on),
    Fault("umlauts in the C locale", _elsewhere(**ASCII), nothing, (0,), "hdf5"),
    Fault("in Nepal's time zone", _environment(TZ="Asia/Kathmandu"), goes_on, task="signal"),
    Fault("clock set back a day in a run", _clock, goes_on, task="signal"),
    Fault("files of next year", _future, goes_on, task="signal"),
]  # fmt: skip
