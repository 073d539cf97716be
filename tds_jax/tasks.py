"""What the engine asks of a domain, and where the domains are; imports none of them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from tds_jax.config import Config, require_choice

if TYPE_CHECKING:
    import numpy as np
    from flax import nnx

    from tds_jax.engine.report import Report
    from tds_jax.engine.step import Batch, Objective


class Task(Protocol):
    """One domain's job, built from a frozen config; one instance per run.

    Sources are random-access, lazy and picklable; see data.pipeline.Source.
    """

    def inputs(self) -> dict[str, Any]:
        """What `init` must know of the data (channels, rate …); plain values for the workdir."""
        ...

    def digest(self) -> str:
        """Fingerprint of the data set: the order of examples depends on it."""
        ...

    def init(self, rngs: nnx.Rngs) -> nnx.Module:
        """A fresh model; called under jit and for shapes only."""
        ...

    def loss(
        self, model: nnx.Module, batch: Batch, train: bool
    ) -> tuple[Objective, dict[str, Any]]:
        """Σ weight·loss and Σ weight of a batch, and metric states."""
        ...

    def source(self, split: str) -> Any:
        """Random access to the examples of `train`, `val` or `test`."""
        ...

    def batch_spec(self, examples: int, train: bool = True) -> dict[str, Any]:
        """ShapeDtypeStructs of a batch of training or evaluation examples; needs no data."""
        ...

    def memory_options(self) -> dict[str, tuple[Any, ...]]:
        """`memory` settings and their values that save bytes without changing results.

        Cheapest first, in settings and in values: a plan takes them in this order.
        """
        ...

    def fit_statistics(self) -> dict[str, Any]:
        """Leaves of `rest` computed from the train split, as a nested dict."""
        ...

    def warnings(self) -> list[str]:
        """One line for everything in the data that was skipped."""
        ...

    def describe(self, values: dict[str, Any]) -> str:
        """The few numbers of a log line that a person watches."""
        ...

    def evaluate(self, model: nnx.Module, split: str, workdir: Path | None) -> Report:
        """Model and baselines on a split.

        With a workdir, figures go into its folder plots/, and what was fitted is kept there.
        """
        ...

    def import_params(
        self, params: dict[str, Any], rest: dict[str, Any], tensors: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """(params, rest) filled from a PyTorch checkpoint's tensors, each leaf exactly once."""
        ...

    def predict(self, model: nnx.Module, source: Path, target: Path) -> list[Path]:
        """Predictions for one file or every file of a folder; returns what was written."""
        ...


@runtime_checkable
class Exporting(Protocol):
    """A task whose models can be written as files that run without the project."""

    def export(self, model: nnx.Module, target: Path) -> str:
        """Writes functions that need no project to run, checked; returns a line on them."""
        ...


@runtime_checkable
class Streaming(Protocol):
    """A task whose predictions can also be made as samples come."""

    def stream(
        self,
        model: nnx.Module,
        source: str,
        target: str,
        *,
        initial_pose: Sequence[float] | None,
        chunk: float,
        paced: bool,
    ) -> str:
        """Predicts as samples come, from a file or '-' (stdin); returns a line on latency."""
        ...


class Domain(NamedTuple):
    """A registry line: where a task's class, its config groups and its doors' jobs live.

    check, prepare, synthesize: dataclasses of their options (see `jobs`), with a method run:
      check.run(folder, progress) -> Checked
      prepare.run(source, target, progress) -> files written, files kept, lines on what was skipped
      synthesize.run(target, progress) -> what was written
    recall: a function (task, workdir), where predictions need what `evaluate` left in the workdir.
    """

    task: str
    groups: dict[str, str]
    inputs_of: str
    check: str
    prepare: str
    synthesize: str
    recall: str = ""


class Checked(NamedTuple):
    """What `check` found. usable: files or frames. summary: name -> value, shown as a table.

    findings: by kind, one line for everything that training would skip, refuse or suffer from.
    """

    usable: int
    summary: dict[str, Any]
    findings: dict[str, list[str]]


DOMAINS = {
    "pose": Domain(
        task="tds_jax.pose.task:PoseTask",
        groups={
            "model": "tds_jax.pose.config:PoseModelConfig",
            "data": "tds_jax.pose.config:PoseDataConfig",
            "loss": "tds_jax.pose.config:PoseLossConfig",
            "eval": "tds_jax.pose.config:PoseEvalConfig",
        },
        inputs_of="tds_jax.pose.torch_names:inputs_of",
        check="tds_jax.pose.checking:Check",
        prepare="tds_jax.pose.prepare:Prepare",
        synthesize="tds_jax.pose.synthetic:Simulation",
    ),
    "forecast": Domain(
        task="tds_jax.forecast.task:ForecastTask",
        groups={
            "model": "tds_jax.forecast.config:ForecastModelConfig",
            "data": "tds_jax.forecast.config:ForecastDataConfig",
            "loss": "tds_jax.forecast.config:ForecastLossConfig",
        },
        inputs_of="tds_jax.forecast.torch_names:inputs_of",
        check="tds_jax.forecast.checking:Check",
        prepare="tds_jax.forecast.prepare:Prepare",
        synthesize="tds_jax.forecast.synthetic:Simulation",
    ),
    "voxel": Domain(
        task="tds_jax.voxel.task:VoxelTask",
        groups={
            "model": "tds_jax.voxel.config:VoxelModelConfig",
            "data": "tds_jax.voxel.config:VoxelDataConfig",
            "loss": "tds_jax.voxel.config:VoxelLossConfig",
            "eval": "tds_jax.voxel.config:VoxelEvalConfig",
        },
        inputs_of="tds_jax.voxel.task:inputs_of",
        check="tds_jax.voxel.checking:Check",
        prepare="tds_jax.voxel.prepare:Prepare",
        synthesize="tds_jax.voxel.data.synthetic:Simulation",
        recall="tds_jax.voxel.task:recall",
    ),
}


def _load(reference: str) -> Any:
    module, name = reference.split(":")
    return getattr(importlib.import_module(module), name)


def groups(task: str) -> dict[str, type]:
    """The dataclasses of a task's own settings: `model`, `data`, `loss`, and `eval` if it adds."""
    require_choice("task", task, tuple(DOMAINS))
    return {name: _load(reference) for name, reference in DOMAINS[task].groups.items()}


def get(config: Config, inputs: dict[str, Any] | None = None) -> Task:
    """The task a config names; with the `inputs` of a run it builds a model without data."""
    return _load(DOMAINS[config.task].task)(config, inputs)


def recall(config: Config, task: Task, workdir: Path) -> None:
    """Lets a task take up what its `evaluate` left in a workdir, before it predicts."""
    if reference := DOMAINS[config.task].recall:
        _load(reference)(task, workdir)


def job(door: str, task: str) -> Any:
    """The class of a task's `check`, `prepare` or `synthesize`."""
    return _load(getattr(DOMAINS[task], door))


def inputs_of(task: str, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """`Task.inputs` as a PyTorch checkpoint's shapes tell them, for `get` without data."""
    return _load(DOMAINS[task].inputs_of)(tensors)
