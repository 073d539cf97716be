"""A small masked regression, so that the engine is tested without any domain."""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tds_jax import config as configuration
from tds_jax.budget import memory
from tds_jax.config import Config, LoaderConfig, OptimConfig
from tds_jax.engine import metrics
from tds_jax.engine.blueprint import Blueprint
from tds_jax.engine.program import Program
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


def calls(examples: dict[str, np.ndarray], size: int, many: int) -> Iterator[dict[str, jax.Array]]:
    """The same, `many` slices at a time along a leading axis; one as it is."""
    for batch in batches(examples, size * many):
        if many == 1:
            yield batch
        else:
            yield {name: leaf.reshape(many, size, *leaf.shape[1:]) for name, leaf in batch.items()}


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
        "ema_decay": 0.0,
        "init_from": "",
        "frozen": (),
    }
    return OptimConfig(**values | changes)


def blueprint(
    net: Callable[[nnx.Rngs], nnx.Module] = Net,
    loss: Callable[..., Any] = loss,
    size: int = 16,
    many: int = 1,
    **changes: Any,
) -> Blueprint:
    """A network and a loss without anything else of a task; changes are of `optim_config`.

    many: micro-batches that a call takes.
    """
    task = SimpleNamespace(init=net, loss=loss, batch_spec=lambda examples, train=True: spec(size))
    settings = SimpleNamespace(
        optim=optim_config(**changes),
        memory=SimpleNamespace(shard="none"),
        seed=0,
        micro_batches_per_call=many,
    )
    return Blueprint(task, settings)


def relative(a: Any, b: Any) -> float:
    """‖a - b‖ / ‖b‖ over whole trees, in float64."""
    flat_a, flat_b = (
        np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in jax.tree.leaves(t)])
        for t in (a, b)
    )
    return float(np.linalg.norm(flat_a - flat_b) / np.linalg.norm(flat_b))


@dataclasses.dataclass(frozen=True)
class Nothing:
    """A group of settings without settings."""


def config(**changes: Any) -> Config:
    """A run of 6 updates of 4 micro-batches of 2; `group__name=value` changes a setting."""
    groups: dict[str, dict[str, Any]] = {
        "optim": {"batch_size": 8, "accumulate": 4, "steps": 6, "optimizer": "adamw"},
        "memory": {
            "budget": "",
            "host_budget": "",
            "allow_bfloat16": False,
            "compile_cache": "off",
            "call": "micro_batch",
            "shard": "none",
            "deterministic": "card",
            "remat": "none",
            "dtype": "float32",
            "matmul_precision": "default",
            "preallocate": True,
            "fraction": 0.0,
        },
        "eval": {
            "every": 2,
            "batch_size": 4,
            "metric": "loss",
            "mode": "min",
            "min_delta": 0.0,
            "patience": 0,
        },
        "checkpoint": {"every": 1, "keep": 2},
        "log": {"every": 1, "to": (), "plots": False, "profile": 0},
        "data": {"workers": 0, "threads": 0, "prefetch": 1, "persistent_workers": True},
        "model": {},
        "loss": {},
    }
    groups["optim"] = dataclasses.asdict(optim_config(**groups["optim"]))
    values: dict[str, Any] = {"task": "toy", "seed": 3}
    for name, value in changes.items():
        group, _, field = name.partition("__")
        (groups[group] if field else values)[field or group] = value
    kinds = {"model": Nothing, "loss": Nothing, "data": LoaderConfig}
    return configuration.resolve(values | groups, kinds)


@dataclasses.dataclass(frozen=True)
class Examples:
    """A `data.pipeline.Source` in memory; training examples are jittered by the pipeline's rng."""

    values: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.values["x"])

    def example(self, index: int, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
        """One example; with rng, noise is added to x."""
        found = {name: value[index] for name, value in self.values.items()}
        if rng is not None:
            found["x"] = found["x"] + rng.normal(size=found["x"].shape).astype(np.float32) / 10
        return found


@dataclasses.dataclass
class ToyTask:
    """A `tasks.Task` on `data`. on_line sees every logged line and may raise or send signals.

    bad: training examples that are not finite. worsen: validation targets are the negatives of
    training's, so that training makes the score worse. initialised: how often statistics were fit.
    """

    on_line: Callable[[dict[str, Any]], None] = lambda line: None
    bad: tuple[int, ...] = ()
    worsen: bool = False
    initialised: int = 0

    def under(self, config: Config) -> Self:
        """Nothing depends on settings."""
        return self

    def inputs(self) -> dict[str, Any]:
        """The width of x."""
        return {"features": FEATURES}

    def digest(self) -> str:
        """The data never change."""
        return "toy"

    def data_files(self) -> dict[str, str]:
        """None: they are made."""
        return {}

    def init(self, rngs: nnx.Rngs) -> nnx.Module:
        """The network."""
        return Net(rngs)

    def loss(
        self, model: nnx.Module, batch: dict[str, jax.Array], train: bool
    ) -> tuple[Objective, Any]:
        """Masked squared error."""
        return loss(model, batch, train)

    def source(self, split: str) -> Examples:
        """20 training examples, 7 others."""
        values = data(20, seed=0) if split == "train" else data(7, seed=1)
        if split == "train":
            values["x"][list(self.bad)] = np.nan
            values["weight"][list(self.bad)] = 1
        elif self.worsen:
            values["y"] = -values["y"]
        return Examples(values)

    def batch_spec(self, examples: int, train: bool = True) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of a batch as the loader makes it."""
        return spec(examples) | {
            "example": jax.ShapeDtypeStruct((examples,), jnp.int32),
            "key": jax.ShapeDtypeStruct((examples, 2), jnp.uint32),
        }

    def memory_options(self) -> dict[str, tuple[Any, ...]]:
        """Nothing to recompute."""
        return {}

    def fit_statistics(self) -> dict[str, Any]:
        """None."""
        self.initialised += 1
        return {}

    def first_params(self) -> dict[str, Any]:
        """None."""
        return {}

    def warnings(self) -> list[str]:
        """None."""
        return []

    def describe(self, values: dict[str, Any]) -> str:
        """The loss."""
        self.on_line(values)
        return f"loss {values['loss']:.4f}"


_PROGRAMS: dict[Any, Program] = {}


def compiled_once(blueprint: Blueprint) -> Program:
    """The program of a `ToyTask`'s run, compiled by the first run of these settings.

    Where a test says what a run does with its program, not how that comes about: making one takes
    as long as all the rest of a run. What a task does besides its loss is no part of a program.
    """
    config = blueprint.config
    key = config.optim, config.memory, config.eval.batch_size, config.seed
    if key not in _PROGRAMS:
        _PROGRAMS[key] = Program(blueprint)
        _ = _PROGRAMS[key].eval_step  # kept where it is compiled, not in the copy below
    own = copy.copy(_PROGRAMS[key])
    own.blueprint = copy.copy(own.blueprint)
    own.blueprint.task, own.blueprint.config = blueprint.task, config
    own.device = memory.DeviceMeter()
    return own


def host_batches(task: ToyTask, size: int) -> Iterator[dict[str, np.ndarray]]:
    """Training batches as the loader makes them."""
    source = task.source("train")
    for start in range(0, len(source) - size + 1, size):
        rows = [source.example(i, None) for i in range(start, start + size)]
        batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        number = np.arange(start, start + size, dtype=np.int32)
        yield batch | {"example": number, "key": np.zeros((size, 2), np.uint32)}
