"""Compiled programs on disk, so that a run that goes on need not compile anew."""

import sys
import tempfile
from pathlib import Path

import jax

from tds_jax.config import AUTO
from tds_jax.errors import UserError

OFF = "off"


def keep_programs(setting: str, workdir: Path) -> None:
    """Acts on `memory.compile_cache`: 'auto' is .compiled beside the workdir, 'off' none.

    Programs that took less than jax's own limit of one second to compile are not kept. Where the
    folder cannot be written: UserError if it was named, a warning if it is 'auto'.
    """
    if setting == OFF:
        return
    folder = workdir.absolute().parent / ".compiled" if setting == AUTO else Path(setting)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        words = (
            f"memory.compile_cache={setting}: {folder} cannot be written ({error.strerror}); name "
            f"another folder, or {OFF} to compile at every start"
        )
        if setting != AUTO:
            raise UserError(words) from error
        print(f"warning: {words}", file=sys.stderr)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
