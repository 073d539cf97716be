"""How far are our models from the originals, given the same weights?

    python -m experiments.parity

Largest difference of any output from the arrays the originals computed in f64, relative to the
largest output; features are the encoder's. Needs the recorded arrays beside the checkout.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.console import Console
from rich.table import Table

from tds_jax.pose.models import PoseModel
from tests.pose.test_parity import STUDENT, build, filled, fixture, jitted, relative_error

# Fixture, whether time is its last axis, and the names of its outputs.
FIXTURES = {
    "tds_lstm_default": (False, "out"),
    "regression_vemg2pose": (True, "pred"),
    "regression_emg2pose": (True, "pred"),
    "regression_neuropose": (True, "pred"),
}


def errors(name, dtype):
    """(features, poses) relative errors."""
    data = fixture(name)
    turned, output = FIXTURES[name]

    def turn(x):
        return np.swapaxes(x, 1, 2) if turned else np.asarray(x)

    if name == "tds_lstm_default":
        model = PoseModel(**STUDENT, dtype=dtype, rngs=nnx.Rngs(0))
    else:
        model = build(name, dtype)
    model = filled(model, name, dtype)
    emg = jnp.asarray(turn(data["emg"]), dtype)
    if name == "regression_neuropose":
        features = jitted(model, emg, method="frames")
    else:
        features = jitted(model.encoder, emg)
    features = np.swapaxes(features, 1, 2)[..., : data["features"].shape[2]]
    poses = turn(jitted(model, emg)[:, ::10])
    return relative_error(features, data["features"]), relative_error(poses, data[output])


def main():
    table = Table(title="relative error against the originals")
    for title in ("model", "f32 features", "f32 poses", "f64 features", "f64 poses"):
        table.add_column(title, justify="right")
    for name in FIXTURES:
        cells = []
        for dtype in (np.float32, np.float64):
            with jax.enable_x64(dtype == np.float64):
                cells += [f"{error:.1e}" for error in errors(name, dtype)]
        table.add_row(name, *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
