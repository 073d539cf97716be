"""Compiled programs on disk, so that a run that goes on need not compile anew."""

from pathlib import Path

import jax

from tds_jax.config import AUTO

OFF = "off"


def keep_programs(setting: str, workdir: Path) -> None:
    """Acts on `memory.compile_cache`: 'auto' is .compiled beside the workdir, 'off' none.

    Programs that took less than jax's own limit of one second to compile are not kept.
    """
    if setting == OFF:
        return
    folder = workdir.absolute().parent / ".compiled" if setting == AUTO else Path(setting)
    jax.config.update("jax_compilation_cache_dir", str(folder))
