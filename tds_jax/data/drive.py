"""A drive or network that fails, or no room for one more open file: no file is bad for it, and
none is left out.

Whoever reads files, and calls one bad for whatever a library may raise of it, asks here first.
"""

import contextlib
import errno
import os
from collections.abc import Collection, Iterator

TOO_MANY = {errno.EMFILE, errno.ENFILE}  # open files, of the process or the machine
DRIVE_ERRORS = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, *TOO_MANY}


@contextlib.contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Inside, a drive that fails is an OSError of the path, whatever is made of it."""
    try:
        yield
    except Exception as error:
        blame_the_drive(error, path)
        raise


def blame_the_drive(error: BaseException, path: str | os.PathLike[str]) -> None:
    """Raises an OSError of the path where the drive has failed; all else is the file's fault."""
    for one in _reasons(error):
        if number := number_of(one, DRIVE_ERRORS):
            raise OSError(number, os.strerror(number), os.fspath(path)) from error


def number_of(error: BaseException, among: Collection[int]) -> int | None:
    """Which of the system's errors it is; of libraries that only quote its words, too."""
    if isinstance(error, OSError) and error.errno in among:
        return error.errno
    return next((number for number in among if os.strerror(number) in str(error)), None)


def _reasons(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
