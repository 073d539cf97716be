"""Tensors of a PyTorch checkpoint put in the places of our parameters: each exactly once."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from tds_jax.errors import UserError

# Words that wrappers put into names (data parallelism, compilation, recomputation, sharding), and
# what trainers call the network they hold; no layer known here is called so.
_WRAPPERS = (
    *("module", "model", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"),
    "online_model",
)

Found = dict[str, tuple[str, np.ndarray]]
"""Path of a leaf, words separated by spaces -> (the tensor's name, its value in our layout)."""


class Remedies(NamedTuple):
    """What the user is told to do: a leaf has no tensor, another shape, a tensor has no leaf."""

    missing: str
    shape: str
    extra: str


def converted(
    tensors: Mapping[str, np.ndarray],
    convert: Callable[[str, np.ndarray], tuple[str, np.ndarray]],
    ignored: str | tuple[str, ...] = (),
) -> Found:
    """Every tensor by its path; names that end with one of `ignored` are left out.

    convert: (name, tensor) -> (path, value), raising UserError for a name it does not know.
    Raises UserError if two tensors give the same path, or one has NaN or Inf.
    """
    found: Found = {}
    for name, tensor in tensors.items():
        if name.endswith(ignored):
            continue
        tensor = np.asarray(tensor)
        if strange := int(np.count_nonzero(~np.isfinite(tensor))):
            raise UserError(
                f"checkpoint tensor {name!r} has NaN or Inf in {strange} of {tensor.size} values: "
                "the run that saved it had failed; take an earlier checkpoint"
            )
        path, value = convert(name, tensor)
        if path in found:
            raise UserError(
                f"checkpoint tensors {found[path][0]!r} and {name!r} both give {path!r}; "
                "keep one of the models in the file"
            )
        found[path] = name, value
    return found


def bare(name: str) -> str:
    """A tensor's name without the words that wrappers of the network, or of parts of it, put in."""
    return ".".join(word for word in name.split(".") if word not in _WRAPPERS)


def place(path: str, leaf: str, tensor: np.ndarray) -> tuple[str, np.ndarray]:
    """(path of a module's leaf, its value in our layout).

    weight: (n,) -> scale; (out, in, *sizes) -> kernel (*sizes, in, out). bias, running_mean and
    running_var stay as they are.
    """
    if leaf != "weight":
        return f"{path} {leaf.removeprefix('running_')}", tensor
    if tensor.ndim == 1:
        return f"{path} scale", tensor
    return f"{path} kernel", np.moveaxis(tensor, (0, 1), (-1, -2))


def unknown(name: str, tensor: np.ndarray, models: str) -> UserError:
    """What to raise for a name without a counterpart. models: those that are known."""
    return UserError(
        f"checkpoint tensor {name!r} of shape {tensor.shape} is not one of {models}; check its "
        "origin"
    )


def path_of(path: tuple[Any, ...]) -> str:
    """A leaf's path in {"params": …, "rest": …} as `Found` names it, without the first key."""
    return " ".join(str(part.key) for part in path[1:])


def fill(
    params: dict[str, Any],
    rest: dict[str, Any],
    found: Found,
    remedies: Remedies,
    ours: tuple[str, ...] = (),
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(params, rest) with every leaf replaced by its value in `found`; those of `ours` stay.

    Raises UserError for a leaf that nothing fills, a value without a leaf, and shapes that do not
    fit, naming the tensor and both shapes.
    """
    left = dict(found)

    def take(path: tuple[Any, ...], leaf: Any) -> Any:
        key = path_of(path)
        if key in ours:
            return leaf
        if key not in left:
            raise UserError(
                f"checkpoint has nothing for parameter {key!r} of shape {leaf.shape}; "
                f"{remedies.missing}"
            )
        name, value = left.pop(key)
        if value.shape != leaf.shape:
            raise UserError(
                f"checkpoint tensor {name!r} gives {key!r} the shape {value.shape} but the model "
                f"has {leaf.shape}; {remedies.shape}"
            )
        return value

    filled = jax.tree_util.tree_map_with_path(take, {"params": params, "rest": rest})
    for key, (name, value) in left.items():
        raise UserError(
            f"checkpoint tensor {name!r} is {key!r} of shape {value.shape}, which the model does "
            f"not have; {remedies.extra}"
        )
    return filled["params"], filled["rest"]
