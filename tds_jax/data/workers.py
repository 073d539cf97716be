"""What a data worker does differently from the process that started it; imports nothing heavy."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time

TERM_GRACE = 20.0  # s
_WORKER_NAME = "grain-process-prefetch"


def leave_out_jax() -> None:
    """In a data worker, makes `import jax` fail, which Grain takes in its stride; else nothing.

    A worker then takes 47 MiB instead of 125 (PSS), and starts faster. Spawned workers run the
    main module again before they import Grain, so a program calls this there, before any import
    that may pull in jax, and imports jax inside functions only.
    """
    in_worker = multiprocessing.current_process().name.startswith(_WORKER_NAME)
    if in_worker and "jax" not in sys.modules:
        sys.modules["jax"] = None  # type: ignore[assignment]
        logging.getLogger("absl").setLevel(logging.ERROR)  # Grain warns that it has no profiler


def live_as_long_as_parent(worker_index: int, worker_count: int) -> None:
    """Makes this worker outlive signals meant for its parent, and end with the parent.

    A terminal's Ctrl-C and a scheduler's SIGTERM reach the whole process group, but the parent
    still wants a batch to finish its step and save: SIGINT is ignored, SIGTERM ends the worker
    TERM_GRACE seconds later. Within a second of the parent's death, even by SIGKILL, the worker
    is gone; without this, workers and their shared memory stay behind.
    """
    del worker_index, worker_count
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    expected = parent.pid

    def watch() -> None:
        while os.getppid() == expected:
            time.sleep(1)
        os._exit(1)

    def leave_later(signum: int, frame: object) -> None:
        timer = threading.Timer(TERM_GRACE, os._exit, (1,))
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, leave_later)
    threading.Thread(target=watch, daemon=True, name="watch_parent").start()
