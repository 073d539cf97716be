"""Doors whose options differ by task: a job is a function, or a frozen dataclass whose fields are
its flags.

Fields are made by `fields.option`; one without a default is a flag that must be given. What a job
does is its method `run`.
"""

import dataclasses
import sys
import typing
from pathlib import Path
from typing import Any

from absl import flags

from tds_jax import cli, tasks
from tds_jax.errors import UserError
from tds_jax.fields import check_bounds, require_choice

WORDS = {int: "whole numbers", float: "numbers"}
TASK = "Kind of data: {}. --task=NAME --help shows its options."


def define(door: str) -> None:
    """Defines --task and the flags of its job; without a task, as for --help, --task alone."""
    names = tuple(tasks.DOMAINS)
    flags.DEFINE_string("task", None, TASK.format(", ".join(names)), required=True)
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS["task"])
    task = cli.given(sys.argv, "task")
    if task is not None:
        require_choice("--task", task, names)
        _define_flags(door, task)


def define_of_workdir(*doors: str) -> None:
    """Defines the flags of the jobs that the task of --workdir has; none without a workdir.

    Raises UserError for a folder that no run has begun.
    """
    folder = cli.given(sys.argv, "workdir")
    if folder is None:
        return
    from tds_jax.engine import workdir  # imports jax

    task = workdir.read_config(Path(folder))["task"]
    for door in doors:
        if tasks.offers(door, task):
            _define_flags(door, task)


def _define_flags(door: str, task: str) -> None:
    job = tasks.job(door, task)
    if not isinstance(job, type):
        return
    hints = typing.get_type_hints(job)
    for field in dataclasses.fields(job):
        _define_flag(field, hints[field.name])
        # --help shows the door's own flags
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[field.name])


def asked(door: str, task: str | None = None) -> Any:
    """What to call for the parsed command line, of --task if none is named.

    Raises UserError for wrong or too small values.
    """
    cls = tasks.job(door, task or flags.FLAGS.task)
    if not isinstance(cls, type):
        return cls
    hints = typing.get_type_hints(cls)
    values = {}
    for field in dataclasses.fields(cls):
        value: Any = flags.FLAGS[field.name].value
        if isinstance(value, list):
            value = _tuple(field.name, value, hints[field.name])
        check_bounds(f"--{field.name}", value, **field.metadata)
        values[field.name] = value
    return cls(**values).run


def require_unused(door: str, task: str) -> None:
    """Raises UserError for a flag that was given of a job that was not asked for."""
    job = tasks.job(door, task) if tasks.offers(door, task) else None
    for field in dataclasses.fields(job) if isinstance(job, type) else ():
        if flags.FLAGS[field.name].present:
            raise UserError(f"--{field.name} is for --{door}; add that, or leave it out")


def _define_flag(field: dataclasses.Field, kind: Any) -> None:
    makers = {
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        str: flags.DEFINE_string,
        bool: flags.DEFINE_bool,
    }
    make: Any = makers.get(kind, flags.DEFINE_list)
    required = field.default is dataclasses.MISSING
    default = None if required else field.default
    if isinstance(default, tuple):
        default = [str(item) for item in default]
    make(field.name, default, field.metadata["help"], required=required)


def _tuple(name: str, items: list[str], kind: Any) -> tuple[Any, ...]:
    """Items of a comma-separated flag, in the type of the tuple's entries."""
    of = typing.get_args(kind)[0]
    try:
        return tuple(of(item) for item in items if item)
    except ValueError:
        text = ",".join(items)
        raise UserError(f"--{name}={text} has the wrong type; use {WORDS[of]}, as 1,2") from None
