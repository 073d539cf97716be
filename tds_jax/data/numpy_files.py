"""NumPy's files, which several threads of a process read; `np.load` is called nowhere else."""

import contextlib
import os
import threading
from collections.abc import Iterator

import numpy as np
from numpy.lib.npyio import NpzFile

# NumPy reads a header by `ast.literal_eval`, which before Python 3.13 keeps its depth in one place
# for all threads. The garbage collector may begin inside, jax has it call Python, there another
# thread gets its turn, and a whole file ends in "AST constructor recursion depth mismatch". So who
# reads a header holds this; a thread that has it may take it again.
_one_reader = threading.RLock()


@contextlib.contextmanager
def archive(path: str | os.PathLike[str]) -> Iterator[NpzFile]:
    """The arrays of an .npz, each read when it is asked for; nothing pickled."""
    # np.load leaves a file that is no archive open.
    with _one_reader, open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        yield arrays


def array(path: str | os.PathLike[str], mapped: bool = False) -> np.ndarray:
    """A .npy, whole, or mapped to be read where it is indexed; nothing pickled."""
    with _one_reader:
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
