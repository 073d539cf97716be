"""One member, level or step of the dimensions that fields have beyond time and space."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from tds_jax.errors import UserError, some

# An axis of ERA5 and its preliminary version, of which a time has one: read as what is there.
VERSIONS = "expver"
SHOWN = 12  # values in a line
HELP = "One of a further dimension, as number=0,expver=1,depth=0.05."
Selection = Mapping[str, str]
"""Dimension -> the value chosen, as written."""


def parse(entries: Sequence[str]) -> dict[str, str]:
    """Of entries such as number=0; UserError for one without a name or a value."""
    pairs = [entry.partition("=") for entry in entries]
    for entry, (name, _, value) in zip(entries, pairs, strict=True):
        if not name.strip() or not value.strip():
            raise UserError(f"select: {entry!r} must be DIMENSION=VALUE, such as number=0")
    return {name.strip(): value.strip() for name, _, value in pairs}


def selected(data: xr.Dataset, wanted: Selection, path: str) -> xr.Dataset:
    """The dataset at the values wanted, still lazy; a dimension that it lacks is no fault.

    A value is one of the dimension's coordinate, or without such an index; UserError if it is none,
    or where a file was cut to another one before.
    """
    for name, text in wanted.items():
        if name in data.dims:
            i = _index(data, name, text, path)
            data = data.isel({name: i})
            data = data if name in data.variables else data.assign_coords({name: i})
        elif name in data.variables and not data.variables[name].ndim:
            _index(data, name, text, path)
    times = data.variables.get("valid_time")
    if "step" in wanted and data.variables.get("step") is not None and times is None:
        raise UserError(f"{path}: step={wanted['step']} needs valid_time (time + step); add it")
    return data


def values(data: xr.Dataset, name: str) -> list[str]:
    """What can be chosen of a dimension: its coordinate, durations in hours, or indices."""
    if name not in data.variables or data.variables[name].ndim > 1:
        return [str(i) for i in range(data.sizes[name])]
    found = np.atleast_1d(data.variables[name].values)
    if found.dtype.kind == "m":
        found = found / np.timedelta64(1, "h")
    return [x.decode() if isinstance(x, bytes) else _short(x) for x in found.tolist()]


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def further(data: xr.Dataset, dims: Sequence[str]) -> str:
    """In words, dimensions to choose from, and how."""
    choices = [f"{name}={values(data, name)[-1 if name == 'step' else 0]}" for name in dims]
    found = [f"{n} of {data.sizes[n]} ({some(values(data, n), SHOWN)})" for n in dims]
    return (
        f"also lies over {' and '.join(found)}; choose with --select={','.join(choices)}, in "
        f'training --config.data.select="{tuple(choices)}"'
    )


def _index(data: xr.Dataset, name: str, text: str, path: str) -> int:
    known = values(data, name)
    for i, value in enumerate(known):
        if value == text or _is_equal(value, text):
            return i
    raise UserError(f"{path}: select={name}={text}, but {name} has {some(known)}; choose one")


def _is_equal(value: str, text: str) -> bool:
    """As numbers: 0001 is 1, and 0.05 is what single precision makes of it."""
    try:
        return bool(np.isclose(float(value), float(text), rtol=1e-5, atol=0))
    except ValueError:
        return False
