import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import grain
import numpy as np
import psutil
import pytest

from tds_jax.data.pipeline import Batches, Loader, Order, WorkerError, read_together
from tds_jax.errors import UserError
from tests.data.sources import Numbers


def make_loader(n=11, micro_batch=4, **changes):
    settings = {"seed": 5, "train": True, "workers": 0, "threads": 0, "prefetch": 1} | changes
    return Loader(Numbers(n), micro_batch=micro_batch, **settings)


def take(loader, batches, start=0):
    """Examples of the first batches, as one dict of arrays; copies, so that nothing is shared."""
    iterator = loader.train_batches(start)
    found = [
        {name: np.array(leaf) for name, leaf in batch.items()}
        for batch in itertools.islice(iterator, batches)
    ]
    iterator.close()
    return {name: np.concatenate([batch[name] for batch in found]) for name in found[0]}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_every_example_comes_once_per_epoch_and_epochs_differ():
    order = take(make_loader(n=11, micro_batch=11), 4)["example"].reshape(4, 11)
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(11), (4, 1)))
    assert len({tuple(epoch) for epoch in order}) == 4


@pytest.mark.parametrize(("count", "seed"), [(1, 0), (37, 5), (70_000, 2**32 - 1)])
def test_the_order_is_that_of_grain(count, seed):
    grains = grain.MapDataset.range(count).seed(seed).shuffle().repeat()
    order = Order(count, seed)
    positions = [0, 1, count - 1, count, 3 * count + count // 2, 2**40]
    assert [order(position) for position in positions] == [grains[n] for n in positions]


def test_draws_and_keys_change_every_epoch_and_belong_to_the_example():
    found = take(make_loader(n=11, micro_batch=11), 2)
    by_epoch = [
        dict(zip(found["example"][part].tolist(), found["draw"][part].tolist(), strict=True))
        for part in (slice(0, 11), slice(11, 22))
    ]
    assert all(by_epoch[0][i] != by_epoch[1][i] for i in range(11))
    assert by_epoch[0][3] == np.float32(np.random.default_rng((5, 0, 3)).random())
    assert by_epoch[1][3] == np.float32(np.random.default_rng((5, 1, 3)).random())
    assert len({tuple(key) for key in found["key"].tolist()}) == 22


@pytest.mark.parametrize("start", [0, 1, 4, 10, 11, 12, 27, 44])
@pytest.mark.parametrize("micro_batch", [1, 3, 4])
def test_resume_at_any_example_continues_exactly_with_any_micro_batch(start, micro_batch):
    whole = take(make_loader(micro_batch=4), 20)
    resumed = take(make_loader(micro_batch=micro_batch), 6, start)
    n = 6 * micro_batch
    assert_same(resumed, {name: leaf[start : start + n] for name, leaf in whole.items()})


def test_two_processes_share_out_the_order_of_one():
    whole = take(make_loader(micro_batch=6), 5, start=3)
    parts = [
        take(make_loader(micro_batch=3, process_index=i, process_count=2), 5, start=3)
        for i in range(2)
    ]
    for name, leaf in whole.items():
        woven = np.stack([part[name] for part in parts], axis=1).reshape(leaf.shape)
        np.testing.assert_array_equal(woven, leaf)


@pytest.mark.parametrize(("workers", "threads"), [(0, 3), (1, 0), (2, 2)])
def test_workers_and_threads_never_change_a_batch(workers, threads):
    loader = make_loader(workers=workers, threads=threads, prefetch=2)
    found = take(loader, 6, start=7)
    expected = take(make_loader(), 6, start=7)
    if workers:
        assert not found["backend"].any(), "a worker initialised a jax backend"
        found["backend"] = expected["backend"]
    assert_same(found, expected)


def test_close_stops_the_workers():
    loader = make_loader(workers=1)
    next(loader.train_batches(0))
    assert workers_of(os.getpid())
    loader.close()
    assert not workers_of(os.getpid())


def test_evaluation_visits_all_in_order_and_pads_with_weight_zero():
    batches = list(make_loader(n=10, micro_batch=4).eval_batches())
    assert [len(batch["example"]) for batch in batches] == [4, 4, 4]
    example = np.concatenate([batch["example"] for batch in batches])
    weight = np.concatenate([batch["weight"] for batch in batches])
    np.testing.assert_array_equal(example, [*range(10), -1, -1])
    np.testing.assert_array_equal(weight[:, 0], [1] * 10 + [0, 0])
    assert all((batch["draw"] == -1).all() for batch in batches)


def test_processes_have_as_many_evaluation_batches_and_cover_all():
    parts = [
        list(make_loader(n=5, micro_batch=2, process_index=i, process_count=2).eval_batches())
        for i in range(2)
    ]
    assert [len(part) for part in parts] == [2, 2]
    found = [int(i) for part in parts for batch in part for i in batch["example"]]
    assert sorted(found) == [-1, -1, -1, 0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"n": 0}, "Numbers(0) is empty"),
        ({"micro_batch": 0}, "optim.micro_batch=0 must be at least 1"),
        ({"workers": -1}, "data.workers=-1 must be at least 0"),
        ({"prefetch": 0}, "data.prefetch=0 must be at least 1"),
        ({"seed": -1}, "seed=-1 must be between 0 and"),
    ],
)
def test_wrong_settings_are_named_with_their_value(changes, text):
    with pytest.raises(UserError) as error:
        make_loader(**changes)
    assert text in str(error.value)


