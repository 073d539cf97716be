"""Sources for loader tests: importable by name, since spawned workers look them up."""

import sys

import numpy as np


class Numbers:
    """n examples: their index and a draw of their generator (-1 without one)."""

    def __init__(self, n):
        self._n = n

    def __len__(self):
        return self._n

    def __repr__(self):
        return f"Numbers({self._n})"

    def example(self, index, rng):
        draw = -1.0 if rng is None else rng.random()
        return {
            "value": np.full(3, index, np.float32),
            "draw": np.asarray(draw, np.float32),
            "weight": np.ones(2, np.float32),
            "backend": np.asarray(backend_is_initialized(), np.int32),
            "jax": np.asarray(sys.modules.get("jax") is not None, np.int32),
        }


def backend_is_initialized():
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bool(bridge and bridge.backends_are_initialized())
