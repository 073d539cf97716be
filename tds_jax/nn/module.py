"""What every layer is: a module whose work carries its name, so that a profile can be read."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx


class Module(nnx.Module):
    """An `nnx.Module` that runs under the name it has in the module that holds it.

    Compiled text and profiles then say `encoder/stage_0/block_1/fc_norm`, forward and backward,
    where they would say `jvp()`. entries: the methods others call it by. What is held by nobody
    has no name. Names are static: they cost microseconds when traced and nothing when run.
    """

    label = ""

    def __init_subclass__(cls, *, entries: Sequence[str] = ("__call__",), **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in vars(cls).keys() & set(entries):
            setattr(cls, name, _labelled(vars(cls)[name]))

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Module) and not value.label:
            value.label = name
        super().__setattr__(name, value)


def _labelled(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def labelled(self: Module, *args: Any, **kwargs: Any) -> Any:
        with jax.named_scope(self.label):
            return method(self, *args, **kwargs)

    return labelled
