"""JSON files that are whole or not there, and whose damage is one clear line."""

import json
from pathlib import Path
from typing import Any

from tds_jax.data.whole_file import whole_file
from tds_jax.errors import UserError


def write(path: Path, values: Any) -> None:
    """Replaces the file by `values` at once."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n")


def read(path: Path, remedy: str) -> Any:
    """What the file says; UserError with the remedy if that is not JSON."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); {remedy}") from error
