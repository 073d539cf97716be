"""The parameters in a file of another program, of any format that is known here.

Trainers that average weights while they train keep both: beside each other in the file, or in one
state dict under two prefixes.
"""

import dataclasses
from pathlib import Path

from tds_jax.errors import UserError, some
from tds_jax.interchange import safetensors_format, torch_format
from tds_jax.interchange.torch_fill import bare
from tds_jax.interchange.torch_format import AVERAGE_KEYS, STATE_KEYS, Archive

MODEL, EMA = "model", "ema"
# First words of names in a state dict that holds a model and its average, and what only counts.
AVERAGES = ("ema", "ema_model", "model_ema", "averaged_model")
COUNTERS = ("n_averaged", "num_updates", "decay", "initted", "step")


def read(path: Path, weights: str = MODEL) -> Archive:
    """The parameters in a file: the 'model' as it was trained, or its average, 'ema'.

    A file with nothing but an average gives that. Raises UserError, in one line, for what cannot
    be read, and where an average is asked for that is not there.
    """
    archive = _read(path, STATE_KEYS, AVERAGE_KEYS)
    if weights == EMA and archive.averages:
        archive = _read(path, AVERAGE_KEYS, ())
    return _part(path, archive, weights)


def _read(path: Path, keys: tuple[str, ...], others: tuple[str, ...]) -> Archive:
    try:
        if not safetensors_format.is_safetensors(path):
            return torch_format.read(path, keys, others)
        return Archive(safetensors_format.read(path), "", (), ())
    except OSError as error:
        raise UserError(f"--checkpoint={path} cannot be read ({error.strerror})") from error


def _part(path: Path, archive: Archive, weights: str) -> Archive:
    """The tensors of one state dict that are of the model, or of its average."""
    tensors = {n: t for n, t in archive.tensors.items() if n.split(".")[-1] not in COUNTERS}
    averaged = {name for name in tensors if _first(name) in AVERAGES}
    if weights == EMA and not averaged and archive.source not in AVERAGE_KEYS:
        raise UserError(
            f"--checkpoint={path} holds no averaged weights (none of {', '.join(AVERAGE_KEYS)}, no "
            f"name that begins with {', '.join(AVERAGES)}); leave --weights out"
        )
    both = averaged and len(averaged) < len(tensors)
    wanted = averaged if weights == EMA else tensors.keys() - averaged
    chosen = {n: t for n, t in tensors.items() if n in wanted} if both else tensors
    beside = (some(sorted(averaged), 1),) if both and weights == MODEL else ()
    dropped = tuple(sorted(archive.tensors.keys() - tensors.keys()))
    return dataclasses.replace(
        archive,
        tensors={_without_average(name): tensor for name, tensor in chosen.items()},
        others=archive.others + dropped,
        averages=archive.averages + beside,
    )


def _first(name: str) -> str:
    return bare(name).split(".")[0]


def _without_average(name: str) -> str:
    return bare(name).split(".", 1)[1] if _first(name) in AVERAGES else name
