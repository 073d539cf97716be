"""Small volume networks filled by a rule instead of drawn: quick to make, none of it zero."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tds_jax.engine.step import split
from tds_jax.voxel.networks.vae import VAE3D

SMALL = {
    "base": 4, "multipliers": (1, 2), "blocks": 1, "attention": False, "span": "block",
    "remat": "none", "tile": 0, "dtype": jnp.float32,
}  # fmt: skip


def make(seed=0, **options):
    """A VAE of two channels and two levels; its latents are (D, H / 2, W / 2)."""
    return random(lambda: VAE3D(2, 2, 2, **SMALL | options, rngs=nnx.Rngs(0)), seed)


def random(build, seed=0):
    """(graphdef, params, rest) of the module, params normal with unit gain of every layer."""
    graphdef, params, rest = split(nnx.eval_shape(build))
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        draw = rng.normal(size=leaf.shape).astype(np.float32)
        if leaf.ndim > 1:
            return jnp.asarray(draw / np.sqrt(np.prod(leaf.shape[:-1])))
        return jnp.asarray((path[-1].key == "scale") + 0.1 * draw)

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), rest)
    return graphdef, jax.tree_util.tree_map_with_path(fill, params), zeros


def volume(*shape, seed=1):
    """Standard normal, f32."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def widened(tree):
    """Every float leaf in f64."""
    return jax.tree.map(
        lambda leaf: leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf, tree
    )
