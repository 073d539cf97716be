"""Laws of splits and of rates, for whatever folders and files hypothesis makes up."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal

from tds_jax.config import SPLITS
from tds_jax.pose.prepare import filtered_blocks, resampled_count
from tds_jax.pose.splits import split_by_hash
from tests.drawn import arrays

SHARES = st.tuples(st.floats(0.1, 1), st.floats(0, 1), st.floats(0, 1))


@given(st.lists(st.text(max_size=3), min_size=1, max_size=30), SHARES)
def test_a_split_has_everything_once_keeps_keys_together_and_knows_no_order(keys, ratio):
    found = split_by_hash(keys, ratio)
    assert set(found.tolist()) <= set(range(len(SPLITS)))
    owner = dict(zip(keys, found.tolist(), strict=True))
    assert [owner[key] for key in keys] == found.tolist()
    assert split_by_hash(keys[::-1], ratio).tolist() == found.tolist()[::-1]
    if len(owner) >= len(SPLITS):
        assert {SPLITS[i] for i in owner.values()} >= {
            name for name, share in zip(SPLITS, ratio, strict=True) if share
        }


@given(
    arrays(1, 200, columns=1, largest=1.0),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 250),
)
def test_blocks_of_any_size_join_to_the_resampling_of_the_whole(rows, up, down, block_rows):
    factor = np.gcd(up, down)
    up, down = int(up // factor), int(down // factor)
    blocks = filtered_blocks(lambda a, b: rows[a:b], len(rows), up, down, block_rows)
    found = np.concatenate(list(blocks))
    expected = signal.resample_poly(rows, up, down, axis=0)
    assert len(found) == resampled_count(len(rows), up, down)
    # f64 sums of the same products of numbers up to 1.
    np.testing.assert_allclose(found, expected[: len(found)], rtol=0, atol=1e-12)
