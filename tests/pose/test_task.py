"""Laws of the pose task: the loss is a masked mean, and accumulation does not change it."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax.data.pipeline import Loader
from tds_jax.engine.optim import Sums, make_optimizer
from tds_jax.engine.step import replace_leaves, split
from tds_jax.errors import UserError
from tds_jax.pose.task import PoseTask
from tests.data.sessions import make_rows, write_rows
from tests.pose.small import LENGTHS, SPLITS, small_task, write_recordings


@pytest.fixture
def folder(tmp_path):
    write_recordings(tmp_path / "data", LENGTHS, SPLITS)
    return tmp_path / "data"


def loader(task, split="train", micro_batch=8, train=True):
    return Loader(
        task.source(split), micro_batch=micro_batch, seed=0, train=train, workers=0, threads=0,
        prefetch=1,
    )  # fmt: skip


def first_batch(task, **options):
    made = loader(task, **options)
    batch = next(iter(made.train_batches(0) if options.get("train", True) else made.eval_batches()))
    made.close()
    return batch


def on_device(batch):
    return {name: jnp.asarray(leaf) for name, leaf in batch.items()}


def test_mixed_models_train_on_both_tasks_and_do_the_one_asked_for_otherwise(folder, tmp_path):
    changes = {"model__initial_pose": "mixed", "model__output": "velocity", "model__dropout": 0.0}
    task = small_task(folder, tmp_path, **changes, model__tracking_share=0.5)
    model = task.init(nnx.Rngs(0))
    batch = on_device(first_batch(task))
    regression, tracking, training = (
        np.asarray(task.poses(model, batch, **how))
        for how in ({"train": False}, {"train": False, "tracking": True}, {"train": True})
    )
    known = np.abs(batch["joint_angles"][:, 0]).max(-1) > 0
    apart = [np.abs(training - other).max((1, 2)) < 1e-6 for other in (regression, tracking)]
    assert (apart[0] | apart[1]).all()
    assert 0 < apart[1][known].sum() < known.sum()
    weight = np.asarray(task.weights(batch))
    np.testing.assert_array_equal(weight, np.asarray(batch["weight"]) * np.asarray(known)[:, None])


@pytest.mark.parametrize("kind", ["given", "mixed"])
def test_tracking_begins_at_the_first_pose_of_a_window(folder, tmp_path, kind):
    task = small_task(folder, tmp_path, model__initial_pose=kind, model__output="velocity")
    batch, asked = on_device(first_batch(task)), []

    def model(emg, initial, keys):
        asked.append(initial)
        return jnp.zeros(batch["joint_angles"].shape)

    task.poses(model, batch, train=False, tracking=True)
    angles = np.asarray(batch["joint_angles"])
    np.testing.assert_array_equal(asked[0], angles[:, 0])
    assert (angles[:, 0] != angles[:, 1]).any()


@pytest.mark.parametrize("every_sample", [False, True])
@pytest.mark.parametrize(("mse", "mae"), [(1.0, 0.5), (0.0, 2.0)])
def test_loss_is_the_weighted_sum_over_valid_rows(folder, tmp_path, every_sample, mse, mae):
    task = small_task(
        folder,
        tmp_path,
        loss__every_sample=every_sample,
        loss__mse_weight=mse,
        loss__mae_weight=mae,
        model__dropout=0.0,
    )
    model = task.init(nnx.Rngs(0))
    batch = first_batch(task)
    steps = np.asarray(model(batch["emg"]), np.float64)
    rows = 60 - 8 if every_sample else steps.shape[1]
    assert batch["joint_angles"].shape == (8, rows, 3)
    poses = steps
    if every_sample:
        at = np.arange(rows)
        poses = np.stack(
            [
                [np.interp(at, np.arange(steps.shape[1]) * 4, column) for column in one.T]
                for one in steps
            ]
        ).transpose(0, 2, 1)
    error = poses - batch["joint_angles"]
    weight = np.abs(batch["joint_angles"]).sum(-1) > 0  # clean windows carry zeros where failed
    assert 0 < weight.sum() < weight.size
    cost = (mse * error**2 + mae * np.abs(error)).mean(-1)
    objective, states = task.loss(model, on_device(batch), train=False)
    # 8·52·3 terms summed in f32: eps·sqrt(1248) = 4e-6 relative at worst, usually 1e-7.
    np.testing.assert_allclose(objective.sum, (weight * cost).sum(), rtol=4e-6)
    assert float(objective.weight) == weight.sum()
    found = jax.device_get(states["rad"]).compute("rad")
    assert found["mae_rad"] == pytest.approx(np.abs(error)[weight].mean(), rel=4e-6)


def test_dropout_acts_in_training_only_and_follows_the_keys(folder, tmp_path):
    task = small_task(folder, tmp_path, model__dropout=0.5)
    model = task.init(nnx.Rngs(0))
    batch = on_device(first_batch(task))
    plain, noisy, again = (
        np.asarray(task.poses(model, batch, train)) for train in (False, True, True)
    )
    assert np.abs(plain - noisy).max() > 1e-3
    np.testing.assert_array_equal(noisy, again)
    other = np.asarray(task.poses(model, batch | {"key": batch["key"] + 1}, True))
    assert np.abs(other - noisy).max() > 1e-3


def test_a_window_whose_given_pose_failed_counts_nowhere(folder, tmp_path):
    task = small_task(folder, tmp_path, model__initial_pose="given", model__dropout=0.0)
    batch = first_batch(task)
    batch["joint_angles"][2, 0] = 0
    batch["weight"][2, 0] = 0
    weight = np.asarray(task.weights(on_device(batch)))
    known = np.abs(batch["joint_angles"][:, 0]).max(-1) > 0
    assert not known[2]
    assert known.any()
    np.testing.assert_array_equal(weight, np.asarray(batch["weight"]) * np.asarray(known)[:, None])
    model = task.init(nnx.Rngs(0))
    before = task.loss(model, on_device(batch), train=False)
    batch["joint_angles"][2, 1:] += 7
    after = task.loss(model, on_device(batch), train=False)
    np.testing.assert_array_equal(before[0].sum, after[0].sum)


def test_the_tail_window_of_a_tracked_session_is_not_lost(tmp_path):
    """A tail repeats rows, so it begins with weight 0 although its initial pose is known."""
    write_recordings(tmp_path / "data", (200, 200, 263), ("train", "val", "test"))
    write_rows(tmp_path / "data" / "s2.hdf5", make_rows(263))  # every label is known
    task = small_task(tmp_path / "data", tmp_path, model__initial_pose="given")
    source = task.source("test")
    tail = source.example(len(source) - 1, None)
    assert tail["weight"][0] == 0
    weight = task.weights({name: jnp.asarray(leaf)[None] for name, leaf in tail.items()})
    np.testing.assert_array_equal(weight[0], tail["weight"])
    assert tail["weight"].any()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss__every_sample": True},
        {"model__reference_rate": True},
        {"model__initial_pose": "given", "data__jitter": False},
    ],
)
def test_batch_spec_is_what_the_loader_makes(folder, tmp_path, changes):
    task = small_task(folder, tmp_path, **changes)
    spec, batch = task.batch_spec(8), first_batch(task)
    assert set(spec) == set(batch)
    for name, leaf in batch.items():
        assert (spec[name].shape, spec[name].dtype) == (leaf.shape, leaf.dtype), name


def test_a_task_with_the_inputs_of_a_run_builds_its_model_without_the_recordings(tmp_path):
    folder = tmp_path / "data"
    write_recordings(folder, LENGTHS, SPLITS)
    task = small_task(folder, tmp_path)
    shutil.rmtree(folder)
    again = PoseTask(task.config, task.inputs())
    shapes = [nnx.state(nnx.eval_shape(lambda t=t: t.init(nnx.Rngs(0)))) for t in (task, again)]
    assert jax.tree.all(jax.tree.map(lambda a, b: a.shape == b.shape, *shapes))
    assert again.batch_spec(4) == task.batch_spec(4)
    with pytest.raises(UserError, match="no such folder"):
        again.source("train")


def test_statistics_fit_into_the_model_and_can_be_left_out(folder, tmp_path):
    task = small_task(folder, tmp_path)
    _, _, rest = split(task.init(nnx.Rngs(0)))
    filled = replace_leaves(rest, task.fit_statistics())
    rows = np.concatenate(list(_train_emg(task))).astype(np.float64)
    found = filled["normalizer"]
    np.testing.assert_allclose(found["mean"], rows.mean(0), atol=1e-7)
    np.testing.assert_allclose(found["scale"], rows.std(0), rtol=1e-6)
    assert small_task(folder, tmp_path, data__normalize=False).fit_statistics() == {}


@pytest.mark.parametrize("decoder", ["lstm", "mlp"])
def test_a_read_out_of_positions_begins_at_the_mean_valid_label_of_the_train_split(
    folder, tmp_path, decoder
):
    changes = {"model__decoder": decoder, "model__mlp_hidden": (6,), "model__output_scale": 0.5}
    task = small_task(folder, tmp_path, **changes)
    graph, params, rest = split(task.init(nnx.Rngs(0)))
    core = replace_leaves(params, task.first_params())["decoder"]["core"]
    read_out = "head" if decoder == "lstm" else "linear_1"
    core[read_out]["kernel"] = jnp.zeros_like(core[read_out]["kernel"])
    model = nnx.merge(graph, params | {"decoder": {"core": core}}, rest)
    table = task.table.select("train")
    labels = np.concatenate(
        [table.rows(task.files, n, 0, int(table.samples[n]))[1] for n in range(len(table))]
    )
    mean = labels[np.abs(labels).max(axis=1) > 0].mean(axis=0, dtype=np.float64)
    assert np.abs(mean).max() > 0.01  # what a bias at random would not be by chance
    poses = np.asarray(task.poses(model, on_device(first_batch(task)), train=False))
    # Stored as f32, halved exactly and multiplied by 2: one rounding each.
    np.testing.assert_allclose(poses, np.broadcast_to(mean, poses.shape), rtol=3e-7, atol=1e-8)


@pytest.mark.parametrize("changes", [{"model__start_at_mean": False}, {"model__output": "hybrid"}])
def test_other_read_outs_begin_at_random(folder, tmp_path, changes):
    assert small_task(folder, tmp_path, **changes).first_params() == {}


def _train_emg(task):
    table = task.table.select("train")
    for i in range(len(table)):
        (emg,) = task.files.rows(
            table.path(i), "emg2pose", "timeseries", 0, table.samples[i], ["emg"]
        )
        yield emg


def test_evaluation_windows_shrink_to_the_shortest_session(tmp_path):
    write_recordings(tmp_path / "data", (200, 80, 90), ("train", "val", "test"))
    task = small_task(tmp_path / "data", tmp_path)
    assert task.source("val").spec.window == 80
    assert task.source("test").spec.window == 90
    assert task.source("train").spec.window == 60


BAD_SETTINGS = {
    "window": ({"data__window": 8}, r"data\.window=8 samples .* receptive field of 9; use a"),
    "eval window": ({"data__eval_window": 8}, r"data\.eval_window=8 samples .* field of 9"),
    "reference": ({"data__window": 5, "model__reference_rate": True}, r"receptive field of 7; use"),
    "rollout": ({"model__rollout_freq": 30.0}, r"model\.rollout_freq=30\.0 gives a step of 3"),
}


@pytest.mark.parametrize(("changes", "text"), BAD_SETTINGS.values(), ids=BAD_SETTINGS.keys())
def test_settings_that_cannot_work_with_the_data_are_one_line(folder, tmp_path, changes, text):
    with pytest.raises(UserError, match=text) as error:
        small_task(folder, tmp_path, **changes)
    assert "\n" not in str(error.value)


def test_a_missing_split_is_one_line(tmp_path):
    write_recordings(tmp_path / "data", (200, 200), ("train", "val"))
    task = small_task(tmp_path / "data", tmp_path)
    assert any("the test split has no session" in line for line in task.warnings())
    with pytest.raises(UserError, match=r"the test split has no session; add sessions, or change"):
        task.source("test")


# 64 examples with ragged masks per update; dropout on: its keys belong to the examples.
BATCH, UPDATES = 64, 5
# sgd moves the parameters by several percent; adamw divides by its own size of the gradient, so
# that where that is near 0 its rounding counts in full.
RULES = {"sgd": (0.3, 1e-6), "adamw": (1e-3, 1e-5)}


def make_sums(task, params, rest):
    """(params, batch) -> Sums of one micro-batch, jitted."""
    graphdef, _, _ = split(task.init(nnx.Rngs(0)))

    @jax.jit
    def sums(params, batch):
        def total(params):
            objective, _ = task.loss(nnx.merge(graphdef, params, rest), batch, train=True)
            return objective.sum, objective.weight

        grad, weight = jax.grad(total, has_aux=True)(params)
        return Sums(grad, weight)

    return sums


def train(task, rule, accumulate):
    """(parameters before, mean gradient of the first batch, parameters after, weights)."""
    rate, _ = RULES[rule]
    config = dataclasses.replace(
        task.config.optim,
        optimizer=rule,
        learning_rate=rate,
        accumulate=accumulate,
        clip_norm=0.0,
        ema_decay=0.0,
    )
    optimizer = make_optimizer(config)
    _, params, rest = split(task.init(nnx.Rngs(0)))
    rest = replace_leaves(rest, task.fit_statistics())
    sums, update = make_sums(task, params, rest), jax.jit(optimizer.update)
    made = loader(task, micro_batch=BATCH // accumulate)
    batches = made.train_batches(0)
    before, first, state, parts = params, params, optimizer.init(params), []
    for step in range(UPDATES * accumulate):
        part = sums(params, on_device(next(batches)))
        params, state = update(part, state, params)
        parts += [part] if step < accumulate else []
        first = params if step < accumulate else first
    made.close()
    assert int(state.gradient_step) == UPDATES
    weights = np.array([part.weight for part in parts])
    total = jax.tree.map(lambda *leaves: sum(leaves), *[part.grad for part in parts])
    gradient = jax.tree.map(lambda leaf: leaf / weights.sum(), total)
    if rule == "sgd":  # learning rate x mean gradient; 2 % moves keep 5 of f32's 7 digits
        moved = jax.tree.map(lambda a, b: (a - b) / rate, before, first)
        assert distance(gradient, moved) <= 1e-4
    means = [jax.tree.map(lambda leaf, part=part: leaf / part.weight, part.grad) for part in parts]
    unweighted = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *means)
    assert accumulate == 1 or distance(gradient, unweighted) > 1e-3, "the masks must matter"
    return before, gradient, params, weights


def distance(a, b):
    """‖a - b‖ / ‖a‖ over all leaves."""
    square = [
        sum(np.sum(np.square(x, dtype=np.float64)) for x in jax.tree.leaves(tree))
        for tree in (jax.tree.map(lambda x, y: x - y, a, b), a)
    ]
    return float(np.sqrt(square[0] / square[1]))


@pytest.fixture(scope="module")
def task_with_dropout(tmp_path_factory):
    base = tmp_path_factory.mktemp("accumulation")
    write_recordings(base / "data", LENGTHS, SPLITS)
    settings = {"model__dropout": 0.2, "optim__batch_size": BATCH, "model__layers": 2}
    settings |= {"data__noise": 0.3, "data__gain_spread": 0.3, "data__channel_drop": 0.2}
    return small_task(base / "data", base, **settings)


@pytest.mark.parametrize(
    ("rule", "splittings"),
    [
        ("sgd", (1, 8)),
        pytest.param("sgd", (1, 4), marks=pytest.mark.long),
        pytest.param("adamw", (1, 4, 8), marks=pytest.mark.long),
    ],
)
def test_accumulation_equals_the_large_batch_with_ragged_masks_and_dropout(
    task_with_dropout, rule, splittings
):
    runs = {k: train(task_with_dropout, rule, k) for k in splittings}
    before, gradient, after, weights = runs[1]
    assert distance(before, after) > 1e-3, "a run that does not move shows nothing"
    for k in splittings[1:]:
        assert runs[k][3].sum() == weights.sum()
        assert np.ptp(runs[k][3]) > 0, "the masks must be ragged"
        assert distance(gradient, runs[k][1]) <= 1e-6
        assert distance(after, runs[k][2]) <= RULES[rule][1]


def test_it_says_where_its_data_are_and_how_much_of_what_they_hold(folder, tmp_path):
    place, words, generated = small_task(folder, tmp_path).data_about()
    assert (place, generated) == (str(folder), False)
    assert words == (
        "6 sessions (train 3, val 1, test 2), 0.00467 h at 100 Hz, 4 channels, 3 joint angles"
    )
