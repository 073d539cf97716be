"""Numbers that mean "missing": which, where, and what is said of them."""

import numpy as np
import pytest

from tds_jax.data.sentinels import MARKS, always_zero, bounds_of, lines, marks_in, suspect


def soil():
    return np.random.default_rng(0).uniform(0.1, 0.5, (8, 6, 8)).astype("f4")


@pytest.mark.parametrize("mark", MARKS.tolist())
def test_a_mark_far_from_all_values_is_missing(mark):
    values = soil()
    values[:, :2, :3] = mark
    found = marks_in(values, bounds_of(values))
    assert found[:, :2, :3].all()
    assert found.sum() == 8 * 6


def test_a_number_among_the_values_is_a_value():
    """Heights around 9999 m, and a depth of -99 m below the sea."""
    heights = np.linspace(9000, 12000, 48, dtype="f4").reshape(1, 6, 8)
    heights[0, 0, 0] = 9999
    depths = np.linspace(-5000, -1, 48, dtype="f4").reshape(1, 6, 8)
    depths[0, 0, 0] = -99
    for values in (heights, depths):
        assert not marks_in(values, bounds_of(values)).any()
        assert lines("z", values) == []


def test_a_step_without_any_rain_leaves_marks_marks():
    values = np.zeros((1, 6, 8), "f4")
    values[0, 0, 0] = -9999
    assert marks_in(values, bounds_of(values)).sum() == 1


def test_other_extremes_that_repeat_are_said_and_kept():
    values = soil()
    values[:, 0, 0] = -888
    assert suspect(values) == (-888.0, 8)
    assert not marks_in(values, bounds_of(values)).any()
    assert "-888 stands 8 times on 8 steps" in lines("sm", values)[0]
    assert suspect(soil()) is None


def test_zeros_are_said_where_they_can_only_be_sea():
    """Not where other cells are dry at times, as rain is, nor where all is 0."""
    values = soil()
    values[:, :3, :4] = 0
    assert always_zero(values) == 12
    assert "12 of 48 cells are 0" in lines("sm", values)[0]
    values[3, 5, 5] = 0
    assert always_zero(values) == 0
    assert always_zero(np.zeros((8, 6, 8), "f4")) == 0
