"""Folders of generated data: whole or absent, and built once however many ask."""

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tds_jax.errors import UserError

MARKER = "simulation.json"  # written last; holds everything the data depend on
STALE_SECONDS = 3600.0  # a build adds a file every few seconds; silent so long, it is dead


def cached_folder(cache_dir: str | Path, name: str, description: str) -> Path:
    """The folder of `cache_dir` for data of this kind and description."""
    digest = hashlib.sha256(description.encode()).hexdigest()[:12]
    return Path(cache_dir) / f"{name}_{digest}"


def build_once(folder: str | Path, description: str, build: Callable[[Path], None]) -> Path:
    """Fills `folder` by `build(empty folder)` unless it holds this description; returns it.

    All files appear at once: the build happens in a hidden sibling folder and ends with a rename,
    so a killed build leaves `folder` absent, and of two builders at once either may win. Raises
    UserError if `folder` holds anything else.
    """
    folder = Path(folder)
    if _holds(folder, description):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{folder.name}.building-"
    _sweep(folder.parent, prefix)
    building = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        build(building)
        (building / MARKER).write_text(description)
        _publish(building, folder, description)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def _holds(folder: Path, description: str) -> bool:
    """Whether `folder` is complete; False if it is absent or empty."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    marker = folder / MARKER
    if marker.is_file() and marker.read_text() == description:
        return True
    raise UserError(
        f"{folder} exists and is not this synthetic data set; choose another folder or remove it"
    )


def _sweep(parent: Path, prefix: str) -> None:
    """Removes what killed builds left behind."""
    for leftover in parent.glob(f"{prefix}*"):
        if time.time() - leftover.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(leftover, ignore_errors=True)


def _publish(building: Path, folder: Path, description: str) -> None:
    building.chmod(0o755)  # mkdtemp makes it private
    try:
        building.rename(folder)
    except OSError:  # another builder was first
        if not _holds(folder, description):
            raise
