"""What prepared files are made from: written in each, so that none is served for another's."""

from collections.abc import Iterable
from pathlib import Path

from tds_jax.errors import UserError, some

ORIGIN = "prepared_from"  # attribute or array of a prepared file: `identity.fingerprint` of sources


def require_known(target: Path, found: Iterable[str], wanted: Iterable[str]) -> None:
    """UserError if a folder holds prepared files that these sources do not lead to.

    A run would train on them beside those that are right.
    """
    if strangers := sorted(set(found) - set(wanted)):
        raise UserError(
            f"--output={target} holds {some(strangers)}, which --input does not lead to; "
            "remove what is of other data, or choose another folder"
        )