PARENT = """
import time
from tests.data.sources import Numbers
from tds_jax.data.pipeline import Loader, read_together
loader = Loader(Numbers(9), micro_batch=2, seed=0, train=True, workers=1, threads=0, prefetch=1)
next(loader.train_batches(0))
print("ready", flush=True)
time.sleep(60)
"""


def test_workers_die_within_seconds_of_their_parents_sigkill():
    command, root = [sys.executable, "-c", PARENT], Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as parent:
        assert parent.stdout.readline() == "ready\n"
        workers = workers_of(parent.pid)
        assert workers
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    gone, alive = psutil.wait_procs(workers, timeout=6)  # the watchdog looks once a second
    for process in alive:
        process.kill()
    assert len(gone) == len(workers)


def test_signals_to_the_group_leave_the_workers_serving():
    loader = make_loader(workers=1)
    iterator = loader.train_batches(0)
    next(iterator)
    (worker,) = workers_of(os.getpid())
    worker.send_signal(signal.SIGINT)
    worker.send_signal(signal.SIGTERM)
    for _ in range(5):
        next(iterator)
    assert worker.is_running()
    loader.close()
    assert not worker.is_running()


def workers_of(pid):
    return [
        child
        for child in psutil.Process(pid).children(recursive=True)
        if "resource_tracker" not in " ".join(child.cmdline())
    ]


def test_a_killed_worker_is_one_line_and_other_errors_stay_what_they_are():
    def killed(words):
        raise RuntimeError(words)
        yield

    text = "Worker process was terminated unexpectedly with exit code -9. Search the logs."
    with pytest.raises(WorkerError, match=r"killed \(exit status -9\), maybe for lack of memory"):
        next(Batches(killed(text)))
    with pytest.raises(RuntimeError, match="another"):
        next(Batches(killed("another")))


def test_closed_iterators_are_forgotten():
    loader = make_loader()
    for _ in range(3):
        list(loader.eval_batches())
    assert len(loader._open) == 1


class Endless:
    """More examples than a batch can number."""

    def __len__(self):
        return 2**31

    def __repr__(self):
        return "Endless()"


def test_more_examples_than_int32_counts_are_refused_in_one_line():
    settings = {"seed": 0, "train": True, "workers": 0, "threads": 0, "prefetch": 1}
    with pytest.raises(UserError, match=r"Endless\(\) has 2147483648 examples, more than"):
        Loader(Endless(), micro_batch=1, **settings)


class Uneven(Numbers):
    """Examples that are not all alike."""

    def example(self, index, rng):
        return super().example(index, rng) | {"value": np.zeros(1 + index % 2, np.float32)}


def test_examples_of_other_shapes_are_refused_and_never_spread():
    with pytest.raises(ValueError, match=r"Numbers\(9\): example 3 has other leaves"):
        read_together(Uneven(9), [2, 4, 3], None)
