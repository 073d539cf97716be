"""How far are our volume autoencoders from the originals, given the same weights?

    python -m experiments.voxel_parity

Largest difference of an output from the array the original computed in f32, relative to its largest
entry; of ours in f32, and in f64, where what is left is the original's own rounding. Then numbers:
loss, divergence, norms of gradients. Needs the recorded arrays beside the checkout.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.console import Console
from rich.table import Table

from tests.voxel import golden, test_parity


def outputs(dtype):
    """{name: array} of the ultra preset on the recorded volume."""
    with jax.enable_x64(dtype == jnp.float64):
        run = test_parity.RUN | {"dtype": dtype}
        tensors = golden.fill(golden.shapes("ultra"))
        graphdef, params = test_parity.filled(
            test_parity.VAE3D, test_parity.PRESETS["ultra"], tensors, run
        )
        x = jnp.asarray(golden.arrays()["x"], dtype)

        def f(params, x):
            model = nnx.merge(graphdef, params)
            mean, logvar = model.encode(x)
            z = model.quantize(mean, logvar)
            return {"mu": mean, "logvar": logvar, "z": z, "recon": model.decode(z)}

        return jax.tree.map(np.asarray, jax.jit(f)(params, x))


def main():
    arrays = golden.arrays()
    narrow, wide = outputs(jnp.float32), outputs(jnp.float64)
    table = Table(title="ultra, 694,788 parameters")
    for title in ("output", "f32 to original", "f64 to original", "f32 to f64"):
        table.add_column(title, justify="right")
    for name in narrow:
        pairs = [(narrow, arrays), (wide, arrays), (narrow, wide)]
        table.add_row(name, *(f"{test_parity.error(a[name], b[name]):.1e}" for a, b in pairs))
    Console().print(table)
    _, (loss, kl), norms = test_parity.ultra()
    expected = golden.numbers()
    pairs = {"loss": (loss, expected["ultra loss@54adebe"][0])}
    pairs["divergence"] = (kl, expected["ultra loss@54adebe"][2])
    pairs["gradient"] = (np.linalg.norm(list(norms.values())), expected["ultra grad total"])
    pairs |= {name: (norms[name], value) for name, value in expected["ultra grad"].items()}
    table = Table(title="numbers, f64")
    for title in ("number", "ours", "original", "relative"):
        table.add_column(title, justify="right")
    for name, (ours, theirs) in pairs.items():
        table.add_row(name, f"{ours:.6g}", f"{theirs:.6g}", f"{abs(ours / theirs - 1):.1e}")
    Console().print(table)


if __name__ == "__main__":
    main()
