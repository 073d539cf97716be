"""Days of a record: where some are missing, and where most are apart."""

import numpy as np

from tds_jax.forecast import days


def test_days_that_stand_apart_are_one_line_that_says_how_often_they_come():
    months = np.arange("2010-01", "2012-01", dtype="datetime64[M]").astype("datetime64[D]")
    (line,) = days.gap_lines(months)
    assert line.startswith("24 days from 2010-01-01 to 2011-12-01 stand 31 days apart (monthly)")
    daily = np.arange("2010-01-01", "2010-01-09", dtype="datetime64[D]")
    assert days.gap_lines(np.delete(daily, [3, 4])) == [
        "2 days missing between 2010-01-03 and 2010-01-06"
    ]
