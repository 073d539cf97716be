"""A run is its config and data: interruptions, signals and restarts leave no trace in it."""

import gzip
import json
import signal
import threading
import types

import jax
import numpy as np
import pytest

from tds_jax.engine import loop, workdir
from tds_jax.engine.blueprint import Blueprint
from tds_jax.engine.logs import read_lines
from tds_jax.engine.program import Program
from tds_jax.errors import UserError
from tests.engine import toy


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch):
    """Runs that go on, die or stop are of one program; that it is the same when it is made again
    is a law of processes, see tests/test_kill_resume.py."""
    monkeypatch.setattr(loop, "Program", toy.compiled_once)


class KilledError(Exception):
    """Stands in for a death without warning."""


def at(step, split, action):
    """An on_line that acts once, when this line is shown."""
    done = []

    def on_line(line):
        if (line["step"], line["split"]) == (step, split) and not done:
            done.append(True)
            action()

    return on_line


def die():
    raise KilledError


def terminate():
    signal.raise_signal(signal.SIGTERM)


def implicit_upload():
    jax.numpy.ones(2)


def final(config, folder):
    """(lines without perf/, position, state leaves, progress) of a finished run."""
    checkpoints = workdir.open_checkpoints(folder, config)
    restored = checkpoints.restore(
        checkpoints.latest(), toy.compiled_once(Blueprint(toy.ToyTask(), config)).abstract_state
    )
    checkpoints.close()
    lines = [
        {name: value for name, value in line.items() if not name.startswith("perf/")}
        for line in read_lines(folder / "metrics.jsonl")
    ]
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(restored.state)]
    progress = {k: v for k, v in restored.progress.items() if k != "config"}
    return lines, restored.position, leaves, progress


