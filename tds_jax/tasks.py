"""What the engine asks of a domain, and where the domains are; imports none of them."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from tds_jax.config import Config
from tds_jax.fields import require, require_choice

if TYPE_CHECKING:
    import numpy as np
    from flax import nnx

    from tds_jax.engine.step import Batch, Objective


# Settings that older runs do not name, by their groups.
LATER: dict[str, dict[str, Any]] = {
    "optim": {"init_from": "", "frozen": ()},
    "memory": {"call": "micro_batch", "deterministic": "card", "shard": "none"},
    "log": {"profile": 0},
}
NOTE = "note: "  # begins a line of `prepare` on a file that was not skipped


class Task(Protocol):
    """What a domain learns, built from a frozen config; what is done with it are jobs, see Domain.

    Sources are random-access, lazy and picklable; see data.pipeline.Source.
    """

    def inputs(self) -> dict[str, Any]:
        """What `init` must know of the data (channels, rate …); plain values for the workdir."""

    def digest(self) -> str:
        """Fingerprint of the data set: the order of examples depends on it."""

    def data_files(self) -> dict[str, str]:
        """Name -> path of all files that are read, generated ones too; {} for a data.source.

        Names stay when the data are moved as a whole; see `data.identity`.
        """

    def data_about(self) -> DataAbout:
        """Where the data are and what they hold, for people."""

    def init(self, rngs: nnx.Rngs) -> nnx.Module:
        """A fresh model; called under jit and for shapes only."""

    def loss(
        self, model: nnx.Module, batch: Batch, train: bool
    ) -> tuple[Objective, dict[str, Any]]:
        """Σ weight·loss and Σ weight of a batch, and metric states."""

    def source(self, split: str) -> Any:
        """Random access to the examples of `train`, `val` or `test`."""

    def batch_spec(self, examples: int, train: bool = True) -> dict[str, Any]:
        """ShapeDtypeStructs of a batch of training or evaluation examples; needs no data."""

    def memory_options(self) -> dict[str, tuple[Any, ...]]:
        """`memory` settings and their values that save bytes without changing results.

        Cheapest first, in settings and in values: a plan takes them in this order.
        """

    def fit_statistics(self) -> dict[str, Any]:
        """Leaves of `rest` computed from the train split, as a nested dict."""

    def first_params(self) -> dict[str, Any]:
        """Leaves of `params` that begin at what the train split says, as a nested dict; the others
        begin at random."""

    def warnings(self) -> list[str]:
        """One line for everything in the data that was skipped."""

    def describe(self, values: dict[str, Any]) -> str:
        """The few numbers of a log line that a person watches."""

    def under(self, config: Config) -> Self:
        """This task with other settings of memory, optim and eval; what it has opened stays so."""

    def import_params(
        self, params: dict[str, Any], rest: dict[str, Any], tensors: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """(params, rest) filled from a PyTorch checkpoint's tensors, each leaf exactly once."""


class DataAbout(NamedTuple):
    """folder: where data are read. words: how much of what. generated: whether by this project."""

    folder: str
    words: str
    generated: bool


class Domain(NamedTuple):
    """A registry line: where a task's class, its config groups and its jobs live.

    Jobs are functions, or dataclasses of their options with such a function as method run, see
    `jobs`:
      evaluate(task, model, split, workdir, keep) -> Report of model and baselines; what was fitted
        before is read from a workdir (the run's, or for other data a folder in it). keep: what is
        fitted now stays there, and figures go into its folder plots/
      predict(task, model, source, target, workdir, made, overwrite) -> files written, for a file or
        a folder; each says the names and values of `made`: of which model it is. overwrite: may
        replace what is at their places, which is a UserError else
      export(task, model, target) -> a line on the file, which runs without the project
      stream(task, model, source, target, made, overwrite) -> a line on latency; from a file or
        '-' (stdin)
      answer(task, model, workdir) -> a function of arrays that gives what predict writes
      follow(task, model, **options) -> a function of the next samples that gives what they complete
      calibrate(task, model, x, **options) -> the model, made a user's own by a file or an array
      check(folder, progress) -> Checked
      folds(config, count) -> values of data.fold, each a training, of so many parts (0: every user)
      prepare(source, target, progress) -> files written, files kept, lines on what was skipped, and
        lines with NOTE before them
      synthesize(target, progress) -> what was written
    inputs_of: a function of a PyTorch checkpoint's tensors. today: a function of an older run's
    settings, where names have changed since. '' where a domain does not offer something. brought:
    inputs of a run that other data are brought to, such as units, before they are compared.
    """

    task: str
    groups: dict[str, str]
    evaluate: str
    predict: str
    inputs_of: str = ""
    check: str = ""
    prepare: str = ""
    synthesize: str = ""
    export: str = ""
    stream: str = ""
    answer: str = ""
    follow: str = ""
    calibrate: str = ""
    today: str = ""
    folds: str = ""
    brought: tuple[str, ...] = ()


