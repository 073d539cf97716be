"""Checkpoints: whole, exact, few, and refused where they do not fit."""

import os
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tds_jax.engine import checkpoint, sharding
from tds_jax.engine.checkpoint import Checkpoints, DamagedError
from tds_jax.errors import UserError
from tests.engine import toy

pytestmark = pytest.mark.optimised  # bit for bit between programs for arrays here and there


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


def test_a_checkpoint_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    before, fsync = set(), os.fsync

    def note(descriptor):
        if not (tmp_path / "8").exists():
            before.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    save(tmp_path, {8: 1.0}, keep=1).close()
    files = [path for path in (tmp_path / "8").rglob("*") if path.is_file()]
    parts = {path.relative_to(tmp_path / "8").parts[0] for path in files}
    assert {"state", "progress", "metrics", "sums.json"} <= parts
    late = {path.name for path in files if path.stat().st_ino not in before}
    assert late <= {"commit_success.txt", "_CHECKPOINT_METADATA"}  # Orbax writes them at the end


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


def counted(folder, monkeypatch):
    """How many whole checkpoints there were whenever a file or folder was renamed or removed."""
    seen = []

    def watched(name):
        plain = getattr(os, name)

        def call(*args, **kwargs):
            result = plain(*args, **kwargs)
            seen.append(len([n for n in positions(folder) if (folder / str(n) / "state").exists()]))
            return result

        monkeypatch.setattr(os, name, call)

    for name in ("rename", "replace", "unlink", "rmdir"):
        watched(name)
    return seen


def test_a_score_that_comes_later_leaves_no_instant_with_fewer_checkpoints(tmp_path, monkeypatch):
    checkpoints = save(tmp_path, {8: None}, keep=1)
    seen = counted(tmp_path, monkeypatch)
    checkpoints.save(8, {"w": jnp.full(3, 8, jnp.float32)}, {"evaluated": 8}, 0.5)
    checkpoints.wait()
    assert seen
    assert min(seen) == 1
    found = restore(checkpoints, 8)
    assert (found.progress, checkpoints.best()) == ({"evaluated": 8}, 8)
    checkpoints.close()


def test_a_newer_checkpoint_is_whole_before_the_older_one_goes(tmp_path, monkeypatch):
    checkpoints = save(tmp_path, {8: None}, keep=1)
    seen = counted(tmp_path, monkeypatch)
    checkpoints.save(16, {"w": jnp.zeros(3)}, {}, None)
    checkpoints.wait()
    assert min(seen) == 1
    assert positions(tmp_path) == [16]
    checkpoints.close()


def test_a_late_score_keeps_the_config_under_which_the_state_was_written(tmp_path):
    checkpoints = Checkpoints.open(tmp_path, 1)
    checkpoints.save(8, {"w": jnp.zeros(3)}, {"config": "then", "evaluated": 0}, None)
    checkpoints.save(8, {"w": jnp.zeros(3)}, {"config": "now", "evaluated": 8}, 0.5)
    assert checkpoints.progress(8) == {"config": "then", "evaluated": 8}
    checkpoints.close()


def damaged(folder, name, how):
    """Harms the one file of checkpoint 8 that the pattern names, or all that it names."""
    for path in [path for path in (folder / "8").glob(name) if path.is_file()]:
        content = bytearray(path.read_bytes())
        if how == "deleted":
            path.unlink()
        elif how == "cut":
            path.write_bytes(content[: len(content) // 2])
        else:
            content[len(content) // 2] ^= 4
            path.write_bytes(content)


@pytest.mark.parametrize("how", ["deleted", "cut", "flipped"])
@pytest.mark.parametrize(
    "name",
    ["state/ocdbt.process_0/d/*", "state/d/*", "state/manifest.ocdbt", "state/_METADATA"],
)
def test_whatever_happens_to_a_file_of_the_state_is_damage_by_name(tmp_path, name, how):
    save(tmp_path, {8: 0.5}, keep=1).close()
    damaged(tmp_path, name, how)
    checkpoints = Checkpoints.open(tmp_path, 1)
    with pytest.raises(DamagedError, match=r"state/\S+ (is missing|has \d+ of|holds other bytes)"):
        restore(checkpoints, 8)
    checkpoints.close()


@pytest.mark.parametrize("words", ["{", '{"position": 9, "crc32": 1}'])
def test_what_the_host_remembered_is_told_from_what_was_written(tmp_path, words, caplog):
    save(tmp_path, {8: 0.5}, keep=1).close()
    (tmp_path / "8" / "progress" / "metadata").write_text(words)
    (tmp_path / "8" / "_CHECKPOINT_METADATA").write_text("cut")
    checkpoints = Checkpoints.open(tmp_path, 1)
    with pytest.raises(DamagedError, match="progress/metadata"):
        restore(checkpoints, 8)
    checkpoints.close()
    assert [one.getMessage() for one in caplog.records if one.levelname == "ERROR"] == []


def test_an_unreadable_score_does_not_hide_the_other_checkpoints(tmp_path):
    save(tmp_path, {8: 0.5, 16: 0.6}, keep=2).close()
    damaged(tmp_path, "metrics/metrics", "cut")
    checkpoints = Checkpoints.open(tmp_path, 2)
    assert checkpoints.best_first() == [16, 8]
    assert restore(checkpoints, 16).position == 16
    checkpoints.close()


def test_a_checkpoint_of_an_older_version_has_no_seal_and_is_read(tmp_path):
    save(tmp_path, {8: 0.5}, keep=1).close()
    (tmp_path / "8" / "sums.json").unlink()
    (tmp_path / "8" / "progress" / "metadata").write_text('{"position": 8}')
    checkpoints = Checkpoints.open(tmp_path, 1)
    assert restore(checkpoints, 8).progress == {"position": 8}
    shutil.rmtree(tmp_path / "8" / "state")
    with pytest.raises(DamagedError):
        restore(checkpoints, 8)
    checkpoints.close()


@pytest.mark.parametrize(
    "name", ["a b", "x?", "x*", "#1", "ümlaut", "a%20b", "new\nline", "[1]", "[", "a\\b", "\udcff"]
)
def test_a_folder_may_have_any_name(tmp_path, name):
    save(tmp_path / name / "kept", {8: 0.5}, keep=1).close()
    checkpoints = Checkpoints.open(tmp_path / name / "kept", 1)
    np.testing.assert_array_equal(restore(checkpoints, 8).state["w"], [8, 8, 8])
    checkpoints.close()


def test_a_pattern_in_a_name_is_refused_before_it_is_written_where_there_is_no_way_around(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(checkpoint, "_OPEN_FILES", tmp_path / "none")
    for name, letter in (("run[1]", "["), ("a\\b", "\\"), ("\udcff", "\udcff")):
        with pytest.raises(UserError, match=re.escape(f"cannot use a name with {letter!r}")):
            Checkpoints.open(tmp_path / name, 1)
        assert not (tmp_path / name).exists()
