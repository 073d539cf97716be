"""The same training step in tds_jax, its parts, and products of the sizes it is made of."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.measuring import Step, load
from experiments.step_vs_pytorch.network import HIDDEN, SQUARE, STEPS
from tds_jax.budget import heap


def prepare(batch):
    """(a training step, what makes name -> what else can be timed, facts)."""
    heap.limit_arenas()  # as every door does
    step = Step(
        load(
            "emg2pose_tracking",
            optim__batch_size=batch, optim__accumulate=1,
            model__alignment="fixed", loss__fingertip_weight=0.0,
        )
    )  # fmt: skip
    heap.trim()
    parameters = sum(p.size for p in jax.tree.leaves(step.state.params))
    facts = {"parameters": parameters, "predicted": step.program.predicted.total}
    return step, lambda: products(batch) | parts(step), facts


def products(batch):
    """A large square product; and, in a loop as long as the decoder's, three of its products.

    Those have `batch` rows and each needs the one before, as the decoder's do; nothing else but
    adding up the four gates is in that loop.
    """
    a, square = jnp.ones((SQUARE, SQUARE)), jax.jit(jnp.matmul)
    weights = [jnp.full((HIDDEN, 4 * HIDDEN), 0.25 / HIDDEN) for _ in range(3)]

    def one(x, _):
        for w in weights:
            x = (x @ w).reshape(batch, 4, HIDDEN).sum(1)
        return x, None

    loop = jax.jit(lambda x, weights: jax.lax.scan(one, x, None, STEPS)[0])
    rows = jnp.ones((batch, HIDDEN))
    return {
        "product": lambda: square(a, a).block_until_ready(),
        "loop": lambda: loop(rows, weights).block_until_ready(),
    }


def parts(step):
    """Forward, and forward with backward, of encoder and decoder alone."""
    graphdef = step.program.blueprint.graphdef
    emg, poses = step.batch["emg"], step.batch["joint_angles"]
    # The step donates its own.
    params, rest = jax.tree.map(jnp.copy, (step.state.params, step.state.rest))

    def encode(params, emg):
        return nnx.merge(graphdef, params, rest).features(emg)

    def decode(params, features):
        model = nnx.merge(graphdef, params, rest)
        carry = model.initial_carry(len(poses), poses[:, 0])
        return model.decode(features, carry)[0]

    features = jax.jit(encode)(params, emg)
    found = {}
    for name, f, x in (("encoder", encode, emg), ("decoder", decode, features)):
        value = jax.jit(lambda p, x, f=f: jnp.sum(jnp.abs(f(p, x))))
        gradient = jax.jit(jax.grad(value, (0, 1) if f is decode else 0))
        found[f"{name}, forward"] = functools.partial(value, params, x)
        found[f"{name}, forward and backward"] = functools.partial(gradient, params, x)
    return {name: lambda f=f: jax.block_until_ready(f()) for name, f in found.items()}
