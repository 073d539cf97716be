"""A small masked regression, so that the engine is tested without any domain."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tds_jax.config import OptimConfig
from tds_jax.engine import metrics
from tds_jax.engine.step import Objective

TIME, FEATURES, JOINTS = 5, 4, 3


class Net(nnx.Module):
    """Dense, LayerNorm, dense; (B, T, F) -> (B, T, J)."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.up = nnx.Linear(FEATURES, 16, rngs=rngs)
        self.norm = nnx.LayerNorm(16, rngs=rngs)
        self.down = nnx.Linear(16, JOINTS, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down(jnp.tanh(self.norm(self.up(x))))


def loss(model: nnx.Module, batch: dict[str, jax.Array], train: bool) -> tuple[Objective, Any]:
    """Masked squared error, summed, with the summed weight."""
    del train
    error = (model(batch["x"]) - batch["y"]) ** 2
    weight = batch["weight"]
    objective = Objective((error * weight[..., None]).sum(), weight.sum() * JOINTS)
    return objective, {"rad": metrics.Regression.of(model(batch["x"]), batch["y"], weight).pool()}


def unweighted_loss(
    model: nnx.Module, batch: dict[str, jax.Array], train: bool
) -> tuple[Objective, Any]:
    """The mistake: each micro-batch's masked mean counts 1, whatever its mask."""
    objective, states = loss(model, batch, train)
    mean = objective.sum / jnp.maximum(objective.weight, 1)
    return Objective(mean, jnp.ones(())), states


def data(examples: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Examples with ragged masks: between none and all of the rows count."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(examples, TIME, FEATURES)).astype(np.float32)
    y = rng.normal(size=(examples, TIME, JOINTS)).astype(np.float32) + x[..., :JOINTS]
    share = rng.random((examples, 1))
    weight = (rng.random((examples, TIME)) < share).astype(np.float32)
    return {"x": x, "y": y, "weight": weight}


def batches(examples: dict[str, np.ndarray], size: int) -> Iterator[dict[str, jax.Array]]:
    """Consecutive slices of `size` examples."""
    total = len(examples["x"])
    for start in range(0, total, size):
        yield {name: jnp.asarray(value[start : start + size]) for name, value in examples.items()}


def spec(size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a batch."""
    return jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype), data(size))


def optim_config(**changes: Any) -> OptimConfig:
    """SGD without clipping, one micro-batch, unless changed."""
    values: dict[str, Any] = {
        "batch_size": 64,
        "accumulate": 1,
        "steps": 5,
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "schedule": "constant",
        "warmup_steps": 0,
        "end_factor": 0.0,
        "weight_decay": 0.0,
        "clip_norm": 0.0,
    }
    return OptimConfig(**values | changes)


def relative(a: Any, b: Any) -> float:
    """‖a - b‖ / ‖b‖ over whole trees, in float64."""
    flat_a, flat_b = (
        np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in jax.tree.leaves(t)])
        for t in (a, b)
    )
    return float(np.linalg.norm(flat_a - flat_b) / np.linalg.norm(flat_b))
