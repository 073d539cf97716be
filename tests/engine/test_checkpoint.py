"""Checkpoints: whole, exact, few, and refused where they do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tds_jax.engine import sharding
from tds_jax.engine.checkpoint import Checkpoints
from tds_jax.errors import UserError
from tests.engine import toy


def positions(folder):
    """Names of the whole checkpoints on disk."""
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def save(folder, scores, keep):
    checkpoints = Checkpoints.open(folder, keep)
    for position, score in scores.items():
        checkpoints.save(position, {"w": jnp.full(3, position, jnp.float32)}, {}, score)
        checkpoints.wait()
    return checkpoints


SHAPES = {"w": jax.ShapeDtypeStruct((3,), jnp.float32)}


def restore(checkpoints, position, shapes=SHAPES):
    mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
    return checkpoints.restore(position, sharding.abstract(shapes, mesh))


def test_the_latest_few_and_the_best_are_kept(tmp_path):
    scores = {1: 0.9, 2: 0.1, 3: None, 4: 0.5, 5: None, 6: 0.4}
    checkpoints = save(tmp_path, scores, keep=2)
    assert positions(tmp_path) == [2, 5, 6]
    assert (checkpoints.latest(), checkpoints.best()) == (6, 2)
    np.testing.assert_array_equal(restore(checkpoints, 2).state["w"], [2, 2, 2])
    checkpoints.close()
    again = Checkpoints.open(tmp_path, 2)
    assert (again.latest(), again.best()) == (6, 2)
    again.close()


def test_an_unfinite_score_is_never_the_best(tmp_path):
    checkpoints = save(tmp_path, {1: 3.0, 2: float("inf"), 3: float("inf")}, keep=1)
    assert checkpoints.best() == 1
    checkpoints.close()


def test_without_scores_the_latest_is_the_best_and_an_empty_folder_has_none(tmp_path):
    checkpoints = Checkpoints.open(tmp_path / "empty", 1)
    assert checkpoints.latest() is None
    assert checkpoints.best() is None
    checkpoints.close()
    checkpoints = save(tmp_path / "some", {1: None, 2: None}, keep=1)
    assert checkpoints.best() == 2
    checkpoints.close()


def test_an_existing_position_is_kept_until_it_has_a_score(tmp_path):
    checkpoints = save(tmp_path, {1: None, 2: 0.5}, keep=2)
    checkpoints.save(1, {"w": jnp.zeros(3)}, {"new": 1}, None)
    checkpoints.wait()
    found = restore(checkpoints, 1)
    np.testing.assert_array_equal(found.state["w"], [1, 1, 1])
    assert found.progress == {}
    assert checkpoints.best() == 2
    checkpoints.save(1, {"w": jnp.zeros(3)}, {"new": 1}, 0.1)
    checkpoints.wait()
    assert restore(checkpoints, 1).progress == {"new": 1}
    assert checkpoints.best() == 1
    checkpoints.close()


def test_a_reader_leaves_the_writers_unfinished_work_alone(tmp_path):
    save(tmp_path, {1: 0.5}, keep=2).close()
    unfinished = tmp_path / "2.orbax-checkpoint-tmp"
    unfinished.mkdir()
    reader = Checkpoints.open(tmp_path, 2, read_only=True)
    assert reader.best() == 1
    assert unfinished.exists()
    reader.close()
    # Orbax clears in the background and waits for that before it first writes.
    save(tmp_path, {3: 0.5}, keep=2).close()
    assert not unfinished.exists()


def test_a_state_may_be_donated_right_after_saving(tmp_path):
    checkpoints = Checkpoints.open(tmp_path, 1)
    state = {"w": jnp.arange(3, dtype=jnp.float32)}
    checkpoints.save(1, state, {}, None)
    jax.jit(lambda s: jax.tree.map(lambda x: x * 0, s), donate_argnums=0)(state)
    checkpoints.wait()
    np.testing.assert_array_equal(restore(checkpoints, 1).state["w"], [0, 1, 2])
    checkpoints.close()


def test_progress_comes_back_as_it_was_infinite_numbers_too(tmp_path):
    progress = {"position": 7, "stopping": {"best": float("inf"), "bad": 2}}
    checkpoints = Checkpoints.open(tmp_path, 1)
    checkpoints.save(7, {"w": jnp.zeros(3)}, progress, None)
    checkpoints.wait()
    assert restore(checkpoints, 7).progress == progress
    checkpoints.close()


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"w": jax.ShapeDtypeStruct((3,), jnp.bfloat16)}, "stores w as float32.*needs bfloat16"),
        ({"w": jax.ShapeDtypeStruct((4,), jnp.float32)}, "does not fit this model"),
        ({"v": jax.ShapeDtypeStruct((3,), jnp.float32)}, "does not fit this model"),
        (SHAPES | {"v": jax.ShapeDtypeStruct((), jnp.float32)}, "does not fit this model"),
    ],
)
def test_other_types_shapes_and_names_are_refused_in_one_line(tmp_path, shapes, words):
    checkpoints = save(tmp_path, {5: None}, keep=1)
    with pytest.raises(UserError, match=words) as caught:
        restore(checkpoints, 5, shapes)
    assert "\n" not in str(caught.value)
    assert "checkpoint 5" in str(caught.value)
    checkpoints.close()


def test_leftovers_of_a_killed_save_are_ignored_and_removed(tmp_path):
    save(tmp_path, {1: None}, keep=1).close()
    leftover = tmp_path / "2.orbax-checkpoint-tmp"
    (leftover / "state").mkdir(parents=True)
    checkpoints = Checkpoints.open(tmp_path, 1)
    assert checkpoints.latest() == 1
    checkpoints.save(3, {"w": jnp.zeros(3)}, {}, None)
    checkpoints.close()
    assert [path.name for path in tmp_path.iterdir()] == ["3"]


def test_a_round_trip_in_the_middle_of_an_accumulation_window_is_exact(tmp_path):
    blueprint = toy.blueprint(accumulate=4, optimizer="adamw")
    init = jax.jit(blueprint.init)
    parts = list(toy.batches(toy.data(16 * 9), 16))

    def run(state, batches):
        for batch in batches:
            state, _ = blueprint.train_step(state, batch)
        return state

    whole = run(init(jax.random.key(0)), parts)
    half = run(init(jax.random.key(0)), parts[:6])
    assert int(half.opt_state.mini_step) == 2
    checkpoints = Checkpoints.open(tmp_path, 1)
    checkpoints.save(96, half, {}, None)
    checkpoints.wait()
    state = restore(checkpoints, 96, blueprint.shapes).state
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, run(state, parts[6:]), whole)
