"""Where else the numbers of a run go: TensorBoard, Weights & Biases, MLflow; each an extra.

Nothing leaves the machine unless its owner says so: W&B writes offline runs into the workdir
(`wandb sync` sends them) unless WANDB_MODE is set, MLflow a store there unless MLFLOW_TRACKING_URI
is set, and neither reports on how it is used.
"""

import importlib.util
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tds_jax.config import Config
from tds_jax.data import json_file
from tds_jax.errors import UserError

IDS = "logged.json"  # what a workdir's run is called elsewhere, so that going on goes on there, too


class Logger(Protocol):
    """One that gets every number that is logged. step: updates so far."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Finite numbers by 'split/name'."""

    def close(self) -> None:
        """Finishes writing."""


def require_installed(names: Sequence[str]) -> None:
    """UserError, naming the extra, for a logger whose package is not there."""
    for name in names:
        package = PACKAGES[name][0]
        if importlib.util.find_spec(package) is None:
            raise UserError(f"log.to={tuple(names)} needs {package}; pip install 'tds_jax[{name}]'")


def opened(workdir: Path, config: Config, step: int) -> list[Logger]:
    """The loggers of log.to, which go on after `step` where an earlier start ended."""
    require_installed(config.log.to)
    return [PACKAGES[name][1](workdir, config, step) for name in config.log.to]


class TensorBoard:
    """Event files in the workdir; what an interrupted run wrote after its last step is hidden."""

    def __init__(self, workdir: Path, config: Config, step: int) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See `Logger`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """See `Logger`."""
        self._writer.close()


class WandB:
    """A run of Weights & Biases, in the project WANDB_PROJECT or 'tds_jax'."""

    def __init__(self, workdir: Path, config: Config, step: int) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        known = _ids(workdir).get("wandb")
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "tds_jax"),
            name=workdir.absolute().name,
            id=known or secrets.token_hex(4),
            resume="allow" if known else None,
            mode=mode,
            dir=str(workdir),
            config=config.to_dict(),
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                x_disable_stats=True,
            ),
        )
        _keep(workdir, "wandb", self._run.id)
        self._run.define_metric("*", step_metric="step")  # their own never goes back

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See `Logger`."""
        self._run.log({"step": step, **values})

    def close(self) -> None:
        """See `Logger`."""
        self._run.finish()


class MLflow:
    """A run of MLflow, in the experiment MLFLOW_EXPERIMENT_NAME or 'tds_jax'."""

    def __init__(self, workdir: Path, config: Config, step: int) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        if "MLFLOW_TRACKING_URI" not in os.environ:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow import MlflowClient

        place = (workdir / "mlflow").absolute().as_uri()
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", place))
        known = _ids(workdir).get("mlflow")
        self._id = known or self._begin(workdir.absolute().name, config)
        self._client.update_run(self._id, status="RUNNING")
        _keep(workdir, "mlflow", self._id)

    def _begin(self, name: str, config: Config) -> str:
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "tds_jax")
        found = self._client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else self._client.create_experiment(experiment)
        run = self._client.create_run(number, run_name=name).info.run_id
        for setting, value in _flat(config.to_dict()):
            self._client.log_param(run, setting, value)
        return run

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See `Logger`."""
        for name, value in values.items():
            self._client.log_metric(self._id, name, value, step=step)

    def close(self) -> None:
        """See `Logger`."""
        self._client.set_terminated(self._id)


# By their names in log.to: the package that the extra of that name brings, and who uses it.
PACKAGES: dict[str, tuple[str, Callable[[Path, Config, int], Logger]]] = {
    "tensorboard": ("tensorboardX", TensorBoard),
    "wandb": ("wandb", WandB),
    "mlflow": ("mlflow", MLflow),
}


def _ids(workdir: Path) -> dict[str, str]:
    path = workdir / IDS
    return json_file.read(path, "delete it") if path.exists() else {}


def _keep(workdir: Path, name: str, number: str) -> None:
    json_file.write(workdir / IDS, _ids(workdir) | {name: number})


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)
