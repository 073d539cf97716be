"""A trained run in Python: the functions behind the doors, for arrays instead of files."""

import copy
import functools
import inspect
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from tds_jax import cli, tasks, training
from tds_jax.budget import giving_way
from tds_jax.cli import TERMINATED
from tds_jax.config import SPLITS, Config
from tds_jax.engine import workdir as folders
from tds_jax.engine.blueprint import Blueprint
from tds_jax.engine.callbacks import Callback
from tds_jax.engine.step import split as parts_of
from tds_jax.engine.stopping import StopError, StopSignal
from tds_jax.errors import UserError
from tds_jax.evaluate import judged, place_of, require_there
from tds_jax.fields import require_choice
from tds_jax.nn.precision import matmul_precision
from tds_jax.settings import Settings, name_of
from tds_jax.settings import settings as named_settings

if TYPE_CHECKING:
    from flax import nnx

    from tds_jax.engine.report import Report

CALLBACK = "tds_jax.Callback"


def train(
    config: Settings,
    data: str | Path | None = None,
    workdir: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    init_from: str | Path | None = None,
    frozen: Sequence[str] | None = None,
    **settings: Any,
) -> "Run":
    """Trains as the door does, or goes on where the folder left off; gives the best checkpoint.

    config: a file with get_config(), the name of one that tds_jax brings ('low_memory'), or its
    values. data: the setting data.path; None: as the config says, '' there for generated data.
    workdir: default runs/<config name>. callbacks: see `Callback`. init_from: a workdir whose
    parameters a new run begins with. frozen: patterns of those that stay, as ('encoder',).
    settings: all others by their names, as **{"optim.steps": 400}.

    Raises UserError for what can be corrected, CallbackError, and KeyboardInterrupt after Ctrl-C,
    with all saved. A program that sets data.workers guards its main part by
    `if __name__ == "__main__":`, since workers run the file again.
    """
    if threading.current_thread() is not threading.main_thread():
        raise UserError("train runs in the main thread only, which alone hears Ctrl-C")
    if data is not None:
        settings["data.path"] = data
    if init_from is not None:
        settings["optim.init_from"] = init_from
    if frozen is not None:
        settings["optim.frozen"] = frozen if isinstance(frozen, str) else tuple(frozen)
    asked = cli.checked(named_settings(config, settings))
    name = name_of(config)
    if workdir is None and name is None:
        raise UserError("workdir is missing: a config without a file has no name; give a folder")
    folder = _folder(workdir) if workdir is not None else Path("runs") / str(name)
    _require_callbacks(callbacks)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain reads absl's flags when it starts workers
    try:
        with matmul_precision(asked.memory.matmul_precision), StopSignal() as stop, stop.raising():
            stopped = training.train(asked, folder, stop, callbacks).signal
    except StopError as error:
        stopped = str(error)
    if stopped:
        raise KeyboardInterrupt if stopped == "SIGINT" else SystemExit(TERMINATED)
    return Run(folder)


def load(workdir: str | Path, step: str | int = folders.BEST) -> "Run":
    """The run that `train` left in a folder, ready to predict; its data need not be there.

    step: 'best' (by `eval.metric` on `val`), 'last', or a number of steps that has a checkpoint.
    UserError for a folder without a whole checkpoint, or without that of the step.

    >>> load("runs/a", step="last")
    Run('runs/a', step=4, task='pose')
    """
    return Run(_folder(workdir), step)


def _folder(workdir: Any) -> Path:
    try:
        return Path(workdir)
    except TypeError:
        raise UserError(f"workdir={workdir!r} is no path; give the name of a folder") from None


def _require_callbacks(callbacks: Any) -> None:
    """UserError for a class, for one that is in no list, and for what cannot be called back."""
    if not isinstance(callbacks, Iterable):
        raise UserError(f"callbacks is a {type(callbacks).__name__}; give a list: [{CALLBACK}]")
    for one in callbacks:
        if isinstance(one, type):
            raise UserError(f"callbacks has the class {one.__name__}; give {one.__name__}()")
        if not isinstance(one, Callback):
            raise UserError(f"callbacks has a {type(one).__name__}; give a {CALLBACK}")


