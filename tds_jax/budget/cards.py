"""Whether programs may run on a card, or be compiled for one; known before jax starts."""

import importlib.util
import os
import pkgutil
from pathlib import Path

# NVIDIA's, the same under Windows' Linux, AMD's, and TPUs.
_CARDS = ("nvidia0", "nvidiactl", "dxg", "kfd", "accel0", "vfio/0")
_COMPILERS = ("xla_cuda", "xla_rocm")


def present(devices: Path = Path("/dev")) -> bool:
    """Whether this machine has a card or a TPU that jax was not told to leave alone."""
    told = os.environ.get("JAX_PLATFORMS", "").split(",")[0]
    return told != "cpu" and any((devices / name).exists() for name in _CARDS)


def has_compiler() -> bool:
    """Whether jax can compile for a card here, one that is there or one that is described."""
    found = importlib.util.find_spec("jax_plugins")
    places = found.submodule_search_locations if found else None
    return any(one.name.startswith(_COMPILERS) for one in pkgutil.iter_modules(places or []))
