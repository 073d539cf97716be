"""Callbacks see what was trained and judged, and what they raise ends the run by their name."""

import jax
import numpy as np
import pytest

from tds_jax.engine import history, loop
from tds_jax.engine.blueprint import Blueprint
from tds_jax.engine.callbacks import Callback, CallbackError
from tds_jax.engine.logs import read_lines
from tests.engine import toy


class Watch(Callback):
    def __init__(self, stumble_at=0):
        self.losses, self.scores, self.params = {}, {}, {}
        self._stumble_at = stumble_at

    def on_update(self, update):
        if update.step == self._stumble_at:
            raise KeyError("missing")
        self.losses[update.step] = update.loss
        self.params[update.step] = jax.device_get(update.params)
        jax.numpy.ones(2)  # a callback may compute

    def on_evaluation(self, evaluation):
        self.scores[evaluation.step] = dict(evaluation.values)


def fit(folder, *callbacks, **changes):
    with history.recorded(folder, "toy"):
        return loop.fit(Blueprint(toy.ToyTask(), toy.config(**changes)), folder, callbacks)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    folder, watch = tmp_path_factory.mktemp("seen"), Watch()
    fit(folder, watch)
    return watch, read_lines(folder / "metrics.jsonl")


def test_every_update_is_seen_with_the_loss_of_its_whole_batch(seen):
    watch, lines = seen
    logged = {line["step"]: line["loss"] for line in lines if line["split"] == "train"}
    assert watch.losses.keys() == logged.keys() == set(range(1, 7))
    # Four micro-batches' sums, added in f64 here and in f32 there.
    np.testing.assert_allclose([*watch.losses.values()], [*logged.values()], rtol=4e-7)
    for first, second in zip(watch.params.values(), [*watch.params.values()][1:], strict=False):
        moved = jax.tree.map(lambda a, b: np.any(a != b), first, second)
        assert all(jax.tree.leaves(moved)), "each has parameters of its own"


def test_every_evaluation_is_seen_with_what_is_logged(seen):
    watch, lines = seen
    logged = {line["step"]: line for line in lines if line["split"] == "val"}
    assert watch.scores.keys() == logged.keys() == {2, 4, 6}
    for step, values in watch.scores.items():
        assert values == {name: logged[step][name] for name in values}


def test_what_a_callback_raises_ends_the_run_with_its_name_and_the_run_goes_on(seen, tmp_path):
    with pytest.raises(CallbackError, match=r"Watch.on_update at step 5: KeyError: 'missing'") as e:
        fit(tmp_path, Callback(), Watch(stumble_at=5))
    assert isinstance(e.value.__cause__, KeyError)
    assert "CallbackError: Watch.on_update at step 5" in history.read(tmp_path)[-1]["how"]
    watch = Watch()
    fit(tmp_path, watch)
    assert watch.losses == {step: seen[0].losses[step] for step in (5, 6)}
