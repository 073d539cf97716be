"""Bytes between devices, counted in programs whose collectives are known."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tds_jax.budget.collectives import moved
from tds_jax.engine import sharding

SIDE = 64
WHOLE = 4 * SIDE * SIDE


def program(work, spec, out):
    """Optimised text of work on a (SIDE, SIDE) f32 matrix on two devices."""
    mesh = sharding.all_devices()
    x = jax.ShapeDtypeStruct((SIDE, SIDE), jnp.float32, sharding=NamedSharding(mesh, spec))
    return jax.jit(work, out_shardings=NamedSharding(mesh, out)).lower(x).compile().as_text()


SPLIT, REPLICATED = PartitionSpec("data"), PartitionSpec()


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (lambda x: x, WHOLE / 2),  # gathered: each sends its half
        (lambda x: x.sum(axis=0), 4 * SIDE),  # reduced to all: twice half of what is made
        (lambda x: jax.lax.fori_loop(0, 3, lambda i, y: y + (x + i).sum(axis=0), jnp.zeros(SIDE)),
         3 * 4 * SIDE),  # in a loop, at each turn
    ],
)  # fmt: skip
def test_what_is_sent_is_counted_as_often_as_it_is(work, expected):
    assert moved(program(work, SPLIT, REPLICATED), 2) == expected


def test_nothing_is_sent_where_nothing_is_shared():
    assert moved(program(lambda x: x + 1, SPLIT, SPLIT), 2) == 0


def test_forms_of_a_card_count_like_those_of_a_cpu():
    text = """
ENTRY %main (p: f32[64]) -> f32[128] {
  %p = f32[64]{0} parameter(0)
  %s = (f32[64]{0}, f32[128]{0}) all-gather-start(%p), dimensions={0}
  %d = f32[128]{0} all-gather-done(%s)
  %r = bf16[32]{0} reduce-scatter(%d), dimensions={0}
  ROOT %t = f32[128]{0} all-reduce-start(%d)
}
"""
    gathered, scattered, reduced = 4 * 128 / 2, 2 * 32 * 2 / 2, 2 * 4 * 128 / 2
    assert moved(text, 2) == gathered + scattered + reduced


def test_what_is_sent_in_steps_inside_other_work_is_sent_once():
    text = """
%begin (p: f32[64]) -> f32[128] {
  ROOT %g.1 = f32[128]{0} all-gather(%p), channel_id=3, dimensions={0}
}
%beside (q: f32[128]) -> f32[128] {
  %g.2 = f32[128]{0} all-gather(%q), channel_id=3, dimensions={0}
  ROOT %r = f32[32]{0} all-reduce(%q), channel_id=4
}
ENTRY %main (p: f32[64]) -> f32[128] {
  %f = f32[128]{0} fusion(%p), kind=kCustom, calls=%begin
  ROOT %h = f32[128]{0} fusion(%f), kind=kOutput, calls=%beside, metadata={}
}
"""
    gathered, reduced = 4 * 128 / 2, 2 * 4 * 32 / 2
    assert moved(text, 2) == gathered + reduced
