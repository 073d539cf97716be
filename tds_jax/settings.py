"""A run's settings from Python: a config by file, by name or as it is, with changes by name."""

import contextlib
import difflib
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from ml_collections import ConfigDict

from tds_jax import presets
from tds_jax.errors import UserError

Settings: TypeAlias = str | os.PathLike[str] | ConfigDict | Mapping[str, Any]
"""The file of a config, the name of one that tds_jax brings, or its nested values."""


def settings(config: Settings, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values of a config, {'optim.steps': 400, …} changed in them. `config.resolve` checks
    types and ranges; UserError here for a config that cannot be loaded or an unknown setting.

    >>> settings("low_memory", {"optim.steps": 7})["optim"]["steps"]
    7
    """
    if isinstance(config, str | os.PathLike):
        config = _loaded(os.fspath(config))
    if not isinstance(config, Mapping | ConfigDict) or "task" not in config:
        kind = type(config).__name__
        raise UserError(
            f"config is a {kind} without a task; give a file, the name of one that tds_jax brings, "
            "or all of its values"
        )
    values = (config if isinstance(config, ConfigDict) else ConfigDict(config)).to_dict()
    for name, value in changes.items():
        _change(values, name, os.fspath(value) if isinstance(value, os.PathLike) else value)
    return values


def name_of(config: Settings) -> str | None:
    """What a run of a config is called: its file's name; None for values."""
    return Path(config).stem if isinstance(config, str | os.PathLike) else None


def _change(values: dict[str, Any], name: str, value: Any) -> None:
    known = {
        f"{group}.{each}": settings
        for group, settings in values.items()
        if isinstance(settings, dict)
        for each in settings
    } | {each: values for each, one in values.items() if not isinstance(one, dict)}
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}? See" if near else "see"
        raise UserError(f"{name!r} is not a setting; {hint} configs/base.py")
    known[name][name.rpartition(".")[2]] = value


def _loaded(path: str) -> ConfigDict:
    file = presets.file_of(path)
    try:
        with contextlib.nullcontext() if file == path else presets.importable_first():
            return _module(file).get_config()
    except FileNotFoundError as error:
        raise UserError(
            f"config={path!r} is not there; give a file, or one of {', '.join(presets.names())}"
        ) from error
    except Exception as error:  # a config file is a program, in which anything may go wrong
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"config={path!r} cannot be loaded ({reason}); check the file") from error


def _module(file: str) -> ModuleType:
    if not Path(file).is_file():
        raise FileNotFoundError(file)
    spec = importlib.util.spec_from_file_location("tds_jax_config", file)
    assert spec is not None, "a file that ends otherwise than in .py has no get_config, either"
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
