"""How work on files is divided among those who do it together: who does what, and hears what.

Who they are and how they hear of each other is told from outside: files know no processes.
"""

import dataclasses
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tds_jax.data.whole_file import writer
from tds_jax.errors import UserError

K = TypeVar("K")
V = TypeVar("V")

ROUND = 16  # things that each member does before all hear of them: what is kept on disk meanwhile


@dataclasses.dataclass(frozen=True)
class Crew:
    """Member `index` of `count` who do the same at the same time.

    gather: a value -> those of all members, by their number. add: arrays -> their sums over all
    members. All members call each equally often, in one order, and wait for all.
    """

    index: int
    count: int
    gather: Callable[[Any], list[Any]]
    add: Callable[[list[np.ndarray]], list[np.ndarray]]

    @property
    def first(self) -> bool:
        """Whether this member does what is done once."""
        return self.index == 0

    def share(self, items: Sequence[K]) -> list[K]:
        """This member's part; the parts of all are all, each once."""
        return list(items[self.index :: self.count])

    def span(self, count: int) -> slice:
        """The same, of so many things in a row, as neighbours."""
        begin, end = (count * i // self.count for i in (self.index, self.index + 1))
        return slice(begin, end)

    def by_first(self, work: Callable[[], V]) -> V:
        """What the first member makes of work(); the others wait for it."""
        found: V = self.gather(work() if self.first else None)[0]
        return found

    def rounds(self, items: Sequence[K], work: Callable[[K], V]) -> Iterator[dict[K, V]]:
        """{item: work(item)} of all items, in their order, some at a time: each is made by one
        member and heard by all."""
        at_once = self.count * ROUND if self.count > 1 else 1
        for start in range(0, len(items), at_once):
            some = items[start : start + at_once]
            made = {item: work(item) for item in self.share(some)}
            heard = {item: value for part in self.gather(made) for item, value in part.items()}
            yield {item: heard[item] for item in some}

    def seeing(self, folder: Path) -> "Crew":
        """The members who see the same folder as this one: machines may have one each."""
        mark = folder / f".{uuid.uuid4().hex}.seen.{writer(os.getpid())}.tmp"
        mark.touch()
        marks = self.gather(mark.name)
        seen = [i for i, name in enumerate(marks) if (folder / name).exists()]
        self.gather(None)  # all have looked
        mark.unlink()

        def gather(value: Any) -> list[Any]:
            said = self.gather(value)
            return [said[i] for i in seen]

        return Crew(seen.index(self.index), len(seen), gather, self.add)


ALONE = Crew(0, 1, lambda value: [value], lambda arrays: arrays)


def require_same(crew: Crew, root: str, names: Sequence[str], of_first: Sequence[str]) -> None:
    """Raises UserError where the first member finds other files in a folder than this one."""
    if list(names) != list(of_first):
        other = sorted(set(names) ^ set(of_first))
        first = f" (first: {other[0]})" if other else ""
        raise UserError(
            f"{root}: process {crew.index} finds {len(names)} files here, process 0 "
            f"{len(of_first)}{first}; give all machines the same folder"
        )
