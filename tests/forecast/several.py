"""A run that forecasts two of the variables that it reads, and each of the two alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tds_jax.engine import step
from tests.forecast.small import record, small_task

NAMES = ("swvl1", "t2m")
HOLE = np.zeros((5, 6), bool)  # where there is never a temperature
HOLE[0, 5] = HOLE[4, 0] = True
AWAY = slice(30, 33)  # days without one
BOTH = {"data__variables": NAMES, "data__more_targets": ("t2m",)}
FITTED = {
    "model__prior": "linear",
    "model__local_days": 2,
    "model__local_kernel": 3,
    "model__local_means": (2, 4),
    "model__noise": 2,
}
ALL_FITTED = FITTED | {
    "model__local_wide": (1, 1),
    "model__local_place": True,
    "model__local_folds": 2,
}


def pair(count=240, seed=0, **options):
    """`record` with a temperature for its rain, over the sea too, but not everywhere and always."""
    data = record(count=count, seed=seed, **options)
    rng = np.random.default_rng(seed + 100)
    weather = np.zeros((count, 5, 6))
    for t in range(1, count):
        weather[t] = 0.6 * weather[t - 1] + rng.normal(0, 2, (5, 6))
    season = 8 * np.cos(2 * np.pi * np.arange(count) / 365)[:, None, None]
    values = np.where(HOLE, np.nan, 280 + season + weather).astype("f4")
    values[AWAY] = np.nan
    return data.drop_vars("tp").assign(t2m=(data.swvl1.dims, values, {"units": "K"}))


def write_pair(folder):
    """The file that most tests read."""
    pair().to_netcdf(folder / "daily.nc", engine="scipy")
    return folder / "daily.nc"


_TASKS = {}


def _opened(path, tmp_path, **changes):
    """The task of these settings: opened once, since every test asks for most of them."""
    key = path, *sorted(changes.items())
    if key not in _TASKS:
        _TASKS[key] = small_task(path, tmp_path, **changes)
    return _TASKS[key]


def task_of(path, tmp_path, **changes):
    return _opened(path, tmp_path, **BOTH | changes)


def alone(path, tmp_path, name, **changes):
    """The same run of one target."""
    one = {"data__variables": NAMES, "data__target": name}
    return _opened(path, tmp_path, **one | changes)


@functools.cache
def statistics_of(task):
    return task.fit_statistics()


def ready(task, silent=False):
    """A model with the task's statistics; silent: whose network answers 0."""
    graphdef, params, rest = step.split(task.init(nnx.Rngs(0)))
    rest = step.replace_leaves(rest, statistics_of(task))
    mix = {name: params[name] for name in ("mix",) if name in params}
    params = jax.tree.map(jnp.zeros_like, params) | mix if silent else params
    return nnx.merge(graphdef, params, rest)


def on_device(batch):
    return jax.tree.map(jnp.asarray, batch)
