"""Data that change while they are read, reads that are slow or fail, and numbers that are none."""

import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bad_inputs.recordings import good_rows, write
from experiments.faults import hooks
from experiments.faults.checkpoints import truncate
from experiments.faults.hooks import Hook, before, instead
from experiments.faults.judging import Fault, goes_on, nothing
from experiments.faults.trial import Seen, Trial

READ = "os:preadv"  # rows of contiguous files


def _own(trial: Trial) -> None:
    """Its own copy of the data, few of whose files stay open."""
    trial.data = trial.folder / "data"
    shutil.copytree(trial.base / "data", trial.data)
    trial.settings["data.max_open_files"] = 1


def _in_training(act: Callable[[Path], object]) -> Callable[[Trial], Seen]:
    """Hurts the folder when the index and the statistics are read, and training begins."""

    def do(trial: Trial) -> Seen:
        _own(trial)
        return trial.train(before("tds_jax.engine.loop:Feed.train", lambda: act(trial.data)))

    return do


def _between(act: Callable[[Path], object]) -> Callable[[Trial], Seen]:
    """Hurts the folder while the run does not run."""

    def do(trial: Trial) -> Seen:
        _own(trial)
        stop = before("tds_jax.engine.loop:Run.step", hooks.send(15), 5)
        stopped = trial.train(stop)
        assert stopped.code == 0, stopped.text
        act(trial.data)
        return trial.train()

    return do


def _restored(trial: Trial) -> str:
    """The files as they were, and the same command."""
    hooks.allow(trial.folder)
    shutil.rmtree(trial.data, ignore_errors=True)
    shutil.copytree(trial.base / "data", trial.data)
    return goes_on(trial)


def _touch(folder: Path, seconds: float = 0.0) -> None:
    for path in folder.iterdir():
        os.utime(path, (time.time() + seconds,) * 2)


def _replace(folder: Path) -> None:
    """Another recording of the same length takes the place of each."""
    for i, path in enumerate(sorted(folder.glob("*.hdf5"))):
        write(folder / "new", good_rows(100 + i))
        os.replace(folder / "new", path)


def _each(act: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda folder: [act(path) for path in sorted(folder.glob("*.hdf5"))]


def _unlink(path: Path) -> None:
    path.unlink()


def _garbage(path: Path) -> None:
    """Other bytes in its middle, in place."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 4096)


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _moved(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def _new_file(folder: Path) -> None:
    write(folder / "s9.hdf5", good_rows(9))


def _reading(wrap: Callable[[Callable], Callable]) -> Callable[[Trial], Seen]:
    return lambda trial: trial.train(instead(READ, wrap))


def _slow(real: Callable) -> Callable:
    def read(*args: Any) -> Any:
        time.sleep(0.05)
        return real(*args)

    return read


def _failing(number: int, call: int, once: bool) -> Callable[[Callable], Callable]:
    calls = [0]

    def wrap(real: Callable) -> Callable:
        def read(dataset: Any, *args: Any) -> Any:
            calls[0] += 1
            if calls[0] == call or (calls[0] > call and not once):
                raise OSError(number, os.strerror(number))
            return real(dataset, *args)

        return read

    return wrap


def _examples(value: float, among: Callable[[int], bool]) -> Hook:
    calls = [0]

    def wrap(real: Callable) -> Callable:
        def examples(source: Any, indices: Any, rngs: Any) -> Any:
            found = real(source, indices, rngs)
            for place in range(len(indices) if rngs is not None else 0):
                calls[0] += 1
                if among(calls[0]):
                    found["emg"][place] = value
            return found

        return examples

    return instead("tds_jax.pose.windows:PoseWindows.examples", wrap)


def _numbers(value: float, among: Callable[[int], bool]) -> Callable[[Trial], Seen]:
    return lambda trial: trial.train(_examples(value, among))


def _unreadable(folder: Path) -> None:
    for path in folder.glob("*.hdf5"):
        path.chmod(0)


def _forbidden(trial: Trial) -> Seen:
    _own(trial)
    trial.run.mkdir()
    _unreadable(trial.data)
    return trial.train(hooks.obey_permissions)


FAULTS = [
    *(Fault(f"in training, data files {words}", _in_training(act), _restored, ends)
      for words, act, ends in (
          ("touched", _touch, (0,)), ("dated into the future", lambda f: _touch(f, 1e6), (0,)),
          ("truncated", _each(truncate), (0, 2)), ("removed", _each(_unlink), (2,)),
          ("replaced", _replace, (2,)), ("overwritten in place", _each(_garbage), (2,)),
          ("appended to", _each(_append), (0, 2)), ("moved", _moved, (2,)))),
    *(Fault(f"between starts, data files {words}", _between(act), _restored, ends)
      for words, act, ends in (
          ("touched", _touch, (0,)), ("dated back", lambda f: _touch(f, -1e8), (0,)),
          ("truncated", _each(truncate), (2,)), ("removed", _each(_unlink), (2,)),
          ("replaced", _replace, (2,)), ("overwritten in place", _each(_garbage), (2,)),
          ("more of them", _new_file, (2,)), ("moved", _moved, (2,)))),
    Fault("data files may not be read", _forbidden, _restored, (2,)),
    Fault("reads take 50 ms each", _reading(_slow), goes_on),
    *(Fault(f"{os.strerror(number)} at read {call}{words}", _reading(_failing(number, call, once)),
            goes_on, (2,), os.strerror(number))
      for number in (errno.EIO, errno.ESTALE) for call in (3, 14)
      for once, words in ((True, ", once"), (False, " and later"))),
    Fault("NaN in one example", _numbers(np.nan, lambda n: n == 5), nothing, (0,), "left out"),
    Fault("Inf in one example", _numbers(np.inf, lambda n: n == 5), nothing, (0,), "left out"),
    Fault("NaN in all examples", _numbers(np.nan, lambda n: True), nothing, (2,), "no gradient"),
    Fault("Inf in all examples", _numbers(np.inf, lambda n: True), nothing, (2,), "no gradient"),
]  # fmt: skip
