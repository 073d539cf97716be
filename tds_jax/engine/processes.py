"""Who this process is among the processes of a run, and what they decide together.

JAX's own engine joins them (`jax.distributed`); what they tell each other beside collectives goes
through `peers`. Alone, all of this does nothing.
"""

import contextlib
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from tds_jax.data.crew import ALONE, Crew
from tds_jax.engine import meeting, peers
from tds_jax.engine.peers import Left, Peers
from tds_jax.engine.stopping import StopError
from tds_jax.errors import UserError

T = TypeVar("T")

SILENCE = 30.0  # s without a sign of life, after which a process counts as dead
GATHERING = 300.0  # s to wait for all processes at the start
# Launchers that start a process for each device or host, and how they tell how many.
COUNTED = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMIX_SIZE")


ADDED = 2**22  # entries that are sent at once

_together = False
_connected = False
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
    joined = _peers = Peers(state.client, state.process_id, state.num_processes, silence)
    if joined.index:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - as long as the process lives
        watch = threading.Thread(target=_watch, args=(lost, joined), daemon=True)
        watch.start()


def _give_up(gathered: threading.Event) -> None:
    """JAX would end the process with a stack trace."""
    if not gathered.wait(GATHERING):
        words = f"the other processes did not come in {GATHERING:.0f} s; look at theirs"
        print(f"error: {words}", file=sys.stderr, flush=True)
        os._exit(1)


def _watch(lost: threading.Event, joined: Peers) -> None:
    lost.wait()
    time.sleep(peers.BEAT / 2)  # it may have said why it leaves
    joined.dead(0, "has gone")


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


def together(work: Callable[[], T]) -> T:
    """work() in all processes at the same time, which divide what is in it, see `crew`."""
    global _together
    before, _together = _together, True
    try:
        return work()
    finally:
        _together = before


def crew() -> Crew:
    """All processes, where they do a thing `together`; else this one alone."""
    return Crew(index(), count(), gather, _added) if _together else ALONE


def _added(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """The sums over all processes of arrays of 4 or 8 bytes an entry; all wait for all.

    Through the devices' own network, some at a time, as bits: f64 stays what it is.
    """
    return [_sum(array) for array in arrays] if _peers else arrays


def connect() -> None:
    """Opens the devices' network between all processes, once; each waits here for the last.

    Elsewhere its first use would open it, and that of CPUs gives up after 30 s on one that comes
    later: a process may compile for minutes what another finds on disk.
    """
    global _connected
    if _peers is None or _connected:
        return
    gather(None)
    import jax
    from jax.experimental import multihost_utils

    from tds_jax.engine import sharding

    with jax.transfer_guard("allow"):  # a network of one device each, and one of all
        multihost_utils.process_allgather(np.zeros(1, np.uint32))
        mesh = sharding.all_devices()
        rows = jax.make_array_from_callback(
            (mesh.size,), sharding.batch_sharding(mesh), lambda place: np.zeros(1, np.uint32)
        )
        jax.block_until_ready(sharding.everywhere(rows, mesh))
    _connected = True


def _sum(array: np.ndarray) -> np.ndarray:
    import jax
    from jax.experimental import multihost_utils

    connect()
    flat = array.reshape(-1).copy()
    with jax.transfer_guard("allow"):
        for start in range(0, flat.size, ADDED):
            part = slice(start, start + ADDED)
            bits = multihost_utils.process_allgather(flat[part].view(np.uint32))
            flat[part] = np.asarray(bits).reshape(count(), -1).view(flat.dtype).sum(axis=0)
    return flat.reshape(array.shape)


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
        _peers.agreed = True


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
            time.sleep(_peers.silence + 2 * peers.BEAT)
        raise
