"""A forecast model as one file: raw fields and the days' places in the year in, maps out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tds_jax.forecast.prediction import make_batch
from tds_jax.forecast.task import ForecastTask
from tds_jax.interchange import artefact
from tds_jax.interchange.artefact import Artefact, Form, Weights

# Of the target's spread. The same operations compiled again: rounding over the network.
TOLERANCES = {"float32": 1e-4, "bfloat16": 5e-2}


def write(task: ForecastTask, model: nnx.Module, target: Path) -> str:
    """Writes the file and says what is in it.

    offline(weights, fields (B, T, H, W, C) in the data's unit with NaN where missing,
    phase (B, T + L): share of each day's calendar year that has passed) -> (B, L, H, W). Of steps
    finer than a day phase is (B, T + L, 2): when each begins, in its year and in its day. Of K
    targets, the file's `targets`, L of the output is K L, target after target. B is
    free. Raises RuntimeError, and writes nothing, if the function read back differs from the model.
    """
    graphdef = nnx.graphdef(model)
    spec, recorded, data = task.spec, task.recorded, task.config.data
    (batch,) = jax.export.symbolic_shape("B")
    phase = task.batch_spec(1)["phase"].shape[1:]
    shape = (spec.inputs, recorded.height, recorded.width, len(recorded.variables))

    def offline(weights: Weights, fields: jax.Array, phase: jax.Array) -> jax.Array:
        model = nnx.merge(graphdef, artefact.nested(weights))

        def one(fields: jax.Array, phase: jax.Array) -> jax.Array:
            known = jnp.isfinite(fields)[None]
            cells = jnp.where(known, fields[None], 0)
            example = {"fields": cells, "present": known.astype(jnp.float32)}
            origin = jnp.zeros((1, 2), jnp.int32)
            return model(example | {"phase": phase[None], "origin": origin}, False)[0]

        # Networks cut their batch into chunks, for which its size must be known.
        return jax.vmap(one)(fields, phase)

    inputs = (
        jax.ShapeDtypeStruct((batch, *shape), jnp.float32),
        jax.ShapeDtypeStruct((batch, *phase), jnp.float32),
    )
    weights = artefact.flatten(nnx.to_pure_dict(nnx.state(model)))
    about = task.inputs() | {
        "task": "forecast",
        "jax": jax.__version__,
        "target": data.target,
        "targets": list(data.targets),
        "input_days": data.input_days,
        "lead_days": data.lead_days,
        "step_hours": data.step_hours,
    }
    forms = {"offline": Form(offline, inputs)}
    check = _make_check(model, shape, phase, TOLERANCES[task.config.memory.dtype])
    error = artefact.write(target, forms, weights, about, check)
    return (
        f"{target} ({target.stat().st_size / 2**20:.1f} MiB): offline for "
        f"{', '.join(artefact.PLATFORMS)}; differs from the checkpoint by at most {error:.1e} of "
        "the target's spread"
    )


def _make_check(
    model: Any, shape: tuple[int, ...], phases: tuple[int, ...], allowed: float
) -> Callable[[Artefact], float]:
    """What compares a file's function with the model on noise about the usual; a hole included."""

    def check(file: Artefact) -> float:
        rng = np.random.default_rng(0)
        scale, centre = (np.asarray(leaf[...]) for leaf in (model.scale, model.centre[0]))
        noise = rng.normal(size=(2, *shape)).astype(np.float32)
        fields = (centre + scale * noise).astype(np.float32)
        fields[0, 0, 0, 0] = np.nan
        places = np.linspace(0, 0.1, int(np.prod(phases)), dtype=np.float32)
        phase = np.broadcast_to(places.reshape(phases), (2, *phases))
        run = nnx.jit(lambda model, batch: model(batch, False))
        expected = run(model, jax.tree.map(jnp.asarray, make_batch(fields, phase)))
        around = model.around
        units = [scale[..., channel].min() for channel in around.targets]
        away = np.abs(file.functions["offline"](fields, phase) - expected)
        error = float((away.max(axis=(0, 2, 3)) / np.repeat(units, around.leads)).max())
        if not error <= allowed:
            raise RuntimeError(
                f"the exported form differs from the checkpoint by {error:.1e} of the target's "
                f"spread, more than {allowed}; nothing was written"
            )
        return error

    return check