def assert_same(found, expected):
    """Bit for bit."""
    assert found[0] == expected[0]
    assert found[1] == expected[1]
    assert found[3] == expected[3]
    for a, b in zip(found[2], expected[2], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """The undisturbed run's result."""
    folder = tmp_path_factory.mktemp("calm")
    assert loop.fit(Blueprint(toy.ToyTask(), toy.config()), folder).complete
    return final(toy.config(), folder)


@pytest.mark.parametrize(
    "death",
    [
        (1, "train"),
        pytest.param((3, "train"), marks=pytest.mark.long),
        (4, "val"),
        pytest.param((6, "val"), marks=pytest.mark.long),
    ],
)
def test_a_run_that_died_and_went_on_equals_an_undisturbed_one(calm, tmp_path, death):
    with pytest.raises(KilledError):
        loop.fit(Blueprint(toy.ToyTask(on_line=at(*death, die)), toy.config()), tmp_path)
    task = toy.ToyTask()
    assert loop.fit(Blueprint(task, toy.config()), tmp_path).complete
    assert task.initialised == (0 if death[0] > 1 else 1)
    assert_same(final(toy.config(), tmp_path), calm)


def test_sigterm_saves_in_the_middle_of_a_window_and_the_rest_is_the_same(calm, tmp_path):
    config = toy.config(checkpoint__every=2)
    finished = loop.fit(Blueprint(toy.ToyTask(on_line=at(3, "train", terminate)), config), tmp_path)
    assert not finished.complete
    assert finished.steps == 3
    checkpoints = workdir.open_checkpoints(tmp_path, config)
    # The line of step 3 (24 examples) is shown after the next micro-batch of 2, which is kept.
    assert checkpoints.latest() == 26
    checkpoints.close()
    assert loop.fit(Blueprint(toy.ToyTask(), toy.config()), tmp_path).complete
    assert_same(final(toy.config(), tmp_path), calm)


def test_no_checkpoint_has_seen_data_that_changed_while_they_were_read(calm, tmp_path):
    data, config, run = tmp_path / "data.bin", toy.config(checkpoint__every=2), tmp_path / "run"
    data.write_bytes(b"as it was")
    files = {"data.bin": str(data)}
    workdir.claim(run, config, {}, "", files)
    task = toy.ToyTask(on_line=at(3, "train", lambda: data.write_bytes(b"otherwise")))
    task.data_files = lambda: files
    with pytest.raises(UserError, match=r"changed while .*\(data\.bin has changed\)"):
        loop.fit(Blueprint(task, config), run)
    checkpoints = workdir.open_checkpoints(run, config)
    assert checkpoints.latest() == 16
    checkpoints.close()
    data.write_bytes(b"as it was")
    assert loop.fit(Blueprint(task, config), run).complete
    assert_same(final(config, run), calm)


def test_sigterm_before_the_first_step_saves_and_the_rest_is_the_same(calm, tmp_path):
    task = toy.ToyTask()
    task.fit_statistics = lambda: terminate() or {}
    assert loop.fit(Blueprint(task, toy.config()), tmp_path).steps == 0
    assert loop.fit(Blueprint(toy.ToyTask(), toy.config()), tmp_path).complete
    assert_same(final(toy.config(), tmp_path), calm)


def test_a_new_run_and_its_moving_average_begin_with_the_tasks_parameters(tmp_path):
    """Of updates that move nothing, what is left is the beginning."""
    config = toy.config(optim__ema_decay=0.9, optim__learning_rate=0.0, optim__steps=1)
    task = toy.ToyTask()
    first = np.arange(toy.JOINTS, dtype=np.float32)
    task.first_params = lambda: {"down": {"bias": first}}
    loop.fit(Blueprint(task, config), tmp_path)
    program = toy.compiled_once(Blueprint(toy.ToyTask(), config))
    checkpoints = workdir.open_checkpoints(tmp_path, config)
    state = checkpoints.restore(checkpoints.latest(), program.abstract_state).state
    checkpoints.close()
    others = program.fresh({}).params
    for params in (state.params, state.ema):  # an average of two equal numbers: two roundings
        np.testing.assert_allclose(params["down"]["bias"], first, rtol=2.4e-7)
        np.testing.assert_allclose(params["up"]["kernel"], others["up"]["kernel"], rtol=2.4e-7)


def test_signals_are_handled_as_before_once_a_run_is_over(tmp_path):
    old = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    loop.fit(Blueprint(toy.ToyTask(), toy.config(optim__steps=1)), tmp_path)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == old


def test_an_error_stops_threads_and_finishes_writing(tmp_path):
    before = threading.active_count()
    with pytest.raises(KilledError):
        loop.fit(
            Blueprint(toy.ToyTask(on_line=at(2, "train", die)), toy.config(data__threads=2)),
            tmp_path,
        )
    assert "save_finalize" not in [thread.name for thread in threading.enumerate()]
    assert not list((tmp_path / "checkpoints").glob("*tmp*"))
    assert threading.active_count() <= before + 1  # Orbax keeps one for its metadata


def test_workers_threads_and_prefetch_leave_no_trace(calm, tmp_path):
    config = toy.config(data__threads=2, data__prefetch=3, data__persistent_workers=False)
    loop.fit(Blueprint(toy.ToyTask(), config), tmp_path)
    assert_same(final(config, tmp_path), calm)


def test_another_seed_is_another_run(calm, tmp_path):
    loop.fit(Blueprint(toy.ToyTask(), toy.config(seed=4)), tmp_path)
    assert final(toy.config(seed=4), tmp_path)[0] != calm[0]


def test_saving_logging_and_looking_change_no_parameter(calm, tmp_path):
    config = toy.config(checkpoint__every=0, eval__every=0, log__every=4)
    loop.fit(Blueprint(toy.ToyTask(), config), tmp_path)
    checkpoints = workdir.open_checkpoints(tmp_path, config)
    program = toy.compiled_once(Blueprint(toy.ToyTask(), config))
    state = checkpoints.restore(48, program.abstract_state).state
    checkpoints.close()
    kept = jax.tree.leaves((state.params, state.rest, state.opt_state))
    for a, b in zip(kept, calm[2], strict=False):  # params, rest and opt_state come first
        np.testing.assert_array_equal(a, b)


def test_lines_and_checkpoints_come_in_their_order(calm):
    lines = calm[0]
    assert [(line["step"], line["split"]) for line in lines] == [
        (1, "train"),
        (2, "train"),
        (2, "val"),
        (3, "train"),
        (4, "train"),
        (4, "val"),
        (5, "train"),
        (6, "train"),
        (6, "val"),
    ]
    assert all(line["examples"] == 8 * line["step"] for line in lines)
    assert calm[1] == 48


def test_a_line_speaks_of_the_steps_since_the_one_before(tmp_path):
    losses = []
    for every in (1, 2):
        config = toy.config(optim__steps=2, optim__learning_rate=0.0, log__every=every)
        loop.fit(Blueprint(toy.ToyTask(), config), tmp_path / str(every))
        lines = read_lines(tmp_path / str(every) / "metrics.jsonl")
        losses.append([line["loss"] for line in lines if line["split"] == "train"])
    (first, second), (both,) = losses
    assert min(first, second) < both < max(first, second)


def test_a_checkpoint_of_an_evaluated_step_holds_its_score(tmp_path):
    config = toy.config()
    loop.fit(Blueprint(toy.ToyTask(), config), tmp_path)
    scores = {
        ln["examples"]: ln["loss"]
        for ln in read_lines(tmp_path / "metrics.jsonl")
        if ln["split"] == "val"
    }
    checkpoints = workdir.open_checkpoints(tmp_path, config)
    assert checkpoints.best() == min(scores, key=scores.get)
    checkpoints.close()


def test_early_stopping_ends_the_run_and_the_first_checkpoint_stays_the_best(tmp_path):
    config = toy.config(optim__steps=50, eval__patience=3, eval__every=1)
    finished = loop.fit(Blueprint(toy.ToyTask(worsen=True), config), tmp_path)
    assert finished.complete
    assert finished.steps == 4  # step 1 is the best, then three worse ones
    model, restored = workdir.load_model(Blueprint(toy.ToyTask(), config), tmp_path)
    assert restored.position == 8
    _, position, _, progress = final(config, tmp_path)
    assert position == 32
    assert progress["stopping"]["bad"] == 3
    again = loop.fit(Blueprint(toy.ToyTask(worsen=True), config), tmp_path)
    assert again.complete
    assert again.steps == 4
    kernel = model.up.kernel.get_value()
    np.testing.assert_array_equal(kernel, restored.state.params["up"]["kernel"])


CALLS = pytest.mark.parametrize("call", ["micro_batch", "update"])


@CALLS
def test_a_non_finite_example_leaves_every_update_where_it_was(tmp_path, call):
    config = toy.config(memory__call=call)
    loop.fit(Blueprint(toy.ToyTask(bad=(5,)), config), tmp_path)
    last = read_lines(tmp_path / "metrics.jsonl")[-2]
    assert last["skipped"] in (2, 3)  # one bad example in 2.4 epochs of 20
    assert last["updates"] == 6
    checkpoints = workdir.open_checkpoints(tmp_path, config)
    program = toy.compiled_once(Blueprint(toy.ToyTask(), config))
    state = checkpoints.restore(48, program.abstract_state).state
    checkpoints.close()
    assert int(state.opt_state.mini_step) == 0


def test_a_run_with_non_finite_examples_survives_death(tmp_path):
    task, config = {"bad": (5,)}, toy.config(memory__call="update")
    loop.fit(Blueprint(toy.ToyTask(**task), config), tmp_path / "calm")
    dying = toy.ToyTask(**task, on_line=at(4, "train", die))
    with pytest.raises(KilledError):
        loop.fit(Blueprint(dying, config), tmp_path / "b")
    loop.fit(Blueprint(toy.ToyTask(**task), config), tmp_path / "b")
    assert_same(final(config, tmp_path / "b"), final(config, tmp_path / "calm"))


def test_calls_of_whole_updates_train_as_calls_of_micro_batches(calm, tmp_path):
    """The same lines but for f32 sums in another order, amplified by Adam; and a run stopped in
    the middle of an update by the one way of calling is ended by the other."""
    update = toy.config(memory__call="update")
    loop.fit(Blueprint(toy.ToyTask(), update), tmp_path / "a")
    stopped = toy.config(checkpoint__every=2)
    dying = toy.ToyTask(on_line=at(3, "train", terminate))
    assert loop.fit(Blueprint(dying, stopped), tmp_path / "b").steps == 3
    loop.fit(Blueprint(toy.ToyTask(), update), tmp_path / "b")
    for folder in ("a", "b"):
        lines, position, leaves, _ = final(update, tmp_path / folder)
        assert position == calm[1]
        assert [line["examples"] for line in lines] == [line["examples"] for line in calm[0]]
        assert [ln["loss"] for ln in lines] == pytest.approx(
            [ln["loss"] for ln in calm[0]], rel=1e-5
        )
        for a, b in zip(leaves, calm[2], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_more_steps_go_on_from_the_end(calm, tmp_path):
    loop.fit(Blueprint(toy.ToyTask(), toy.config(optim__steps=4)), tmp_path)
    assert loop.fit(Blueprint(toy.ToyTask(), toy.config(optim__steps=6)), tmp_path).steps == 6
    assert_same(final(toy.config(), tmp_path), calm)


def test_a_finished_run_is_left_as_it_is(calm, tmp_path):
    loop.fit(Blueprint(toy.ToyTask(), toy.config()), tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    assert loop.fit(Blueprint(toy.ToyTask(), toy.config()), tmp_path).complete
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    assert_same(final(toy.config(), tmp_path), calm)


def test_a_score_that_should_rise_is_minimised_as_its_negative(tmp_path):
    config = toy.config(eval__metric="r2", eval__mode="max", eval__every=1)
    loop.fit(Blueprint(toy.ToyTask(), config), tmp_path)
    lines = [ln for ln in read_lines(tmp_path / "metrics.jsonl") if ln["split"] == "val"]
    best = max(lines, key=lambda line: line["r2"])
    checkpoints = workdir.open_checkpoints(tmp_path, config)
    assert checkpoints.best() == best["examples"]
    checkpoints.close()


def test_an_unknown_score_is_refused_before_the_first_step(tmp_path):
    with pytest.raises(UserError, match=r"eval.metric='rmse' .* loss, mae_rad"):
        loop.fit(Blueprint(toy.ToyTask(), toy.config(eval__metric="rmse")), tmp_path)
    assert not read_lines(tmp_path / "metrics.jsonl")


def test_a_micro_batch_that_devices_cannot_share_names_the_fix(tmp_path):
    with pytest.raises(UserError, match=r"=3 examples cannot be shared equally by 2 devices"):
        loop.fit(
            Blueprint(toy.ToyTask(), toy.config(optim__batch_size=3, optim__accumulate=1)), tmp_path
        )


def test_nothing_is_compiled_after_the_first_steps(tmp_path, monkeypatch):
    """Twice the steps, lines and evaluations compile no more programs."""
    monkeypatch.setattr(loop, "Program", Program)
    seen = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, seconds, **_: seen.append(name) if "backend_compile" in name else None
    )
    counts = []
    for steps in (6, 12):
        config = toy.config(optim__steps=steps, optim__schedule="constant")
        seen.clear()
        loop.fit(Blueprint(toy.ToyTask(), config), tmp_path / str(steps))
        counts.append(len(seen))
    assert counts[0] > 0
    assert counts[1] <= counts[0]


def test_what_is_evaluated_and_loaded_is_the_average_of_the_parameters(tmp_path):
    config = toy.config(optim__steps=6, optim__ema_decay=0.9)
    loop.fit(Blueprint(toy.ToyTask(), config), tmp_path)
    model, restored = workdir.load_model(Blueprint(toy.ToyTask(), config), tmp_path)
    kernel = model.up.kernel.get_value()
    np.testing.assert_array_equal(kernel, restored.state.ema["up"]["kernel"])
    assert np.abs(kernel - restored.state.params["up"]["kernel"]).max() > 0
    again = loop.fit(Blueprint(toy.ToyTask(), config), tmp_path)
    assert again.complete


def test_an_implicit_copy_to_the_devices_ends_the_run(tmp_path):
    task = toy.ToyTask(on_line=at(2, "train", implicit_upload))
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        loop.fit(Blueprint(task, toy.config()), tmp_path)


def test_the_loop_reads_no_number_off_a_device_but_by_device_get(tmp_path, monkeypatch):
    """On a CPU the guard lets reading through, for nothing is copied there."""

    def read(self, *args):
        raise AssertionError("an array was read implicitly")

    for name in ("__float__", "__int__", "__bool__", "__index__", "item", "tolist"):
        monkeypatch.setattr(type(jax.numpy.ones(())), name, read)
    assert loop.fit(Blueprint(toy.ToyTask(), toy.config()), tmp_path).complete


def harm(folder):
    """Cuts the largest file of a checkpoint in half."""
    path = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before(
    calm, tmp_path, capsys
):
    loop.fit(Blueprint(toy.ToyTask(), toy.config(optim__steps=5)), tmp_path)
    harm(tmp_path / "checkpoints" / "40")
    loop.fit(Blueprint(toy.ToyTask(), toy.config()), tmp_path)
    said = capsys.readouterr().out
    assert "checkpoint 40 is damaged (state/" in said
    assert "goes on from checkpoint 32 (step 4; their names count examples)" in said
    assert (tmp_path / "damaged" / "40" / "sums.json").exists()
    assert_same(final(toy.config(), tmp_path), calm)


def test_a_run_without_a_whole_checkpoint_stops_and_touches_nothing(tmp_path):
    loop.fit(Blueprint(toy.ToyTask(), toy.config(optim__steps=3)), tmp_path)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    for name in names:
        harm(tmp_path / "checkpoints" / name)
    with pytest.raises(UserError, match=r"no checkpoint in .* is whole \(24: state/.*; step 3"):
        loop.fit(Blueprint(toy.ToyTask(), toy.config()), tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == names


@pytest.mark.parametrize("death", [(2, "val"), (6, "val")])
def test_what_was_trained_is_on_disk_before_an_evaluation_begins(calm, tmp_path, death):
    config = toy.config(checkpoint__every=0)
    with pytest.raises(KilledError):
        loop.fit(Blueprint(toy.ToyTask(on_line=at(*death, die)), config), tmp_path)
    checkpoints = workdir.open_checkpoints(tmp_path, config)
    assert checkpoints.latest() == 8 * death[0]
    checkpoints.close()
    loop.fit(Blueprint(toy.ToyTask(), toy.config()), tmp_path)
    assert_same(final(toy.config(), tmp_path), calm)


class Noticed(toy.Examples):
    """Validation examples whose second one brings SIGTERM; they count how many were read."""

    def example(self, index, rng):
        read.append(index)
        if index == 1:
            terminate()
        return super().example(index, rng)


read = []


def test_sigterm_in_an_evaluation_ends_it_at_once_and_the_rest_is_the_same(calm, tmp_path):
    task, config = toy.ToyTask(), toy.config(checkpoint__every=0, eval__batch_size=2)
    sources = {split: task.source(split) for split in ("train", "val")}
    sources["val"] = Noticed(sources["val"].values)
    task.source = sources.get
    read.clear()
    finished = loop.fit(Blueprint(task, config), tmp_path)
    assert (finished.complete, finished.steps) == (False, 2)
    assert read == [0, 1]
    assert [line["split"] for line in read_lines(tmp_path / "metrics.jsonl")] == ["train"] * 2
    loop.fit(Blueprint(toy.ToyTask(), toy.config()), tmp_path)
    assert_same(final(toy.config(), tmp_path), calm)


@pytest.mark.long
def test_sigterm_while_curves_are_drawn_looks_again(calm, tmp_path, monkeypatch):
    monkeypatch.setattr(loop.curves, "draw_curves", lambda folder: terminate())
    config = toy.config(log__plots=True)
    assert not loop.fit(Blueprint(toy.ToyTask(), config), tmp_path).complete
    loop.fit(Blueprint(toy.ToyTask(), toy.config()), tmp_path)
    assert_same(final(toy.config(), tmp_path), calm)


def test_a_run_in_which_no_gradient_was_finite_does_not_end_as_complete(tmp_path):
    with pytest.raises(UserError, match="all 24 micro-batches were left out"):
        loop.fit(Blueprint(toy.ToyTask(bad=tuple(range(20))), toy.config()), tmp_path)


@pytest.mark.parametrize(
    ("done", "words"),
    [
        (60, ["60 steps are trained, more than optim.steps=20: none are added"]),
        (20, ["all 20 steps are trained"]),
        (5, ["resuming after 5 of 20 steps"]),
    ],
)
def test_who_goes_on_is_told_what_is_left_to_train(done, words):
    config = toy.config(optim__steps=20)
    run = types.SimpleNamespace(config=config)
    progress = types.SimpleNamespace(position=done * config.optim.batch_size)
    assert loop.Run._resuming(run, progress, 20) == words


def test_a_traced_run_is_the_same_and_leaves_a_trace_of_its_updates(calm, tmp_path):
    config = toy.config(log__profile=2)
    loop.fit(Blueprint(toy.ToyTask(), config), tmp_path)
    assert_same(final(config, tmp_path), calm)
    (trace,) = (tmp_path / "profile").rglob("*.trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    numbers = [e["args"]["step_num"] for e in events if e.get("name") == "update"]
    assert sorted(numbers, key=int) == ["1"] * 4 + ["2"] * 4  # an update is 4 calls


@pytest.mark.long
def test_a_trace_that_the_runs_end_cuts_is_written(tmp_path):
    config = toy.config(log__profile=9, optim__steps=2)
    loop.fit(Blueprint(toy.ToyTask(), config), tmp_path)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
