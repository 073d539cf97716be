"""A run that begins with the parameters of another."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax

from tds_jax import config as configuration
from tds_jax import tasks
from tds_jax.engine import workdir
from tds_jax.engine.blueprint import Blueprint
from tds_jax.engine.frozen import Tree, paths
from tds_jax.engine.step import TrainState, beginning_with, placed, replace_leaves, split
from tds_jax.fields import require

SETTING = "optim.init_from"


class Parts(NamedTuple):
    """A trained model on the host: pure dicts as in `TrainState`."""

    params: Tree
    rest: Tree


def read(blueprint: Blueprint, folder: Path) -> Parts:
    """The best model of another run's folder; UserError unless it has the blueprint's parts."""
    require(
        workdir.has_checkpoint(folder),
        f"{SETTING}={folder} has no checkpoint; train it first, or name the workdir of another",
    )
    values, task = workdir.read_config(folder), blueprint.config.task
    require(
        values["task"] == task,
        f"{SETTING}={folder} was trained for task {values['task']!r}, this run is of {task!r}; "
        "name a workdir of this task",
    )
    theirs = configuration.resolve(values, tasks.groups(task))
    trained = Blueprint(tasks.get(theirs, workdir.read_inputs(folder)), theirs)
    found = Parts(*jax.device_get(split(workdir.load_model(trained, folder)[0])[1:]))
    _require_same(blueprint.shapes.params, found.params, folder)
    _require_same(blueprint.shapes.rest, found.rest, folder)
    return found


def put(state: TrainState, parts: Parts, statistics: dict[str, Any]) -> TrainState:
    """A fresh state with these parameters.

    statistics: those measured on this run's data, which stay; what else the other model keeps
    besides parameters (running means of BatchNorm) is taken over.
    """

    rest = placed(replace_leaves(parts.rest, statistics), state.rest)
    return dataclasses.replace(beginning_with(state, parts.params), rest=rest)


def _require_same(ours: Tree, theirs: Tree, folder: Path) -> None:
    shapes = [
        {path: leaf.shape for path, leaf in zip(paths(tree), _leaves(tree), strict=True)}
        for tree in (ours, theirs)
    ]
    for path in dict.fromkeys((*shapes[0], *shapes[1])):
        here, there = (one.get(path) for one in shapes)
        require(
            here == there,
            f"{SETTING}={folder}: its model has {_words(path, there)}, this run's "
            f"{_words(path, here)}; use its settings of model",
        )


def _leaves(tree: Tree) -> list[Any]:
    return [x for v in tree.values() for x in (_leaves(v) if isinstance(v, dict) else [v])]


def _words(path: str, shape: tuple[int, ...] | None) -> str:
    return f"no {path}" if shape is None else f"{path} {shape}"
