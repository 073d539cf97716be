"""Train temporal and volumetric models within the memory you have.

The way of the data:

    argv -> config file + overrides -> cli.resolve -> Config (frozen), kept in config.json
    Config.task -> tasks.get -> Task: init, loss, source(split), batch_spec
    memory.budget -> compile candidates on shapes -> the cheapest that fits  budget
    Task + Config -> shapes -> sharding -> compile(step) -> predicted bytes  engine.program
    examples -> data.pipeline.Loader(position) -> device batches             engine.feed
    loop: [evaluate?] -> [save?] -> next batch -> step -> log                engine.loop
    stop: steps done | early stop | SIGTERM -> save, close, exit 0
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

In Python: `load` a run, see `run.Run`. Importing this module imports neither jax nor
numpy; what it names is imported when first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tds_jax.errors import UserError
    from tds_jax.run import Run, load

__all__ = ["Run", "UserError", "load"]

_PLACES = {"UserError": "tds_jax.errors", "Run": "tds_jax.run", "load": "tds_jax.run"}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
