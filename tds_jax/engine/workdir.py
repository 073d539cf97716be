"""A run's folder: which config it belongs to, and the model in its checkpoints."""

import json
import os
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from tds_jax import config as configuration
from tds_jax.config import Config
from tds_jax.engine import optim, sharding, step
from tds_jax.engine.checkpoint import Checkpoints, Restored
from tds_jax.errors import UserError
from tds_jax.tasks import Task

CONFIG = "config.json"
INPUTS = "inputs.json"
CHECKPOINTS = "checkpoints"


def claim(workdir: Path, config: Config, inputs: dict[str, Any]) -> None:
    """Makes the folder this config's and these inputs'; refuses one with another's checkpoints.

    Raises UserError naming what differs and may not.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    new = config.to_dict()
    if any(path.name.isdigit() for path in (workdir / CHECKPOINTS).glob("*")):
        changed = configuration.differences(read_config(workdir), new)
        changed += configuration.differences(read_inputs(workdir), inputs, "data: ")
        if changed:
            raise UserError(
                f"{workdir} was begun with another config ({'; '.join(changed)}); "
                "use the same settings to go on, or another --workdir"
            )
    _write(workdir / CONFIG, new)
    _write(workdir / INPUTS, inputs)


def read_config(workdir: Path) -> dict[str, Any]:
    """The nested settings a workdir was trained with."""
    return _read(workdir, CONFIG)


def read_inputs(workdir: Path) -> dict[str, Any]:
    """What the task said of its data when the run began; enough to build the model without them."""
    return _read(workdir, INPUTS)


def require_inputs(workdir: Path, inputs: dict[str, Any]) -> None:
    """Raises UserError if data differ from those the workdir's model was trained on."""
    changed = configuration.differences(read_inputs(workdir), inputs)
    if changed:
        raise UserError(
            f"the data do not fit the model in {workdir} ({'; '.join(changed)}); "
            "give recordings like those it was trained on"
        )


def _write(path: Path, values: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(values, indent=1) + "\n")
    os.replace(temporary, path)


def _read(workdir: Path, name: str) -> dict[str, Any]:
    path = workdir / name
    if not path.exists():
        raise UserError(f"--workdir={workdir} has no {name}; give a folder that train wrote")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); restore it or train anew") from error


def open_checkpoints(workdir: Path, config: Config) -> Checkpoints:
    """The folder's checkpoints, kept by the config's rule."""
    return Checkpoints.open(workdir / CHECKPOINTS, config.checkpoint.keep)


def make_init(task: Task, config: Config) -> Any:
    """key -> TrainState for this task and config."""
    optimizer = optim.make_optimizer(config.optim)
    spec = task.batch_spec(config.optim.micro_batch)
    return step.make_init(task.init, optimizer, task.loss, spec)


def load_model(task: Task, config: Config, workdir: Path) -> tuple[nnx.Module, Restored]:
    """The model of the best checkpoint (the latest if none was scored)."""
    checkpoints = open_checkpoints(workdir, config)
    position = checkpoints.best()
    if position is None:
        raise UserError(f"--workdir={workdir} has no checkpoint yet; train first")
    mesh = jax.make_mesh((1,), ("data",), devices=jax.local_devices()[:1])
    shapes = jax.eval_shape(make_init(task, config), jax.random.key(config.seed))
    restored = checkpoints.restore(position, sharding.abstract(shapes, mesh))
    checkpoints.close()
    graphdef = step.graphdef_of(task.init)
    model = nnx.merge(graphdef, restored.state.params, restored.state.rest)
    return model, restored
