"""What happens to a door in its middle: hooks are called in its process before it begins."""

import contextlib
import ctypes
import importlib
import os
import resource
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tds_jax.data import whole_file

Action = Callable[[], object]
Hook = Callable[[], None]


def before(target: str, act: Action, call: int = 1) -> Hook:
    """Acts when 'module:name.name' is called for the `call`-th time, which it then is."""

    def install() -> None:
        owner, name = _place(target)
        real, calls = getattr(owner, name), [0]

        def hooked(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] == call:
                act()
            return real(*args, **kwargs)

        setattr(owner, name, hooked)

    return install


def _place(target: str) -> tuple[Any, str]:
    module, _, path = target.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    return owner, name


def instead(target: str, of: Callable[[Any], Any]) -> Hook:
    """'module:name.name' becomes of(what it was)."""

    def install() -> None:
        owner, name = _place(target)
        setattr(owner, name, of(getattr(owner, name)))

    return install


def at_file(name: str, act: Action, call: int = 1) -> Hook:
    """Acts before a file whose name begins so is written."""

    def install() -> None:
        real, calls = whole_file.temporary_of, [0]

        def hooked(path: Path, process: int) -> Path:
            calls[0] += path.name.startswith(name)
            if calls[0] == call and path.name.startswith(name):
                act()
            return real(path, process)

        whole_file.temporary_of = hooked

    return install


def send(*numbers: int, after: float = 0.0, apart: float = 0.3) -> Action:
    """Signals to this process: the first after so many seconds, the others one after another."""

    def act() -> None:
        for i, number in enumerate(numbers):
            later = after + i * apart
            if not later:
                os.kill(os.getpid(), number)
                continue
            timer = threading.Timer(later, os.kill, (os.getpid(), number))
            timer.daemon = True
            timer.start()

    return act


def kill_children() -> None:
    """SIGKILL to every data worker."""
    for child in psutil.Process().children(recursive=True):
        if "tracker" not in " ".join(child.cmdline()):
            child.send_signal(signal.SIGKILL)


def fill_disk(folder: Path, room: int = 0) -> Action:
    """Leaves `room` bytes on a small disk mounted there; elsewhere no file may grow beyond that."""

    def act() -> None:
        if not os.path.ismount(folder):
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
            return
        with (folder / "ballast").open("ab", buffering=0) as file:
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))
            file.truncate(max(0, file.tell() - room))

    return act


def obey_permissions() -> None:
    """Permissions count from here on, even where the campaign runs as root."""
    if os.getuid() == 0:
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this process: capability.h
        none = (ctypes.c_uint32 * 6)()
        if ctypes.CDLL(None, use_errno=True).capset(header, none):
            raise OSError(ctypes.get_errno(), "capset")


def forbid(*folders: Path) -> Action:
    """Makes folders read-only."""
    return lambda: [folder.chmod(0o555) for folder in folders if folder.exists()]


def allow(folder: Path) -> None:
    """Makes all folders below writable."""
    for at, _, _ in os.walk(folder):
        os.chmod(at, 0o755)


def limit(kind: int, amount: int) -> Action:
    """A resource limit of this process."""
    return lambda: resource.setrlimit(kind, (amount, resource.getrlimit(kind)[1]))


def remove(path: Path) -> None:
    """A file or a folder."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()
