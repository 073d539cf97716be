"""Sparse labels: which they are, and the rows between them."""

import itertools

import numpy as np
import pytest

from tds_jax.pose.labels import (
    bridged,
    filled,
    first_label_step,
    label_step,
    reach,
    runs_of,
    valid_rows,
)

LINE = np.stack([np.arange(4000) / 100 + 1, -np.arange(4000) / 50 - 1], axis=1)  # no row is 0


def sparse(at, blank=np.nan):
    angles = np.full_like(LINE, blank)
    angles[at] = LINE[at]
    return angles


# Rows that have a label at 2 kHz, and the step they are found to have.
PLACES = {
    "25 Hz": (np.arange(3, 4000, 80), 80),
    "240 Hz": (np.round(np.arange(0, 4000, 2000 / 240)).astype(int)[:-1], 8),
    "pairs of equal rows": (np.concatenate([np.arange(0, 4000, 40), np.arange(1, 4000, 40)]), 40),
    "one of four lost": (np.delete(np.arange(0, 4000, 20), slice(0, None, 4)), 20),
    "5 Hz is too slow": (np.arange(0, 4000, 400), 1),
    "every row": (np.arange(4000), 1),
    "runs longer than the gaps": (np.flatnonzero(np.arange(4000) % 50 < 30), 1),
    "a few runs": (np.flatnonzero(np.arange(4000) % 500 < 100), 1),
    "none": (np.zeros(0, int), 1),
}


@pytest.mark.parametrize(("at", "step"), PLACES.values(), ids=PLACES.keys())
@pytest.mark.parametrize("blank", [np.nan, 0.0])
def test_rows_between_labels_that_follow_each_other_are_on_the_line(at, step, blank):
    angles = sparse(at, blank)
    runs = runs_of(valid_rows(angles))
    assert label_step(runs, 2000.0) == step
    found = filled(angles, reach(step))
    have = valid_rows(found)
    np.testing.assert_array_equal(runs_of(have), bridged(runs, reach(step)))
    # f64 values below 100 between two such: a rounding of each of three operations
    np.testing.assert_allclose(found[have], LINE[have], rtol=0, atol=100 * 3 * 2**-53)
    order = np.sort(at)
    inside = [(a, b) for a, b in itertools.pairwise(order) if b - a < 2 * step]
    expected = np.zeros(4000, bool)
    expected[at] = True
    for a, b in inside if step > 1 else ():
        expected[a:b] = True
    np.testing.assert_array_equal(have, expected)


def test_blocks_with_rows_to_spare_are_those_of_the_whole():
    angles = sparse(PLACES["240 Hz"][0])
    more = reach(8)
    whole = filled(angles, more)
    for start in range(more, 4000 - 100 - more, 37):
        part = filled(angles[start - more : start + 100 + more], more)[more : more + 100]
        np.testing.assert_array_equal(part, whole[start : start + 100])


def test_what_the_first_block_says_is_said_of_the_whole():
    """So that a file that is read block by block needs no pass before."""
    first = np.arange(70_000, 100_000, 40)
    whole = np.concatenate([first, np.arange(150_000, 200_000)])
    runs = np.stack([whole, whole + 1], axis=1)
    angles = np.zeros((200_000, 1), np.float32)
    angles[whole] = 1
    assert first_label_step(lambda a, b: angles[a:b], 200_000, 2000.0) == 40
    assert label_step(runs, 2000.0) == label_step(runs_of(valid_rows(angles)), 2000.0) == 40
