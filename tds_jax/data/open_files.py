"""A bounded number of open files per process, the least recently used closed first."""

import collections
import contextlib
import os
import threading
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Generic, TypeVar

File = TypeVar("File")


class _Held(Generic[File]):
    """The open files of one process, least recently used first."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.files: collections.OrderedDict[Hashable, File] = collections.OrderedDict()


class OpenFiles(Generic[File]):
    """Files opened on first use; safe in threads and workers.

    most: held per process. close: a function of a module, to travel with a pickle; files are keyed
    by process id and never do.
    """

    def __init__(self, most: int, close: Callable[[File], None]) -> None:
        self.most = most
        self._close = close
        self._per_process: dict[int, _Held[File]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_per_process": {}}

    def held(self) -> dict[Hashable, File]:
        """The files of this process by key, least recently used first."""
        return self._held().files

    def _held(self) -> _Held[File]:
        process = os.getpid()
        return self._per_process.get(process) or self._per_process.setdefault(process, _Held())

    @contextlib.contextmanager
    def using(self, key: Hashable, opened: Callable[[], File]) -> Iterator[File]:
        """The file of a key, `opened` if it is not held; no other thread uses any meanwhile.

        One lock from look-up to the last read: no other thread may close the file in between.
        """
        held = self._held()
        with held.lock:
            if key not in held.files:
                self._keep(self.most - 1)
                held.files[key] = opened()
            held.files.move_to_end(key)
            yield held.files[key]

    def close(self) -> None:
        """Closes this process's files; the next use opens them again."""
        with self._held().lock:
            self._keep(0)

    def _keep(self, most: int) -> None:
        files = self._held().files
        while len(files) > most:
            self._close(files.popitem(last=False)[1])
