"""The planner: affine bytes, the cheapest that fits, an answer when nothing does."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from tds_jax.budget import needs, planner, table, targets
from tds_jax.budget.cost import Speed
from tds_jax.budget.planner import Planner
from tds_jax.budget.targets import Target
from tds_jax.config import MemoryConfig
from tds_jax.config import replace as replaced
from tds_jax.engine import metrics
from tds_jax.engine.blueprint import Blueprint, remembered
from tds_jax.errors import UserError
from tds_jax.sizes import GIB, MIB
from tests.engine import toy

WIDTH = 256


class Wide(nnx.Module):
    """Enough activations per example, and per scanned step, that bytes are not noise."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.up = nnx.Linear(toy.FEATURES, WIDTH, rngs=rngs)
        self.down = nnx.Linear(WIDTH, toy.JOINTS, rngs=rngs)

    def __call__(self, x):
        y = jnp.tanh(self.up(jnp.repeat(x, 50, axis=1)))
        return self.down(y).reshape(*x.shape[:2], 50, toy.JOINTS).mean(axis=2)


class WideTask(toy.ToyTask):
    """The toy's data, a wider network."""

    def init(self, rngs):
        return Wide(rngs)


def build(config):
    return Blueprint(WideTask(), config)


TARGET = Target(
    name="test",
    kind="cpu",
    mesh=targets.find("here").mesh,
    limit=GIB,
    margin=0.1,
    at_least=0,
    speed=Speed(1e10, 1e10, 1e-5),
    on_host=True,
)


@pytest.fixture(scope="module")
def config():
    return toy.config(optim__batch_size=64, optim__accumulate=4)


@pytest.fixture(scope="module")
def explored(config):
    found = Planner(build, config, TARGET, say=lambda words: None)
    found.explore()
    return found


def test_every_equal_split_that_the_devices_can_share_is_a_candidate(explored):
    sizes = [c.optim.micro_batch for c in explored.candidates]
    assert jax.device_count() == 2
    assert sizes == [64, 32, 16, 8, 4, 2]


@pytest.mark.long
def test_the_line_through_two_sizes_meets_the_others(explored, config):
    """Bytes are affine in the micro-batch but for padding and fusion: 5 % or 64 KiB."""
    for row in explored.rows():
        fresh = Planner(build, config, TARGET, say=lambda words: None)
        assert row.step.total == pytest.approx(
            fresh.needs.measure(row.config).step.total, rel=0.05, abs=2**16
        )
    assert sum(row.origin == "compiled" for row in explored.rows()) == 2


def test_bytes_fall_and_cost_rises_with_smaller_micro_batches(explored):
    rows = explored.rows()
    assert [r.training for r in rows] == sorted((r.training for r in rows), reverse=True)
    assert [r.seconds for r in rows] == sorted(r.seconds for r in rows)


def test_the_cheapest_that_fits_is_chosen_and_confirmed(explored):
    rows = {row.config.optim.micro_batch: row for row in explored.rows()}
    for size in (64, 16, 4):
        budget = round(rows[size].training / 0.9) + MIB // 8
        plan = explored.choose(budget, None)
        assert plan.chosen.config.optim.micro_batch == size
        assert plan.chosen.origin == "compiled"
        assert plan.device_peak <= TARGET.usable(budget)
        assert plan.config.optim.batch_size == 64


def test_a_generous_budget_needs_one_training_step_compiled(config):
    said = []
    found = Planner(build, config, TARGET, said.append)
    plan = found.choose(GIB, None)
    assert plan.config.optim.accumulate == 1
    assert [words for words in said if "micro-batch" in words] == [
        "compiling micro-batch 64 x 1, float32, remat none"
    ]


def test_a_budget_that_nothing_fits_names_the_least_and_a_remedy(explored):
    with pytest.raises(UserError) as caught:
        explored.choose(10_000, None)
    text = str(caught.value)
    assert "memory.budget=10 KiB is too small: the least is" in text
    assert "of it, the margin " in text
    assert "micro-batch 2 x 32" in text
    assert "raise it, or" in text


@dataclasses.dataclass(frozen=True)
class ChunkedMemory(MemoryConfig):
    """The engine's settings. rows: examples that pass through the network at once; 0: all."""

    rows: int


class ChunkedTask(WideTask):
    """By chunks of examples, going forward too."""

    rows = 0

    def loss(self, model, batch, train):
        if not self.rows:
            return super().loss(model, batch, train)
        cut = jax.tree.map(lambda leaf: leaf.reshape(-1, self.rows, *leaf.shape[1:]), batch)
        parts = jax.lax.map(lambda part: toy.loss(model, part, train), cut)
        return jax.tree.map(lambda leaf: leaf.sum(axis=0), parts[0]), metrics.pool(parts[1])


