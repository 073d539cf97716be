"""What a card's compiler is told, and compiled programs on disk for a run that goes on."""

import contextlib
import os
import sys
import tempfile
import zlib
from pathlib import Path

import jax

from tds_jax.budget import cards
from tds_jax.config import AUTO
from tds_jax.errors import UserError

OFF = "off"
LOOKED = ".looked"  # its time is that of the last look at the programs beside it
COARSE = 2 * 10**9  # ns; some file systems count whole seconds, or two
ZLIB = b"\x78"  # how jax's entries begin, but where it has found a library for zstd

# XLA's words for `memory.deterministic`. A name that it does not know ends the process; jaxlib
# 0.10.2 and 0.11.2 know these, that for CPU too.
_DETERMINISTIC = {
    "card": ("--xla_gpu_deterministic_ops=true",),
    "run": ("--xla_gpu_exclude_nondeterministic_ops=true",),
    "off": (),
}


def tell_compiler(deterministic: str) -> None:
    """Acts on `memory.deterministic`, before jax first touches a device; nothing without a card's
    compiler.

    A flag that XLA_FLAGS has already is the user's, and wins.
    """
    if cards.has_compiler():
        given = os.environ.get("XLA_FLAGS", "")
        own = {flag.split("=")[0] for flag in given.split()}
        added = [f for f in _DETERMINISTIC[deterministic] if f.split("=")[0] not in own]
        os.environ["XLA_FLAGS"] = " ".join([given, *added]).strip()


def keep_programs(setting: str, workdir: Path) -> None:
    """Acts on `memory.compile_cache`: 'auto' is .compiled beside the workdir, 'off' none.

    Small programs are kept, too: a run compiles dozens of them (drawing a weight, a gauge, a
    baseline), and jax by itself keeps what took it a second. On a card jax keeps there also which
    kernels were the fastest, so that no later start may find others. Where the folder cannot be
    written: UserError if it was named, a warning if it is 'auto'.
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
    if cut := _drop_cut_programs(folder):
        one = cut == 1
        print(
            f"note: {cut} compiled program{'s' * (not one)} in {folder} {'was' if one else 'were'} "
            "cut short, by a kill maybe: deleted, and compiled anew when needed",
            file=sys.stderr,
        )
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def _drop_cut_programs(folder: Path) -> int:
    """Deletes entries that are not whole, and counts them.

    Jax writes an entry under its name, so that a kill may leave a part of one; it then warns of it
    at every start, and never writes it anew. Each entry is looked at once, at the first start after
    it was written: reading all of them would take longer than they save.
    """
    looked = folder / LOOKED
    since = looked.stat().st_mtime_ns - COARSE if looked.exists() else 0
    entries = [*folder.glob("*-cache")]
    cut = 0
    with contextlib.suppress(OSError):  # of another's, who may have made the folder: as it was
        if entries:
            looked.touch()
        for path in entries:
            if path.stat().st_mtime_ns >= since and not _is_whole(path.read_bytes()):
                path.unlink()
                cut += 1
    return cut


def _is_whole(entry: bytes) -> bool:
    """Whether a compressed entry has its end; of what is not zlib's, whether there is anything."""
    if not entry.startswith(ZLIB):
        return any(entry)
    stream = zlib.decompressobj()
    try:
        stream.decompress(entry)
    except zlib.error:
        return False
    return stream.eof
