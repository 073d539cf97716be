"""What a caller may look at while a run trains: every update, and every evaluation.

Imports no jax, so that a program that defines a callback is light in its data workers.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tds_jax.engine.step import Objective


@dataclasses.dataclass(frozen=True)
class Update:
    """After a batch of optim.batch_size examples. step: how many there were, this one included.

    params: nested dict of arrays on the devices. Their memory is reused by the next step: copy what
    is to be kept (`jax.device_get`).
    """

    step: int
    params: Mapping[str, Any]
    _parts: Sequence["Objective"]

    @property
    def loss(self) -> float:
        """Of the batch, before its update. Waits for the devices; leave it alone where it is not
        needed."""
        import numpy as np

        total = sum(float(np.sum(np.asarray(part.sum))) for part in self._parts)
        weight = sum(float(np.sum(np.asarray(part.weight))) for part in self._parts)
        return total / weight if weight else float("nan")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """After a look at `val`. step: updates so far. values: name -> value, as metrics.jsonl has it.

    params: those evaluated; as in `Update`.
    """

    step: int
    values: Mapping[str, float]
    params: Mapping[str, Any]


class Callback:
    """Override what is to be seen; what is not overridden does nothing.

    It is called between steps, by the process that trains, and training waits for it. Whatever it
    raises ends the run with a `CallbackError`; the last checkpoint stays, and the same call goes on
    from there. A run that goes on calls it only for what comes then.

    >>> class Losses(Callback):
    ...     def __init__(self):
    ...         self.seen = []
    ...     def on_update(self, update):
    ...         self.seen.append(update.loss)
    """

    def on_update(self, update: Update, /) -> None:
        """After every batch."""

    def on_evaluation(self, evaluation: Evaluation, /) -> None:
        """After every look at `val`, once its score is saved."""


class CallbackError(RuntimeError):
    """A callback has raised; its text names callback and step, `__cause__` is what it raised."""


class Callbacks:
    """Those of a run, told of batches; without any, nothing is kept."""

    def __init__(self, callbacks: Sequence[Callback], batch_size: int) -> None:
        self._callbacks, self._batch_size = tuple(callbacks), batch_size
        self._parts: list[Objective] = []

    def trained(self, position: int, objective: "Objective", params: Mapping[str, Any]) -> None:
        """A micro-batch was trained on; position: examples so far."""
        if not self._callbacks:
            return
        self._parts.append(objective)
        if position % self._batch_size == 0:
            update = Update(position // self._batch_size, params, tuple(self._parts))
            self._parts.clear()
            self._tell("on_update", update.step, lambda one: one.on_update(update))

    def evaluated(
        self, position: int, values: Mapping[str, float], params: Mapping[str, Any]
    ) -> None:
        """`val` was looked at."""
        seen = Evaluation(position // self._batch_size, values, params)
        self._tell("on_evaluation", seen.step, lambda one: one.on_evaluation(seen))

    def _tell(self, name: str, step: int, tell: Callable[[Callback], None]) -> None:
        import jax

        for callback in self._callbacks:
            try:
                with jax.transfer_guard("allow"):  # what a callback computes is its own affair
                    tell(callback)
            except Exception as error:
                raise CallbackError(
                    f"{type(callback).__name__}.{name} at step {step}: "
                    f"{type(error).__name__}: {error}"
                ) from error
