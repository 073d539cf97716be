"""Laws of windows, runs and statistics, for whatever sessions hypothesis makes up."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tds_jax.data.scan import Runs
from tds_jax.data.statistics import Moments, spread_slices, streamed_moments
from tds_jax.data.windows import Windows, WindowSpec, difference
from tests.drawn import arrays, flags

MOST_ROWS = 60


@st.composite
def recordings(draw):
    """(rows per session, valid rows of each, broken rows of each)."""
    samples = draw(st.lists(st.integers(0, MOST_ROWS), min_size=1, max_size=4))
    return np.array(samples), [draw(flags(n)) for n in samples], [draw(flags(n)) for n in samples]


@st.composite
def specs(draw):
    """Windows of any length, overlapping, apart or tiled."""
    window = draw(st.integers(1, 20))
    stride = draw(st.one_of(st.none(), st.integers(1, 25)))
    return WindowSpec(window, stride, draw(st.integers(0, window - 1)), draw(st.integers(1, 8)))


def runs_of(rows):
    """Maximal runs of True rows of each session."""
    edges = [np.flatnonzero(np.diff(np.r_[False, row, False])) for row in rows]
    return Runs.pack([edge.reshape(-1, 2) for edge in edges])


def labels(spec, start):
    return start + spec.label_offset + spec.label_stride * np.arange(spec.positions)


@given(recordings(), specs())
def test_a_window_is_inside_unbroken_and_supervised(recording, spec):
    samples, valid, broken = recording
    windows = Windows(samples, runs_of(valid), runs_of(broken), spec)
    for session, start, repeated in map(windows.locate, range(len(windows))):
        assert start >= 0
        assert start + spec.window <= samples[session]
        assert not broken[session][start : start + spec.window].any()
        assert valid[session][labels(spec, start)].any()
        assert 0 <= repeated < spec.positions


@given(recordings(), specs())
def test_every_supervised_row_of_a_tiled_session_counts_once_and_no_other_does(recording, spec):
    samples, valid, broken = recording
    tiled = WindowSpec(spec.window, None, spec.label_offset, spec.label_stride)
    windows = Windows(samples, runs_of(valid), runs_of(broken), tiled)
    seen = [np.zeros(n, int) for n in samples]
    for session, start, repeated in map(windows.locate, range(len(windows))):
        seen[session][labels(tiled, start)[repeated:]] += 1
    for session, rows in enumerate(samples):
        assert (seen[session] <= 1).all()
        if rows < tiled.window or broken[session].any():
            continue
        first, last = labels(tiled, 0)[[0, -1]]
        shift = (rows - tiled.window) // tiled.label_stride * tiled.label_stride
        reachable = np.arange(first, last + shift + 1, tiled.label_stride)
        assert not (valid[session] & (seen[session] == 0))[reachable].any()


@given(recordings())
def test_the_difference_of_runs_is_that_of_their_rows(recording):
    samples, kept, removed = recording
    found = difference(samples, runs_of(kept), runs_of(removed))
    expected = runs_of([a & ~b for a, b in zip(kept, removed, strict=True)])
    for name in ("offsets", "start", "stop"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@given(arrays(1, 40), st.lists(st.integers(0, 40), max_size=5))
def test_moments_do_not_depend_on_how_rows_are_cut_or_ordered(rows, cuts):
    blocks = np.split(rows, sorted(min(cut, len(rows)) for cut in cuts))
    whole = Moments.of(rows)
    for order in (blocks, blocks[::-1]):
        found = streamed_moments(order)
        assert found.count == whole.count == len(rows)
        # 40 sums in f64 of values up to 1e6, of their squares up to 1e12: eps is 2e-16.
        np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-12, atol=1e-8)
        np.testing.assert_allclose(found.squares, whole.squares, rtol=1e-11, atol=1e-3)


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=6), st.integers(1, 9000))
def test_a_sample_is_bounded_and_inside_its_sessions(lengths, most):
    lengths = np.array(lengths)
    pieces = spread_slices(lengths, most)
    assert sum(stop - start for _, start, stop in pieces) <= most
    taken = [np.zeros(n, int) for n in lengths]
    for session, start, stop in pieces:
        assert 0 <= start < stop <= lengths[session]
        taken[session][start:stop] += 1
    assert all((rows <= 1).all() for rows in taken)
