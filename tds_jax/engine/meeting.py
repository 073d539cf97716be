"""How processes that are started by hand meet, before JAX joins them at the same address.

JAX waits at its coordinator for all, and ends those that came with a stack trace when one does not,
or when the coordinator's process dies. Here they first say who they are, so that one which is
missing can be named; then each but the first reaches the coordinator through a relay of its own,
which tells that it has gone and keeps JAX's line open.
"""

import contextlib
import json
import platform
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from tds_jax.errors import UserError

AGAIN = 0.2  # s between two calls of one who does not answer yet
PIECE = 1 << 16


def meet(coordinator: str, count: int, index: int, seconds: float, lost: Callable[[], None]) -> str:
    """Waits for all; returns where JAX finds the coordinator from here. lost(): it has gone.

    Raises UserError, in all that came, for one that has not come in so many seconds.
    """
    host, port = address(coordinator)
    if index == 0:
        _receive(coordinator, port, count, seconds)
        return coordinator
    _go(host, port, count, index, seconds)
    return f"127.0.0.1:{_relay(host, port, seconds, lost)}"


def address(coordinator: str) -> tuple[str, int]:
    """Host and port. UserError where it is not both."""
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise UserError(f"--coordinator={coordinator} must be HOST:PORT, such as node1:8476")
    return host.strip("[]"), int(port)


def _receive(coordinator: str, port: int, count: int, seconds: float) -> None:
    """Process 0: lets all go once they are all there."""
    until = time.monotonic() + seconds
    came: dict[int, socket.socket] = {}
    wrong = ""
    try:
        with socket.create_server(("", port), backlog=count) as server:
            while len(came) < count - 1 and not wrong:
                server.settimeout(max(0.01, until - time.monotonic()))
                try:
                    wrong = _let_in(server.accept()[0], came, count)
                except TimeoutError:
                    wrong = _missing(coordinator, came, count, seconds)
    except OSError as error:
        words = f"--coordinator={coordinator}: port {port} cannot be used here ({error.strerror})"
        raise UserError(f"{words}; name another, the same for all processes") from error
    for peer in came.values():
        with contextlib.suppress(OSError), peer:
            peer.sendall(json.dumps({"wrong": wrong}).encode() + b"\n")
    if wrong:
        raise UserError(wrong)


def _let_in(peer: socket.socket, came: dict[int, socket.socket], count: int) -> str:
    """Notes who has come; returns what is wrong with that."""
    peer.settimeout(5.0)
    try:
        said = _line(peer)
        number, theirs, host = said["process"], said["processes"], said["host"]
    except (OSError, ValueError, KeyError, TypeError):  # someone else, who knocks at every port
        peer.close()
        return ""
    if theirs != count:
        came[-1] = peer
        return f"--processes={count} here, but {theirs} on {host}; it must be the same for all"
    if number in came:
        came[-1] = peer
        return f"two processes say --process={number}, one on {host}; each needs its own number"
    came[number] = peer
    return ""


def _missing(coordinator: str, came: dict[int, Any], count: int, seconds: float) -> str:
    absent = ", ".join(str(i) for i in range(1, count) if i not in came)
    many = "es" if "," in absent else ""
    return (
        f"process{many} {absent} of {count} did not come to {coordinator} in {seconds:.0f} s; "
        f"start the same command there with its --process, and look whether the port is open"
    )


def _line(peer: socket.socket) -> dict[str, Any]:
    with peer.makefile("rb") as file:
        return json.loads(file.readline(PIECE))


def _go(host: str, port: int, count: int, index: int, seconds: float) -> None:
    """The others: come to process 0 and wait until it lets go."""
    until = time.monotonic() + seconds
    hello = {"process": index, "processes": count, "host": platform.node()}
    while time.monotonic() < until:
        try:
            with socket.create_connection((host, port), timeout=5.0) as peer:
                peer.settimeout(seconds + 60)
                peer.sendall(json.dumps(hello).encode() + b"\n")
                said = _line(peer)
        except (OSError, ValueError):
            time.sleep(AGAIN)
            continue
        if said["wrong"]:
            raise UserError(said["wrong"])
        return
    raise UserError(
        f"process 0 of {count} did not answer at {host}:{port} in {seconds:.0f} s; start it there, "
        "and look whether the port is open"
    )


def _relay(host: str, port: int, seconds: float, lost: Callable[[], None]) -> int:
    """A port of this machine that leads to the coordinator; stays open when that has gone."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            here = server.accept()[0]
            there = _reach(host, port, seconds)
            if there is None:
                lost()
                return
            for source, target, then in ((here, there, lambda: None), (there, here, lost)):
                threading.Thread(target=_pass, args=(source, target, then), daemon=True).start()

    threading.Thread(target=serve, daemon=True, name="relay").start()
    return server.getsockname()[1]


def _reach(host: str, port: int, seconds: float) -> socket.socket | None:
    """JAX's coordinator, which begins to listen a moment later."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            found = socket.create_connection((host, port), timeout=5.0)
            found.settimeout(None)
            return found
        time.sleep(AGAIN)
    return None


def _pass(source: socket.socket, target: socket.socket, then: Callable[[], None]) -> None:
    """Bytes from one to the other, until the first has gone."""
    with contextlib.suppress(OSError):
        while piece := source.recv(PIECE):
            target.sendall(piece)
    then()
