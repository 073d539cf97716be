"""JSON files that are whole or not there, and whose damage is one clear line."""

import json
import os
from pathlib import Path
from typing import Any

from tds_jax.errors import UserError


def write(path: Path, values: Any) -> None:
    """Replaces the file by `values` at once."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(values, indent=1) + "\n")
    os.replace(temporary, path)


def read(path: Path, remedy: str) -> Any:
    """What the file says; UserError with the remedy if that is not JSON."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); {remedy}") from error