def chunked(config):
    task = ChunkedTask()
    task.rows = config.memory.rows
    return Blueprint(task, config)


def test_an_evaluation_in_chunks_has_bytes_of_its_own_but_none_of_recomputation(config):
    memory = ChunkedMemory(**dataclasses.asdict(config.memory), rows=0)
    own = dataclasses.replace(config, memory=memory)
    whole, parts, again = (
        replaced(own, {"eval.batch_size": 64, "memory.rows": rows, "memory.remat": remat})
        for rows, remat in ((0, "none"), (2, "none"), (2, "full"))
    )
    said = []
    found = needs.Needs(chunked, TARGET, said.append)
    row = found.measure(whole)
    assert found.evaluation(row, parts) < found.evaluation(row, whole) / 4
    assert found.evaluation(row, again) == found.evaluation(row, parts)
    assert len(said) == 3


def test_a_host_budget_shrinks_the_loader_first(explored):
    reader = dataclasses.replace(explored._config.data, workers=4, prefetch=8)
    own = dataclasses.replace(explored._config, data=reader)
    found = Planner(build, own, TARGET, say=lambda words: None)
    roomy = found.choose(GIB, None)
    assert (roomy.config.data.workers, roomy.config.data.prefetch) == (4, 8)
    known = found.needs.overhead
    found.needs.overhead = known._replace(compiling=known.kept)
    training = roomy.host.training
    tight = found.choose(GIB, roomy.host.runtime + training - 100 * MIB)
    assert tight.config.data.workers < 4
    assert tight.config.data.prefetch == 1


def test_a_host_budget_below_the_runtime_is_refused(explored):
    with pytest.raises(UserError, match=r"memory.host_budget=1 MiB is too small: the least is"):
        explored.choose(GIB, MIB)


@pytest.mark.parametrize(("text", "expected"), [("", GIB), ("auto", GIB), ("5MiB", 5 * MIB)])
def test_auto_means_what_the_device_has(text, expected):
    assert planner.device_budget(text, TARGET) == expected


def test_what_a_compiler_refuses_is_passed_over(config, monkeypatch):
    """As the TPU's does, which says nothing of how much would be needed."""
    original = needs.compiled

    def refusing(traced):
        batch = traced.jaxpr.jaxpr.invars[-1].aval.shape
        return None if batch and batch[0] > 16 else original(traced)

    monkeypatch.setattr(needs, "compiled", refusing)
    found = Planner(build, config, TARGET, say=lambda words: None)
    plan = found.choose(GIB, None)
    assert plan.chosen.config.optim.micro_batch == 16
    assert [row.origin for row in plan.rows][:3] == ["refused", "refused", "compiled"]


def test_a_card_of_many_bytes_takes_the_whole_batch_at_once(config):
    """Four micro-batches of work that takes no time start four times the kernels."""
    card = dataclasses.replace(TARGET, speed=targets.H100, limit=64 * GIB, on_host=False)
    found = Planner(build, config, card, say=lambda words: None)
    plan = found.choose(card.limit, host_budget=None)
    assert (config.optim.accumulate, plan.config.optim.accumulate) == (4, 1)
    assert plan.baseline / plan.chosen.seconds > 2


def test_what_is_dearer_than_what_fits_is_compiled_for_a_smaller_budget_alone():
    said = []
    mixed = toy.config(optim__batch_size=64, optim__accumulate=4, memory__allow_bfloat16=True)
    found = Planner(build, mixed, TARGET, said.append)
    found.explore()
    plan = found.choose(GIB, None)
    steps = [words for words in said if "micro-batch" in words]
    assert len(steps) == 2
    assert not any("bfloat16" in words for words in steps)
    assert [config.memory.dtype for config in plan.unseen] == ["bfloat16"]
    assert "for a smaller budget, dearer, not compiled: bfloat16" in table.summary(plan)
    least = min(row.training for row in plan.rows)
    with contextlib.suppress(UserError):  # whether it fits there is not what is asked
        found.choose(round(least / 0.9) - 1, None)
    assert any("bfloat16" in words for words in said)


def test_the_model_is_traced_once_for_all_splits_of_the_batch(config):
    seen = []

    class Counted(WideTask):
        def init(self, rngs):
            seen.append(rngs)
            return super().init(rngs)

    build = remembered(Counted())
    halves = dataclasses.replace(config, optim=dataclasses.replace(config.optim, accumulate=8))
    first, second = build(config), build(halves)
    assert build(config) is first
    shapes = [jax.tree.map(lambda leaf: leaf.shape, one.shapes) for one in (first, second)]
    assert shapes[0] == shapes[1]
    assert (first.spec["x"].shape[0], second.spec["x"].shape[0]) == (16, 8)
    assert len(seen) == 1
    assert build(dataclasses.replace(config, seed=1)).shapes
    assert len(seen) == 2
