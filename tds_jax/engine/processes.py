"""Who this process is among the processes of a run, and what they decide together.

JAX's own engine joins them (`jax.distributed`); what they tell each other beside collectives goes
through its coordinator, which is process 0. Each says that it lives every BEAT seconds; one that is
silent, or has left with an error, ends the others with one line. Alone, all of this does nothing.
"""

import contextlib
import dataclasses
import json
import os
import pickle
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from tds_jax.engine import meeting
from tds_jax.engine.stopping import StopError, StopSignal
from tds_jax.errors import UserError

T = TypeVar("T")

BEAT = 2.0  # s
SILENCE = 30.0  # s without a sign of life, after which a process counts as dead
GATHERING = 300.0  # s to wait for all processes at the start
LEAVING = 10.0  # s for the others to hear why process 0 leaves: they hear through it
ASKING = 60_000  # ms that one question to the coordinator waits; asked again without an end
GOES_ON = "what was saved stays, and the same command goes on, also with fewer processes"
# Launchers that start a process for each device or host, and how they tell how many.
COUNTED = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMIX_SIZE")


@dataclasses.dataclass(frozen=True)
class Left:
    """How a process left. signal: that stopped it, '' without one. words: a line."""

    status: int
    words: str
    signal: str = ""


class Peers:
    """The processes of a run. leaving: told why this one is ended by another, before it ends."""

    def __init__(self, client: Any, index: int, count: int, silence: float) -> None:
        self.index, self.count, self.silence = index, count, silence
        self.leaving: Callable[[str], None] = lambda words: None
        self._client, self._asked, self._assembled, self.told = client, 0, 0, False
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
        if left is None and silent > self.silence:
            self.dead(index, f"has not answered for {silent:.0f} s")
        elif left and left["signal"] and not self.told:
            self.told = True
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

        All ask the same number of times, in the same order.
        """
        place = f"tds_jax/said/{self._asked}"
        self._asked += 1
        if value is not None:
            self._client.key_value_set_bytes(f"{place}/{self.index}", value)
        return [self._wait(f"{place}/{index}") for index in of]

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


_peers: Peers | None = None  # like JAX's own engine, one for each process


def start(coordinator: str | None, count: int | None, index: int | None) -> None:
    """Joins the processes of a run, as told, or as Slurm, Open MPI or a TPU slice tell JAX.

    Before anything touches a device. Raises UserError where one does not come.
    """
    given = {"--coordinator": coordinator, "--processes": count, "--process": index}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        if _launched():
            _join(None, None, None, SILENCE)
        return
    if coordinator is None or count is None or index is None:
        there = ", ".join(name for name in given if name not in missing)
        raise UserError(f"{there} needs {' and '.join(missing)} beside it; see docs/scale.md")
    if count < 1 or not 0 <= index < count:
        raise UserError(f"--process={index} must be between 0 and --processes={count} less 1")
    if count > 1:
        _join(coordinator, count, index, SILENCE)


def _launched() -> bool:
    """Whether a launcher has started this process as one of several."""
    several = any(int(os.environ.get(name) or 1) > 1 for name in COUNTED)
    return several or "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")


def _join(coordinator: str | None, count: int | None, index: int | None, silence: float) -> None:
    global _peers
    import jax

    lost = threading.Event()
    address = coordinator
    if coordinator is not None and count is not None and index is not None:
        address = meeting.meet(coordinator, count, index, GATHERING, lost.set)
    # Two programs with collectives must not run at once, in an order that the processes differ in.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    jax.config.update("jax_enable_preemption_service", False)  # signals are told as below
    gathered = threading.Event()
    threading.Thread(target=_give_up, args=(gathered,), daemon=True).start()
    jax.distributed.initialize(
        address,
        count,
        index,
        initialization_timeout=int(4 * GATHERING),
        heartbeat_timeout_seconds=int(4 * SILENCE),
    )
    gathered.set()
    from jax._src import distributed  # of its coordinator there is no public name

    state = distributed.global_state
    peers = _peers = Peers(state.client, state.process_id, state.num_processes, silence)
    if peers.index:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - as long as the process lives
        watch = threading.Thread(target=_watch, args=(lost, peers), daemon=True)
        watch.start()


def _give_up(gathered: threading.Event) -> None:
    """JAX would end the process with a stack trace."""
    if not gathered.wait(GATHERING):
        words = f"the other processes did not come in {GATHERING:.0f} s; look at theirs"
        print(f"error: {words}", file=sys.stderr, flush=True)
        os._exit(1)


def _watch(lost: threading.Event, peers: Peers) -> None:
    lost.wait()
    time.sleep(BEAT / 2)  # it may have said why it leaves
    peers.dead(0, "has gone")


def several() -> bool:
    """Whether there are other processes."""
    return _peers is not None


def index() -> int:
    """The number of this process."""
    return _peers.index if _peers else 0


def count() -> int:
    """How many processes there are."""
    return _peers.count if _peers else 1


def first() -> bool:
    """Whether this process writes what is written once."""
    return index() == 0


def share(items: list[T]) -> list[T]:
    """Those of a list that are this process's part of the work."""
    return items[index() :: count()]


def gather(value: T) -> list[T]:
    """Every process's value, by its number; all wait for all."""
    if _peers is None:
        return [value]
    said = _peers.ask(pickle.dumps(value), range(_peers.count))
    return [pickle.loads(one) for one in said]


def agree(flag: bool) -> bool:
    """Whether any process says so; all wait for all."""
    return any(gather(flag))


def broadcast(value: T) -> T:
    """Process 0's value; the others wait for it."""
    if _peers is None:
        return value
    mine = pickle.dumps(value) if _peers.index == 0 else None
    return pickle.loads(_peers.ask(mine, range(1))[0])


def by_first(work: Callable[[], T]) -> T:
    """What process 0 makes of work(), while the others wait; or its UserError, in all."""
    if _peers is None:
        return work()
    made: tuple[T | None, str] = (None, "")
    if _peers.index == 0:
        try:
            made = (work(), "")
        except UserError as error:
            made = (None, str(error))
    value, wrong = broadcast(made)
    if wrong:
        raise UserError(wrong)
    return value  # type: ignore[return-value]


def in_turn(work: Callable[[], T]) -> T:
    """work() in process 0, then in the others, which find what it has left on disk."""
    if _peers is None:
        return work()
    made: list[T] = []
    by_first(lambda: made.append(work()))
    return made[0] if made else work()


def leave(left: Left) -> None:
    """Tells the others how this process leaves."""
    if _peers is not None:
        _peers.leave(left)


def assemble(words: str) -> None:
    """Returns when all processes are here; UserError(words) where they do not all come."""
    if _peers is not None:
        _peers.assemble(words)


def stopping() -> None:
    """All have agreed to stop: that others leave for it is no news."""
    if _peers is not None:
        _peers.told = True


def when_ended(tell: Callable[[str], None]) -> None:
    """tell(words) is called in process 0 before another's death or error ends it."""
    if _peers is not None and first():
        _peers.leaving = tell


@contextlib.contextmanager
def naming_the_dead() -> Iterator[None]:
    """An error inside may come of another process's death, which is then known soon and ends all
    with a line that names it; else the error goes on."""
    try:
        yield
    except (UserError, StopError, KeyboardInterrupt):
        raise
    except BaseException:
        if _peers is not None:
            time.sleep(_peers.silence + 2 * BEAT)
        raise
