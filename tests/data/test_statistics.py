import numpy as np
import pytest

from tds_jax.data.statistics import SAMPLE_ROWS, Moments, spread_slices, streamed_moments

# Double rounding over about 1e4 additions: 1e4 * 2.2e-16.
RTOL = 2e-12


@pytest.mark.parametrize("order", [1, -1])
def test_streamed_moments_equal_numpy_on_all_rows_at_once(order):
    rng = np.random.default_rng(0)
    rows = (1000 + rng.normal(size=(10_000, 3)) * [1, 10, 0.1]).astype(np.float32)
    blocks = np.split(rows, [1, 5, 4000, 4001, 9000])[::order]
    found = streamed_moments(blocks)
    whole = rows.astype(np.float64)
    assert found.count == 10_000
    np.testing.assert_allclose(found.mean, whole.mean(0), rtol=RTOL)
    np.testing.assert_allclose(found.scale(), whole.std(0), rtol=RTOL)


def test_rows_with_nan_or_inf_are_left_out():
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    broken = rows.copy()
    broken[1, 0], broken[4, 1] = np.nan, np.inf
    found, expected = Moments.of(broken), Moments.of(rows[[0, 2, 3, 5]])
    assert found.count == 4
    np.testing.assert_array_equal(found.mean, expected.mean)
    assert Moments.of(broken[[1]]).merge(found).count == 4


def test_constant_channels_and_no_rows_have_scale_one():
    rows = np.full((1000, 2), 0.1, np.float32)
    rows[:, 1] = np.arange(1000)
    scale = streamed_moments([rows[:7], rows[7:]]).scale()
    assert scale[0] == 1
    assert scale[1] > 200
    np.testing.assert_array_equal(Moments.of(np.zeros((0, 2))).scale(), [1, 1])


def test_no_blocks_is_an_error():
    with pytest.raises(ValueError, match="no blocks"):
        streamed_moments([])


@pytest.mark.parametrize("max_rows", [1, 10, 300, 5_000])
def test_samples_are_disjoint_bounded_and_reach_all_parts(max_rows):
    lengths = np.array([4000, 0, 3, 9000, 2500])
    pieces = spread_slices(lengths, max_rows)
    assert pieces == spread_slices(lengths, max_rows)
    taken = [np.zeros(n, int) for n in lengths]
    for session, start, stop in pieces:
        assert 0 <= start < stop <= lengths[session]
        assert stop - start <= SAMPLE_ROWS
        taken[session][start:stop] += 1
    assert max(t.max(initial=0) for t in taken) == 1
    assert sum(t.sum() for t in taken) <= max_rows
    if max_rows == 5_000:
        shares = [taken[i].sum() / 5_000 for i in (0, 3, 4)]
        np.testing.assert_allclose(shares, np.array([4000, 9000, 2500]) / 15_503, atol=0.06)


def test_a_sample_of_everything_is_everything():
    assert spread_slices(np.array([5, 0, 7]), 12) == [(0, 0, 5), (2, 0, 7)]