class Checked(NamedTuple):
    """What `check` found. usable: files or frames. summary: name -> value, shown as a table.

    findings: by kind, one line for everything that training would skip, refuse or suffer from.
    files: name -> {what: value}, a table of the files.
    """

    usable: int
    summary: dict[str, Any]
    findings: dict[str, list[str]]
    files: dict[str, dict[str, Any]] = {}  # noqa: RUF012 - never changed


def _groups(prefix: str, names: str) -> dict[str, str]:
    """Where groups of settings are: the `model` of 'module:Pose' is 'module:PoseModelConfig'."""
    return {name: f"{prefix}{name.title()}Config" for name in names.split()}


DOMAINS = {
    "pose": Domain(
        task="tds_jax.pose.task:PoseTask",
        groups=_groups("tds_jax.pose.config:Pose", "model data loss eval memory"),
        inputs_of="tds_jax.pose.torch_names:inputs_of",
        evaluate="tds_jax.pose.evaluation:evaluate",
        predict="tds_jax.pose.prediction:predict",
        check="tds_jax.pose.checking:Check",
        prepare="tds_jax.pose.prepare:Prepare",
        synthesize="tds_jax.pose.synthetic:Simulation",
        export="tds_jax.pose.export:write",
        stream="tds_jax.pose.live:Play",
        answer="tds_jax.pose.arrays:Answer",
        follow="tds_jax.pose.arrays:Follow",
        calibrate="tds_jax.pose.calibrating:calibrated",
        today="tds_jax.pose.config:today",
        folds="tds_jax.pose.turns:folds",
    ),
    "forecast": Domain(
        task="tds_jax.forecast.task:ForecastTask",
        groups=_groups("tds_jax.forecast.config:Forecast", "model data loss eval memory"),
        inputs_of="tds_jax.forecast.torch_names:inputs_of",
        evaluate="tds_jax.forecast.evaluation:evaluate",
        predict="tds_jax.forecast.prediction:Predict",
        check="tds_jax.forecast.checking:Check",
        prepare="tds_jax.forecast.prepare:Prepare",
        synthesize="tds_jax.forecast.synthetic:Simulation",
        export="tds_jax.forecast.export:write",
        answer="tds_jax.forecast.arrays:Answer",
        today="tds_jax.forecast.config:today",
        brought=("units", "grid", "seen"),
    ),
    "voxel": Domain(
        task="tds_jax.voxel.task:VoxelTask",
        groups=_groups("tds_jax.voxel.config:Voxel", "model data loss eval"),
        inputs_of="tds_jax.voxel.task:inputs_of",
        evaluate="tds_jax.voxel.evaluation:evaluate",
        predict="tds_jax.voxel.prediction:Predict",
        answer="tds_jax.voxel.arrays:Answer",
        check="tds_jax.voxel.checking:Check",
        prepare="tds_jax.voxel.prepare:Prepare",
        synthesize="tds_jax.voxel.data.synthetic:Simulation",
        today="tds_jax.voxel.config:today",
    ),
}


def _load(reference: str) -> Any:
    module, name = reference.split(":")
    return getattr(importlib.import_module(module), name)


def groups(task: str) -> dict[str, type]:
    """The dataclasses of a task's own settings: `model`, `data`, `loss`, and those it adds to."""
    require_choice("task", task, tuple(DOMAINS))
    return {name: _load(reference) for name, reference in DOMAINS[task].groups.items()}


def today(values: dict[str, Any]) -> dict[str, Any]:
    """An older run's nested settings under the names they have now."""
    values = values | {group: later | dict(values[group]) for group, later in LATER.items()}
    log = values["log"]
    if "tensorboard" in log:
        named = {"to": ["tensorboard"] * log["tensorboard"]} | log
        values |= {"log": {name: value for name, value in named.items() if name != "tensorboard"}}
    domain = DOMAINS.get(values["task"])
    values = _load(domain.today)(values) if domain and domain.today else values
    # Lists, as in config.json: a run whose file lacks a setting has not another one of it.
    return json.loads(json.dumps(values))


def get(config: Config, inputs: dict[str, Any] | None = None) -> Task:
    """The task a config names; with the `inputs` of a run it builds a model without data."""
    return _load(DOMAINS[config.task].task)(config, inputs)


def get_for_data(config: Config, inputs: Mapping[str, Any]) -> Task:
    """The task of a config whose data are brought to a run's `inputs`, as far as they can be."""
    brought = DOMAINS[config.task].brought
    return get(config, {name: inputs[name] for name in brought if name in inputs} or None)


def offers(door: str, task: str) -> bool:
    """Whether a task has a job of this name."""
    return bool(getattr(DOMAINS[task], door))


def job(door: str, task: str) -> Any:
    """A task's job: 'evaluate', 'predict', 'check' … UserError if it has none."""
    others = [name for name in DOMAINS if offers(door, name)]
    having = f"; it is for {', '.join(others)}" if others else ""
    require(offers(door, task), f"{door} is not offered for task {task!r}{having}")
    return _load(getattr(DOMAINS[task], door))


def inputs_of(task: str, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """`Task.inputs` as a PyTorch checkpoint's shapes tell them, for `get` without data."""
    require(offers("inputs_of", task), f"import_torch is not offered for task {task!r}")
    return _load(DOMAINS[task].inputs_of)(tensors)
