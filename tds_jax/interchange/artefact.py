"""One .npz with functions that run without this project, their weights, and what they are."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util
from jax import export

from tds_jax.data.numpy_files import archive
from tds_jax.data.whole_file import whole_file

PLATFORMS = ("cpu", "cuda", "tpu")
WEIGHTS, FUNCTION, ABOUT = "weights/", "function/", "about"

Weights = dict[str, Any]
"""Arrays by name, nested names joined by '/': what a consumer reads, and what functions take."""


class Form(NamedTuple):
    """function(weights, *inputs) and its inputs' ShapeDtypeStructs, symbolic batch included."""

    function: Callable[..., Any]
    inputs: tuple[Any, ...]


class Artefact(NamedTuple):
    """A file that was read back: its description and its functions, bound to its weights."""

    about: dict[str, Any]
    functions: dict[str, Callable[..., Any]]


def flatten(state: dict[str, Any]) -> Weights:
    """Nested dict of arrays -> `Weights`."""
    return traverse_util.flatten_dict(state, sep="/")


def nested(weights: Weights) -> dict[str, Any]:
    """The inverse of `flatten`."""
    return traverse_util.unflatten_dict(weights, sep="/")


def write(
    path: Path,
    forms: Mapping[str, Form],
    weights: Weights,
    about: dict[str, Any],
    check: Callable[[Artefact], Any],
) -> Any:
    """Writes one file for all of PLATFORMS and returns what `check` says of it, read back.

    The file appears under its name only after `check` has returned; where that raises, nothing is
    left. Weights are stored once and are arguments, not constants.
    """
    specs = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), weights)
    entries = {ABOUT: np.array(json.dumps(about))}
    for name, form in forms.items():
        exported = export.export(jax.jit(form.function), platforms=PLATFORMS)(specs, *form.inputs)
        entries[FUNCTION + name] = np.frombuffer(exported.serialize(), np.uint8)
    entries |= {WEIGHTS + name: np.asarray(leaf) for name, leaf in weights.items()}
    with whole_file(path) as temporary:
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **entries)
        return check(read(temporary))


def read(path: Path) -> Artefact:
    """The functions of a file, each to be called without the weights."""
    with archive(path) as file:
        entries = dict(file)
    weights = {k.removeprefix(WEIGHTS): v for k, v in entries.items() if k.startswith(WEIGHTS)}

    def bind(blob: np.ndarray) -> Callable[..., Any]:
        call = jax.jit(export.deserialize(bytearray(blob)).call)
        return lambda *inputs: call(weights, *inputs)

    functions = {
        name.removeprefix(FUNCTION): bind(blob)
        for name, blob in entries.items()
        if name.startswith(FUNCTION)
    }
    return Artefact(json.loads(str(entries[ABOUT])), functions)
