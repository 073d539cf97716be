"""Arrays of the originals, rules of their weights and inputs; README.md has them in words."""

import json
import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent
WHOLE, STEP = 1024, 7  # longer arrays are kept as every 7th number


def outputs(name):
    """{output: array, flat} of one network: 'voxel/ultra', 'forecast/convlstm', 'pose/...'."""
    domain, network = name.split("/")
    with np.load(FOLDER / f"{domain}.npz") as stored:
        start = f"{network}/"
        return {key.removeprefix(start): stored[key] for key in stored if key.startswith(start)}


def sampled(array):
    """The numbers of an array that are recorded."""
    flat = np.ravel(array)
    return flat[::STEP] if flat.size > WHOLE else flat


def error(ours, recorded):
    """Largest difference, relative to the largest recorded number. ours: in PyTorch's layout."""
    ours = sampled(ours)
    assert ours.shape == recorded.shape
    return np.abs(ours - recorded).max() / np.abs(recorded).max()


def inputs(*shape, seed=29):
    """Standard normal numbers, rounded to f32."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def weights(shapes):
    """{tensor: f32 array} of a volume or forecast network, from {tensor: shape}."""
    rng, made = np.random.default_rng(23), {}
    for name in sorted(shapes):
        if name.endswith("num_batches_tracked"):
            continue
        shape = shapes[name]
        n = rng.normal(size=shape)
        if name.endswith("running_var"):
            n = 0.5 + np.abs(n)
        elif name.endswith("running_mean"):
            n = 0.1 * n
        elif len(shape) > 1:
            n = n / np.sqrt(np.prod(shape[1:]))
        else:
            n = 1 + 0.3 * n if name.endswith("weight") else 0.2 * n
        made[name] = n.astype(np.float32)
    return made


def pose_weights(name, shapes=FOLDER / "pose_shapes.json"):
    """{tensor: f64 array} of a pose network: names sorted, gains around 1, the rest small."""
    shapes = json.loads(shapes.read_text())[name]
    rng, made = np.random.default_rng(7), {}
    for key in sorted(shapes):
        if key.endswith("num_batches_tracked"):
            continue
        if key.endswith("running_var"):
            made[key] = rng.uniform(0.5, 1.5, shapes[key])
            continue
        draw = rng.normal(0, 0.1 if key.endswith("running_mean") else 0.08, shapes[key])
        gain = key.endswith("weight") and len(shapes[key]) == 1
        made[key] = 1 + 0.6 * draw if gain else draw
    return made


def with_gates(tensors, order, of):
    """The tensors, those with a name that `of` accepts with their four gates in another order."""
    found = dict(tensors)
    for key in filter(of, tensors):
        gates = np.split(tensors[key], 4)
        found[key] = np.concatenate([gates[n] for n in order])
    return found
