"""How far are our forecast networks from the originals, given the same weights?

    python -m experiments.forecast_parity

Largest difference of an output, and of the loss, gradients and running statistics of a training
step, from the arrays the original computed in f64, relative to the largest entry of each array. The
recorded gradients are stored in f32 (1.2e-7). Needs the recorded arrays beside the checkout.
"""

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from tds_jax.forecast.torch_names import import_params
from tests.forecast import published, test_parity
from tests.forecast.test_parity import relative_error


def furthest(ours, theirs):
    """The largest relative error of a leaf; one that is rounding alone, by the largest leaf."""
    scale = 1e-7 * max(np.abs(leaf).max() for leaf in jax.tree.leaves(theirs))
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return max(relative_error(a, b, 1e7 * scale * (np.abs(b).max() < scale)) for a, b in pairs)


def errors(name, dtype):
    """Relative errors of one network: eval, train, loss, gradients, running statistics."""
    data = published.recorded(name)
    with jax.enable_x64(dtype == np.float64):
        (loss, (maps, rest)), gradients, evaluated = test_parity.trained(name, dtype)
        tensors = {k.split("/")[1]: v for k, v in data.items() if k[:5] in ("grad/", "after")}
        wanted = import_params(gradients, rest, tensors)
        yield relative_error(evaluated[:, 0], data["eval"])
        yield relative_error(maps[:, 0], data["train"])
        yield relative_error(loss, data["loss"])
        yield furthest(gradients, wanted[0])
        yield furthest(rest, wanted[1]) if jax.tree.leaves(rest) else 0.0


def main():
    table = Table(title="relative to the original, T = 20, 4 channels, 7 x 9 cells, batch 2")
    for title in (
        "network",
        "parameters",
        "dtype",
        "eval",
        "train",
        "loss",
        "gradients",
        "running",
    ):
        table.add_column(title, justify="right")
    for name in published.NETWORKS:
        for dtype in (np.float32, np.float64):
            cells = (f"{value:.1e}" for value in errors(name, dtype))
            table.add_row(name, f"{published.NETWORKS[name][1]:,}", np.dtype(dtype).name, *cells)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
