import pickle
import time
import tracemalloc

import numpy as np
import pytest

from tds_jax.data.scan import Runs
from tds_jax.data.windows import RunWindows, Windows, WindowSpec, difference


def runs_of(flags):
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return edges.reshape(-1, 2)


def pack(flags):
    return Runs.pack([runs_of(f) for f in flags])


def random_flags(rng, lengths, share):
    """Runs of true rows of random lengths, single rows among them."""
    result = []
    for n in lengths:
        pieces = rng.choice([1, 2, 3, 7, 20], size=n)
        result.append(np.repeat(rng.random(n) < share, pieces)[:n])
    return result


def brute_force(lengths, valid, broken, spec):
    """(session, start) of every window a loop over all starts would keep, when not tiling."""
    kept = []
    for s, n in enumerate(lengths):
        for start in range(0, n - spec.window + 1, spec.step):
            rows = start + spec.label_offset + spec.label_stride * np.arange(spec.positions)
            if valid[s][rows].any() and not broken[s][start : start + spec.window].any():
                kept.append((s, start))
    return kept


@pytest.mark.parametrize("seed", range(20))
def test_windows_equal_those_of_a_loop_over_all_starts(seed):
    rng = np.random.default_rng(seed)
    window = int(rng.integers(3, 30))
    spec = WindowSpec(
        window, int(rng.integers(1, 12)), int(rng.integers(0, window)), int(rng.integers(1, 8))
    )
    lengths = rng.integers(0, 150, 8)
    valid, broken = random_flags(rng, lengths, 0.15), random_flags(rng, lengths, 0.03)
    windows = Windows(lengths, pack(valid), pack(broken), spec)
    found = [windows.locate(i) for i in range(len(windows))]
    assert [(s, start) for s, start, _ in found] == brute_force(lengths, valid, broken, spec)
    assert {repeated for _, _, repeated in found} <= {0}


@pytest.mark.parametrize("seed", range(20))
def test_tiling_counts_every_reachable_label_row_exactly_once(seed):
    rng = np.random.default_rng(seed)
    window, stride = int(rng.integers(3, 30)), int(rng.integers(1, 8))
    spec = WindowSpec(window, None, int(rng.integers(0, window)), stride)
    lengths = rng.integers(0, 150, 6)
    valid = random_flags(rng, lengths, 0.5)
    windows = Windows(lengths, pack(valid), pack([np.zeros(n, bool) for n in lengths]), spec)
    counted = [np.zeros(n, int) for n in lengths]
    for i in range(len(windows)):
        session, start, repeated = windows.locate(i)
        assert 0 <= start <= lengths[session] - window
        rows = start + spec.label_offset + stride * np.arange(repeated, spec.positions)
        assert valid[session][rows].any()
        counted[session][rows] += 1
    for n, flags, times in zip(lengths, valid, counted, strict=True):
        assert times.max(initial=0) <= 1
        if n < window:
            assert not times.any()
            continue
        span = (spec.positions - 1) * stride
        last = (n - window) // stride * stride + spec.label_offset + span
        reachable = np.arange(spec.label_offset, last + 1, stride)
        assert times[reachable][flags[reachable]].all()
        assert n - 1 - last < 2 * stride


def test_broken_rows_in_a_shifted_last_window_exclude_it():
    spec = WindowSpec(10, None, 4, 1)
    valid, broken = np.ones(25, bool), np.zeros(25, bool)
    broken[24] = True
    windows = Windows(np.array([25]), pack([valid]), pack([broken]), spec)
    assert [windows.locate(i)[1] for i in range(len(windows))] == [0, 6, 12]


def test_room_ends_at_the_session_or_the_next_broken_row():
    broken = np.zeros(50, bool)
    broken[30:32] = True
    flags = [np.ones(50, bool)]
    windows = Windows(np.array([50]), pack(flags), pack([broken]), WindowSpec(10, 5, 0, 1))
    assert [windows.room(0, start) for start in (0, 15, 20, 32, 40)] == [20, 5, 0, 8, 0]


def test_25_000_sessions_take_megabytes_and_microseconds():
    rng = np.random.default_rng(0)
    sessions, per = 25_000, 4
    lengths = rng.integers(90_000, 470_000, sessions)
    edges = np.sort(rng.integers(0, 90_000, (sessions, 2 * per)), axis=1).reshape(-1, 2)
    valid = Runs(np.arange(sessions + 1) * per, edges[:, 0].copy(), edges[:, 1].copy())
    broken = Runs(np.zeros(sessions + 1, int), np.zeros(0, int), np.zeros(0, int))
    tracemalloc.start()
    windows = Windows(lengths, valid, broken, WindowSpec(11_790, 1, 1_790, 40))
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(windows) > 1e9  # 9 GB as (file, start) pairs of int32, far more as Python tuples
    assert held < 8e6
    assert len(pickle.dumps(windows)) < 8e6
    indices = rng.integers(0, len(windows), 2000).tolist()
    begin = time.perf_counter()
    for i in indices:
        session, start, _ = windows.locate(i)
        assert start + 11_790 <= lengths[session]
    assert (time.perf_counter() - begin) / 2000 < 200e-6  # about 10 us here


@pytest.mark.parametrize("index", [-1, 4])
def test_an_index_outside_raises(index):
    flags = pack([np.ones(40, bool)])
    windows = Windows(np.array([40]), flags, pack([np.zeros(40, bool)]), WindowSpec(10, 10, 0, 1))
    assert len(windows) == 4
    with pytest.raises(IndexError):
        windows.locate(index)


def test_label_rows_must_lie_inside_the_window():
    with pytest.raises(ValueError, match="label_offset=10 must lie inside the window=10"):
        WindowSpec(10, 5, 10, 1)
    with pytest.raises(ValueError, match="at least 1"):
        WindowSpec(10, 0, 1, 1)


@pytest.mark.parametrize("seed", range(20))
def test_windows_inside_runs_equal_those_of_a_loop_over_every_run(seed):
    rng = np.random.default_rng(seed)
    spec = WindowSpec(int(rng.integers(3, 20)), int(rng.integers(1, 12)), 1, 2)
    lengths = rng.integers(0, 150, 8)
    valid, broken = random_flags(rng, lengths, 0.9), random_flags(rng, lengths, 0.02)
    usable = [v & ~b for v, b in zip(valid, broken, strict=True)]
    runs = difference(lengths, pack(valid), pack(broken))
    for session, flags in enumerate(usable):
        np.testing.assert_array_equal(runs.of(session), runs_of(flags))
    windows = RunWindows(runs, spec)
    found = [windows.locate(i) for i in range(len(windows))]
    assert found == [
        (session, start, 0)
        for session, flags in enumerate(usable)
        for begin, end in runs_of(flags)
        for start in range(begin, end - spec.window + 1, spec.step)
    ]
    for session, start, _ in found:
        room = windows.room(session, start)
        reached = usable[session][start : start + spec.window + room + 1]
        assert reached[:-1].all()
        assert len(reached) < spec.window + room + 1 or not reached[-1]


def test_touching_runs_at_the_ends_of_sessions_stay_apart():
    both = pack([np.ones(10, bool), np.ones(10, bool)])
    runs = difference(np.array([10, 10]), both, pack([np.zeros(10, bool)] * 2))
    assert [runs.of(i).tolist() for i in (0, 1)] == [[[0, 10]], [[0, 10]]]
