"""JSON files that are whole or not there, and whose damage is one clear line."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from tds_jax.data.drive import reading
from tds_jax.data.whole_file import whole_file
from tds_jax.errors import UserError


def write(path: Path, values: Any) -> None:
    """Replaces the file by `values` at once."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n")


def read(path: Path, remedy: str) -> Any:
    """What the file says; UserError with the remedy if that is not JSON."""
    try:
        with reading(path):
            return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); {remedy}") from error


def read_lines(path: Path, keys: Collection[str] = ()) -> tuple[list[dict[str, Any]], int]:
    """Objects of a file with one a line, and how many other lines there are; ([], 0) without it.

    keys: an object without one of these is another line, too. What follows the last line's end was
    cut short by a kill, and is none.
    """
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    found = [_object(line) for line in text.split("\n")[:-1]]
    whole = [line for line in found if line is not None and line.keys() >= set(keys)]
    return whole, len(found) - len(whole)


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
