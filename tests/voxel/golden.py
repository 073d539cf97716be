"""Arrays and numbers of the original implementation, and the rule that fills its weights."""

import json
import pathlib

import numpy as np
import pytest

FOLDER = pathlib.Path(__file__).parents[3] / "shared" / "parity" / "voxel"


def numbers():
    return json.loads(_there("golden.json").read_text())


def arrays():
    """Volumes and latents, channels last."""
    with np.load(_there("golden.npz")) as stored:
        return {name: np.moveaxis(stored[name], 1, -1) for name in stored if stored[name].ndim == 5}


def shapes(name):
    """{tensor: shape} of a state dict, in its order."""
    lines = _there(f"state_dict_{name}.txt").read_text().splitlines()
    pairs = (line.split(" ", 1) for line in lines if line.strip())
    return {key: tuple(int(n) for n in text.strip("() ,").split(",")) for key, text in pairs}


def _there(name):
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"{name} is not beside this checkout")
    return path


def fill(shapes):
    """Tensor j, element k in C order: s = sin(1.3 k + 0.7 j), scaled by what the tensor is."""
    made = {}
    for j, (name, shape) in enumerate(shapes.items()):
        s = np.sin(1.3 * np.arange(np.prod(shape), dtype=np.float64) + 0.7 * j).reshape(shape)
        if len(shape) > 1:
            s = s / np.sqrt(np.prod(shape[1:]))
        else:
            s = 1 + 0.1 * s if name.endswith("weight") else 0.05 * s
        made[name] = s.astype(np.float32)
    return made


def wave(*shape):
    """The formula's input of shape (B, C, D, H, W), channels last."""
    k = np.arange(np.prod(shape), dtype=np.float64)
    x = 0.5 * np.sin(0.37 * k) + 0.3 * np.cos(0.011 * k)
    return np.moveaxis(x.reshape(shape), 1, -1).astype(np.float32)
