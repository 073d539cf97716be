"""A small voxel run on small generated scenes, shared by the tests of the task."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from configs import voxel_base
from tds_jax import config as configuration
from tds_jax import tasks
from tds_jax.voxel.task import VoxelTask

SETTINGS = {
    "data.synthetic_scenes": 4,
    "data.synthetic_frames": 3,
    "data.synthetic_shape": (4, 8, 8),
    "model.base": 2,
    "model.multipliers": (1, 2),
    "model.blocks": 0,
    "model.latent_channels": 2,
    "model.direct_width": 4,
    "model.direct_multipliers": (1, 2),
    "model.width": 4,
    "model.unet_multipliers": (1,),
    "model.condition_channels": 2,
    "model.condition_base": 2,
    "model.condition_blocks": 0,
    "model.sampler_steps": 3,
    "model.distillation_levels": 4,
    "optim.batch_size": 4,
    "optim.accumulate": 2,
    "optim.steps": 2,
    "optim.warmup_steps": 0,
    "eval.every": 2,
    "eval.batch_size": 2,
    "eval.renders": 1,
    "log.plots": False,
}  # latents are (4, 4, 4)


def small_config(tmp_path, **changes):
    """The base config, shrunk; changes are named group__field."""
    values = voxel_base.get_config()
    values.data.cache_dir = str(tmp_path / "cache")
    named = {name.replace("__", "."): value for name, value in changes.items()}
    for name, value in {**SETTINGS, **named}.items():
        group, field = name.split(".")
        values[group][field] = value
    return configuration.resolve(values.to_dict(), tasks.groups("voxel"))


def small_task(tmp_path, **changes):
    return VoxelTask(small_config(tmp_path, **changes))


def batch_of(task, indices, split="train"):
    """What a step would be given of these examples, each with a key."""
    source = task.source(split)
    keys = np.random.default_rng(0).integers(2**32, size=(len(source), 2), dtype=np.uint32)
    examples = [source.example(i, None) | {"key": keys[i]} for i in indices]
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *examples)


def objective(task, model, batch):
    """The sum over a batch's examples that training would lower."""
    graphdef, state = nnx.split(model)
    run = jax.jit(lambda state, batch: task.loss(nnx.merge(graphdef, state), batch, train=True)[0])
    return float(run(state, batch).sum)


def silenced(module):
    """A copy whose weights are all 0."""
    graphdef, state = nnx.split(module)
    return nnx.merge(graphdef, jax.tree.map(jnp.zeros_like, state))
