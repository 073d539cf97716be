"""How the processes of a run hear of each other: signs of life, questions, and why one leaves.

What they tell goes through the coordinator of JAX's engine, which is process 0. Each says that it
lives every BEAT seconds; one that is silent, or has left with an error, ends the others with one
line.
"""

import contextlib
import dataclasses
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from tds_jax.engine.stopping import StopSignal
from tds_jax.errors import UserError

BEAT = 2.0  # s
LEAVING = 10.0  # s for the others to hear why process 0 leaves: they hear through it
ASKING = 60_000  # ms that one question to the coordinator waits; asked again without an end
GOES_ON = "what was saved stays, and the same command goes on, also with fewer processes"


@dataclasses.dataclass(frozen=True)
class Left:
    """How a process left. signal: that stopped it, '' without one. words: a line."""

    status: int
    words: str
    signal: str = ""


class Peers:
    """The processes of a run.

    leaving: told why this one is ended by another, before it ends. agreed: that all stop.
    """

    def __init__(self, client: Any, index: int, count: int, silence: float) -> None:
        self.index, self.count, self.silence = index, count, silence
        self.leaving: Callable[[str], None] = lambda words: None
        self._client, self._asked, self._assembled = client, 0, 0
        self._told = self.agreed = False
        self._said: list[str] = []  # places that others may still read
        self._mine: dict[str, Any] = {"beat": 0, "host": platform.node(), "left": None}
        self._lock = threading.Lock()
        self._known: dict[int, dict[str, Any]] = {}
        self._heard = dict.fromkeys(range(count), time.monotonic())
        for work in (self._exchange, self._judge):
            threading.Thread(target=work, daemon=True, name=work.__name__).start()

    def _exchange(self) -> None:
        """Says that this process lives, and hears of the others."""
        while True:
            with contextlib.suppress(RuntimeError, ValueError):  # `_judge` counts the silence
                self._tell()
                for key, text in self._client.key_value_dir_get("tds_jax/peer"):
                    self._hear(int(key.rsplit("/", 1)[-1]), json.loads(text))
                self._heard[0] = max(self._heard[0], self._heard[self.index])
            time.sleep(BEAT)

    def _tell(self) -> None:
        with self._lock:
            self._mine["beat"] += 1
            key, text = f"tds_jax/peer/{self.index}", json.dumps(self._mine)
            self._client.key_value_set(key, text, allow_overwrite=True)

    def _hear(self, index: int, said: dict[str, Any]) -> None:
        if self._known.get(index) != said:
            self._known[index] = said
            self._heard[index] = time.monotonic()

    def _judge(self) -> None:
        while True:
            time.sleep(BEAT / 4)
            for index in range(self.count):
                if index != self.index:
                    self._judge_one(index)

    def _judge_one(self, index: int) -> None:
        left = self._known.get(index, {}).get("left")
        silent = time.monotonic() - self._heard[index]
        if left and left["signal"] and self.agreed:
            return  # all stop, each in its time
        if left is None and silent > self.silence:
            self.dead(index, f"has not answered for {silent:.0f} s")
        elif left and left["signal"] and not self._told:
            self._told = True
            StopSignal.tell(left["signal"])
        elif left and left["status"] and not self._mine["left"]:
            self._end(f"{self._name(index)} has ended: {left['words']}", left["status"])

    def _name(self, index: int) -> str:
        host = self._known.get(index, {}).get("host")
        return f"process {index}{f' on {host}' if host else ''}"

    def dead(self, index: int, how: str) -> None:
        """Ends this process because of another's death."""
        if self._mine["left"]:
            return
        words = f"{self._name(index)} {how}: killed, or its machine or network failed"
        self._end(f"{words}; {GOES_ON}", 1)

    def _end(self, words: str, status: int) -> None:
        with contextlib.suppress(Exception):  # on a full disk, the line below says more
            self.leaving(words)
        print(f"error: {words}", file=sys.stderr, flush=True)
        os._exit(status)

    def leave(self, left: Left) -> None:
        """Tells the others; process 0 waits until they have heard, for they hear through it."""
        self._mine["left"] = dataclasses.asdict(left)
        with contextlib.suppress(RuntimeError, ValueError):  # the coordinator may have gone before
            self._tell()
        until = time.monotonic() + LEAVING
        while self.index == 0 and time.monotonic() < until and not self._all_left():
            time.sleep(BEAT / 8)

    def _all_left(self) -> bool:
        return all(self._known.get(i, {}).get("left") for i in range(1, self.count))

    def ask(self, value: bytes | None, of: range) -> list[bytes]:
        """What each process of a range has said this time; value: what this one says, if anything.

        All ask the same number of times, in the same order. Once each has said something, all have
        read what was said before, which the coordinator may forget.
        """
        place = f"tds_jax/said/{self._asked}/{self.index}"
        self._asked += 1
        if value is not None:
            self._client.key_value_set_bytes(place, value)
        said = [self._wait(f"tds_jax/said/{self._asked - 1}/{index}") for index in of]
        if len(of) == self.count:
            for earlier in self._said:
                self._client.key_value_delete(earlier)
            self._said.clear()
        if value is not None:
            self._said.append(place)
        return said

    def _wait(self, key: str) -> bytes:
        while True:
            with self._patiently():
                return self._client.blocking_key_value_get_bytes(key, ASKING)

    @contextlib.contextmanager
    def _patiently(self) -> Iterator[None]:
        """Inside, a question to the coordinator may have no answer yet."""
        try:
            yield
        except RuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise

    def assemble(self, words: str) -> None:
        """All come here, or this one leaves with the words: the others wait for it in vain."""
        here = f"tds_jax/here/{self._assembled}"
        self._assembled += 1
        self._client.key_value_set(f"{here}/{self.index}", "")
        until = time.monotonic() + self.silence
        while len(self._client.key_value_dir_get(here)) < self.count:
            if time.monotonic() > until:
                raise UserError(words)
            time.sleep(BEAT / 4)
