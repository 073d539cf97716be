"""A fourth domain, as small as one can be: a signal in, its frequency out."""

import copy
import dataclasses
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tds_jax.config import LoaderConfig
from tds_jax.data.places import require_new
from tds_jax.engine import metrics
from tds_jax.engine.evaluation import Evaluator
from tds_jax.engine.report import ALL, MODEL, Report, Row
from tds_jax.engine.step import Objective, compiled
from tds_jax.fields import require_at_least
from tds_jax.tasks import DataAbout

SIZES = {"train": 256, "val": 32, "test": 32}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """hidden: units between signal and number."""

    hidden: int

    def __post_init__(self) -> None:
        require_at_least("model.hidden", self.hidden, 1)


@dataclasses.dataclass(frozen=True)
class DataConfig(LoaderConfig):
    """length: samples of a signal. path: '' for signals that are made."""

    path: str
    length: int


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Squared error has nothing to set."""


class Net(nnx.Module):
    """(B, T) -> (B, 1)."""

    def __init__(self, length, hidden, rngs):
        self.up = nnx.Linear(length, hidden, rngs=rngs)
        self.down = nnx.Linear(hidden, 1, rngs=rngs)

    def __call__(self, x):
        return self.down(jnp.abs(self.up(x)))


@dataclasses.dataclass(frozen=True)
class Signals:
    """Sines of 0.5 to 1.5 periods with noise; example i is a function of (split, i)."""

    split: str
    length: int

    def __len__(self):
        return SIZES[self.split]

    def example(self, index, rng):
        made = np.random.default_rng((list(SIZES).index(self.split), index))
        periods = made.uniform(0.5, 1.5)
        wave = np.sin(2 * np.pi * periods * np.arange(self.length) / self.length)
        noisy = wave + 0.05 * (rng or made).normal(size=self.length)
        return {
            "signal": noisy.astype(np.float32),
            "periods": np.float32([periods]),
            "weight": np.ones(1, np.float32),
        }


class SignalTask:
    """A `tasks.Task`; see there."""

    def __init__(self, config, inputs=None):
        self.config, self.length = config, (inputs or {}).get("length", config.data.length)

    def under(self, config):
        other = copy.copy(self)
        other.config = config
        return other

    def inputs(self):
        return {"length": self.length}

    def digest(self):
        return f"made {self.length}"

    def data_files(self):
        return {}

    def data_about(self):
        return DataAbout("", f"{sum(SIZES.values())} signals", True)

    def init(self, rngs):
        return Net(self.length, self.config.model.hidden, rngs)

    def loss(self, model, batch, train):
        found, target, weight = model(batch["signal"]), batch["periods"], batch["weight"]
        total = jnp.sum(weight * (found - target) ** 2, dtype=jnp.float32)
        states = {"periods": metrics.Regression.of(found[:, None], target[:, None], weight).pool()}
        return Objective(total, jnp.sum(weight, dtype=jnp.float32)), states

    @functools.cache  # noqa: B019 - one task per run, three splits
    def source(self, split):
        return Signals(split, self.length)

    def batch_spec(self, examples, train=True):
        one = jax.tree.map(np.asarray, self.source("train").example(0, None))
        one |= {"example": np.int32(0), "key": np.uint32([0, 0])}
        return {k: jax.ShapeDtypeStruct((examples, *v.shape), v.dtype) for k, v in one.items()}

    def memory_options(self):
        return {}

    def fit_statistics(self):
        return {}

    def first_params(self):
        return {}

    def warnings(self):
        return []

    def describe(self, values):
        return f"loss {values['loss']:.4f}  mae {values['mae_periods']:.3f} periods"


def evaluate(task, model, split, workdir, keep):
    """The model beside the mean of the train split."""
    train = task.source("train")
    mean = np.mean([train.example(i, None)["periods"] for i in range(len(train))])
    errors = {MODEL: [], "mean": []}
    run = Evaluator(model, lambda model, batch: model(batch["signal"]), task.config)
    for batch, found in run.over(task.source(split)):
        kept = batch["example"] >= 0
        for name, value in ((MODEL, found), ("mean", mean)):
            errors[name] += list(np.abs(value - batch["periods"])[kept, 0])
    rows = [
        Row(split, ALL, name, "mae_periods", float(np.mean(each)), None, float(len(each)))
        for name, each in errors.items()
    ]
    return Report(rows, ("mae_periods",), ())


def predict(task, model, source, target, workdir, made, overwrite):
    """One number per row of a .npy file."""
    require_new([Path(target)], overwrite)
    np.save(target, compiled(model, lambda model, x: model(x))(np.load(source)))
    Path(target).with_suffix(".json").write_text(json.dumps({**made}))
    return [Path(target)]
