"""What is said of a file that a library cannot open or read, in one line."""

import contextlib
import os
from collections.abc import Iterator

from tds_jax.data.drive import blame_the_drive
from tds_jax.errors import UserError


@contextlib.contextmanager
def opening(path: str) -> Iterator[None]:
    """Says in one line why a file cannot be opened; OSError where the drive has failed."""
    try:
        yield
    except FileNotFoundError as error:
        if os.path.islink(path):
            target = os.readlink(path)
            raise UserError(f"{path}: a link to {target}, which is not there; fetch it") from error
        raise UserError(f"{path}: no such file; check the path") from error
    except PermissionError as error:
        raise UserError(f"{path}: not readable; check its permissions") from error
    except OSError as error:
        blame_the_drive(error, path)
        text = reason(error)
        if "truncated" in text:
            raise UserError(f"{path}: truncated HDF5 file; copy or download it again") from error
        if "signature not found" in text:
            raise UserError(f"{path}: not an HDF5 file; replace it or move it away") from error
        if "lock" in text:
            raise UserError(f"{path}: locked ({text}); close the program that writes it") from error
        raise UserError(f"{path}: cannot be opened ({text}); copy it again") from error


@contextlib.contextmanager
def naming(path: str, what: str = "") -> Iterator[None]:
    """Inside, any failure of the library is a UserError: a damaged file may fail anywhere in it.

    But where the drive has failed it is an OSError of the path.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        blame_the_drive(error, path)
        line = f"{path}: {what}cannot be read ({reason(error)}); copy the file again"
        raise UserError(line) from error


def reason(error: Exception) -> str:
    """The first line of what a library says of a file, where that is true and safe to follow."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "no array of NumPy's" if "allow_pickle" in text else text
