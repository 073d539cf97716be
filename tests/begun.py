"""A run's folder without its training: statistics as training puts them, weights at random."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tds_jax import tasks
from tds_jax.engine import workdir
from tds_jax.engine.blueprint import Blueprint
from tds_jax.engine.loop import Standing
from tds_jax.engine.step import replace_leaves
from tds_jax.engine.stopping import EarlyStopping


def begun(folder, config):
    """(task, model) of a run in a folder: statistics as training puts them, weights at random.

    Nothing is compiled, which is what takes the time of small runs.
    """
    task = tasks.get(config)
    blueprint = Blueprint(task, config)
    shapes = blueprint.shapes
    rng = np.random.default_rng(0)
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    params = jax.tree.map(lambda p: np.float32(0.2 * rng.normal(size=p.shape)), shapes.params)
    rest = replace_leaves(state.rest, task.fit_statistics())
    state = jax.tree.map(jnp.asarray, dataclasses.replace(state, params=params, rest=rest))
    workdir.claim(folder, config, task.inputs(), task.digest(), task.data_files())
    progress = Standing(0, 0, EarlyStopping(0.0, 0))
    checkpoints = workdir.open_checkpoints(folder, config)
    remembered = dataclasses.asdict(progress) | {"step": 0, "config": config.to_dict()}
    checkpoints.save(0, state, remembered, score=None)
    checkpoints.close()
    return task, nnx.merge(blueprint.graphdef, state.params, state.rest)
