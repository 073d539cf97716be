"""A trained run in Python: the functions behind the doors, for arrays instead of files."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tds_jax import cli, tasks
from tds_jax.budget import giving_way
from tds_jax.config import SPLITS, Config, require_choice
from tds_jax.engine import workdir as folders
from tds_jax.engine.blueprint import Blueprint
from tds_jax.engine.step import split as parts_of
from tds_jax.errors import UserError
from tds_jax.evaluate import judged
from tds_jax.nn.precision import matmul_precision

if TYPE_CHECKING:
    from flax import nnx

    from tds_jax.engine.report import Report


def load(workdir: str | Path, step: str | int = folders.BEST) -> "Run":
    """The run that `train` left in a folder, ready to predict; its data need not be there.

    step: 'best' (by `eval.metric` on `val`), 'last', or a number of steps that has a checkpoint.
    UserError for a folder without a whole checkpoint, or without that of the step.
    """
    return Run(Path(workdir), step)


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
        """
        with matmul_precision(self.config.memory.matmul_precision):
            return _called(self.answer, "predict", self.config.task, x, **options)

    @functools.cached_property
    def answer(self) -> Callable[..., Any]:
        """The task's function of arrays behind `predict`."""
        return tasks.job("answer", self.config.task)(self._task, self.model, self.workdir)

    def stream(self, **options: Any) -> Callable[[Any], Any]:
        """A function of the next samples that gives what they complete, and remembers the rest.

        Each call begins a stream of its own; see `help()` of what it returns. UserError for a task
        or a model that cannot be streamed.
        """
        task = self.config.task
        if not tasks.offers("follow", task):
            raise UserError(f"stream is not offered for task {task!r}; use predict")
        follow = functools.partial(tasks.job("follow", task), self._task, self.model)
        with matmul_precision(self.config.memory.matmul_precision):
            return _called(follow, "stream", task, **options)

    def evaluate(self, split: str = "test", data: str | Path | None = None) -> "Report":
        """The model beside its baselines on a split: `.table()`, `.value(metric)`, `.rows`.

        data: where the data are, if not where training found them. Baselines are fitted on the
        train split each time.
        """
        require_choice("split", split, SPLITS)
        values = self.config.to_dict()
        values["data"]["path"] = str(data) if data else values["data"]["path"]
        config = cli.checked(values)
        task = tasks.get_for_data(config, self._inputs)
        folders.require_inputs(self.workdir, task.inputs())

        def judge(config: Config) -> "Report":
            return judged(task.under(config), config, self.model, split, None)

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