class Run:
    """One checkpoint of a run.

    workdir: its folder. step: updates its parameters have seen. config: its settings, frozen.
    model: an `nnx.Module` with the parameters that are evaluated (averaged, where optim.ema_decay
    says so). Nothing here writes into the folder.
    """

    def __init__(self, workdir: Path, step: str | int = folders.BEST) -> None:
        self.workdir = workdir
        self.config: Config = cli.checked(folders.read_config(workdir))
        self._inputs = folders.read_inputs(workdir)
        self._task = tasks.get(self.config, self._inputs)
        blueprint = Blueprint(self._task, self.config)
        self.model: nnx.Module
        self.model, restored = folders.load_model(blueprint, workdir, step)
        self.step: int = restored.position // self.config.optim.batch_size

    def __repr__(self) -> str:
        return f"Run({str(self.workdir)!r}, step={self.step}, task={self.config.task!r})"

    @property
    def params(self) -> dict[str, Any]:
        """The learnt arrays as nested dicts, without statistics of the data."""
        return parts_of(self.model)[1]

    def predict(self, x: Any, **options: Any) -> Any:
        """What the door `predict` writes for the same values, as arrays.

        What x and the options are, and what comes back, is the task's to say: see `help()` of
        `run.answer`. Compiled once for a run. UserError where x does not fit the model.

        >>> load("runs/a").predict(x, rate_hz=100).shape
        (333, 3)
        """
        with matmul_precision(self.config.memory.matmul_precision):
            return _called(self.answer, "predict", self.config.task, x, **options)

    @functools.cached_property
    def answer(self) -> Callable[..., Any]:
        """The task's function of arrays behind `predict`."""
        return tasks.job("answer", self.config.task)(self._task, self.model, self.workdir)

    def calibrate(self, x: Any, **options: Any) -> "Run":
        """The run with its model made a user's own by x, without training; this one stays.

        What x and the options are is the task's to say, as those of `predict`. UserError for a task
        or a model that takes no calibration.

        >>> own = load("runs/film").calibrate(x, rate_hz=100)
        >>> own.predict(x, rate_hz=100).shape
        (333, 3)
        """
        task = self.config.task
        if not tasks.offers("calibrate", task):
            raise UserError(f"calibrate is not offered for task {task!r}; use predict")
        own = copy.copy(self)
        own.__dict__.pop("answer", None)  # compiled for the other user
        make = functools.partial(tasks.job("calibrate", task), self._task, self.model)
        own.model = _called(make, "calibrate", task, x, **options)
        return own

    def stream(self, **options: Any) -> Callable[[Any], Any]:
        """A function of the next samples that gives what they complete, and remembers the rest.

        Each call begins a stream of its own; see `help()` of what it returns. UserError for a task
        or a model that cannot be streamed.

        >>> follow = load("runs/tds").stream()
        >>> [len(follow(x[start : start + 5])) for start in (0, 5, 10)]
        [0, 1, 1]
        """
        task = self.config.task
        if not tasks.offers("follow", task):
            raise UserError(f"stream is not offered for task {task!r}; use predict")
        follow = functools.partial(tasks.job("follow", task), self._task, self.model)
        with matmul_precision(self.config.memory.matmul_precision):
            return _called(follow, "stream", task, **options)

    def evaluate(self, split: str = "test", data: str | Path | None = None) -> "Report":
        """The model beside its baselines on a split: `.table()`, `.value(metric)`, `.rows`.

        data: where the data are, if not where training found them. Numbers are those of the door:
        baselines are the ones the run has kept, fitted on the train split where there are none.

        >>> report = load("runs/a").evaluate("val")
        >>> report.value("mae_deg") > 0
        True
        """
        require_choice("split", split, SPLITS)
        values = self.config.to_dict()
        require_there(values["data"], str(data or ""), "data=")
        values["data"]["path"] = str(data) if data else values["data"]["path"]
        config = cli.checked(values)
        task = tasks.get_for_data(config, self._inputs)
        folders.require_inputs(self.workdir, task.inputs())

        def judge(config: Config) -> "Report":
            place = place_of(task, self.workdir)
            return judged(task.under(config), config, self.model, split, place, keep=False)

        with matmul_precision(config.memory.matmul_precision):
            return giving_way.within_memory(judge, config, remember=lambda config: None)[0]


def _called(function: Callable[..., Any], name: str, task: str, *args: Any, **options: Any) -> Any:
    """The function's answer; UserError that says what it takes, where something else is given."""
    signature = inspect.signature(function)
    try:
        signature.bind(*args, **options)
    except TypeError as error:
        raise UserError(
            f"{name} of task {task!r} takes {', '.join(signature.parameters) or 'nothing'}; {error}"
        ) from None
    return function(*args, **options)
