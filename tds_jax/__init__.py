"""Train temporal and volumetric models within the memory you have.

The way of the data:

    argv -> config file + overrides -> cli.resolve -> Config (frozen), kept in config.json
    Config.task -> tasks.get -> Task: init, loss, source(split), batch_spec
    memory.budget -> compile candidates on shapes -> the cheapest that fits  budget
    Task + Config -> shapes -> sharding -> compile(step) -> predicted bytes  engine.program
    examples -> data.pipeline.Loader(position) -> device batches             engine.feed
    loop: [evaluate?] -> [save?] -> next batch -> step -> log                engine.loop
    stop: steps done | early stop | SIGTERM, Ctrl-C -> save, close, exit 0, 130
    out of memory -> smaller micro-batch, on from the last checkpoint        budget.giving_way

The rooms: `engine` trains and `budget` says before what that takes, neither knows a domain; `nn`
holds layers two domains share; `interchange` foreign formats of models; `data` is the only place
that imports h5py and grain; `pose`, `forecast` and `voxel` are domains. The modules beside this
file are the doors.

What always holds:
- a checkpoint's name is the number of examples its state has seen (saved before the next is drawn);
- every random number is a function of (seed, epoch, example), never of batch, worker or device;
- losses and metrics are (sum, weight) until the last moment: nothing divides early;
- models never see the config; data workers never touch jax.

In Python: `train` a run or `load` one, see `run.Run`. Importing this module imports neither jax nor
numpy; what it names is imported when first asked for.
"""

import sys
import types
from typing import TYPE_CHECKING, Any

from tds_jax.version import __version__

if TYPE_CHECKING:
    from tds_jax.engine.callbacks import Callback, CallbackError, Evaluation, Update
    from tds_jax.errors import UserError
    from tds_jax.run import Run, load, train

__all__ = [
    "Callback",
    "CallbackError",
    "Evaluation",
    "Run",
    "Update",
    "UserError",
    "__version__",
    "load",
    "train",
]

_PLACES = {
    "tds_jax.engine.callbacks": ("Callback", "CallbackError", "Evaluation", "Update"),
    "tds_jax.errors": ("UserError",),
    "tds_jax.run": ("Run", "load", "train"),
}


def __getattr__(name: str) -> Any:
    import importlib

    for place, names in _PLACES.items():
        if name in names:
            return getattr(importlib.import_module(place), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


class _Face(types.ModuleType):
    """A package whose functions doors of the same name do not hide, once they are imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in __all__ or not isinstance(value, types.ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face
