"""What a layer computes carries its name, and the name changes nothing else."""

import re

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax.nn.linear import Linear
from tds_jax.nn.module import Module
from tds_jax.nn.norm import LayerNorm


class Half(Module):
    def __init__(self, rngs):
        self.up = Linear(4, 4, dtype=jnp.float32, rngs=rngs)
        self.norm = LayerNorm(4, dtype=jnp.float32)

    def __call__(self, x):
        return self.norm(self.up(x))


class Whole(Module, entries=("run",)):
    def __init__(self, rngs):
        self.first, self.second = Half(rngs), Half(rngs)

    def run(self, x):
        return self.second(jnp.tanh(self.first(x)))


def compiled_names(f, *args):
    """The names of what a compiled function does."""
    return set(re.findall(r'op_name="([^"]*)"', jax.jit(f).lower(*args).compile().as_text()))


def test_compiled_text_names_every_layer_forward_and_backward():
    graphdef, state = nnx.split(Whole(nnx.Rngs(0)))

    def loss(state, x):
        return (nnx.merge(graphdef, state).run(x) ** 2).sum()

    names = compiled_names(jax.value_and_grad(loss), state, jnp.ones((3, 4)))
    backward = {name for name in names if "transpose(jvp" in name}
    for place in ("first/up", "first/norm", "second/up", "second/norm"):
        assert any(f"/{place}/" in name for name in names - backward), place
        assert any(f"/{place}/" in name for name in backward), place


def test_a_module_held_under_two_names_keeps_the_first():
    class Twice(Module):
        def __init__(self, rngs):
            self.down = self.up = Linear(2, 2, dtype=jnp.float32, rngs=rngs)

    model = Twice(nnx.Rngs(0))
    assert (model.label, model.up.label) == ("", "down")


def test_names_are_static():
    model = Whole(nnx.Rngs(0))
    assert not any("label" in path for path, _ in nnx.to_flat_state(nnx.state(model)))
    assert nnx.merge(*nnx.split(model)).second.norm.label == "norm"
