"""The rate that time stamps tell."""

import numpy as np
import pytest

from tds_jax.data.scan import contradiction, stamped_rate

ROWS = np.arange(4000)
# Stamps in seconds, and the rate of the samples they are of.
STAMPS = {
    "even": (ROWS / 2000, 2000.0),
    "from 1.7e9 s on": (1.7e9 + ROWS / 250, 250.0),
    "packets of 5, stamped on arrival": (ROWS // 5 * 0.025 + ROWS % 5 * 1e-4, 200.0),
    "packets of equal stamps": (ROWS // 10 * 0.05, 200.0),
    "rounded to ms": (np.round(ROWS / 2148.148, 3), 2148.148),
    "a pause of an hour": (ROWS / 200 + 3600 * (ROWS > 1000), 200.0),
    "one sample": (ROWS[:1] / 200, 0.0),
    "all equal": (ROWS * 0.0, 0.0),
    "with NaN": (np.where(ROWS == 7, np.nan, ROWS), 0.0),
}


@pytest.mark.parametrize(("times", "rate"), STAMPS.values(), ids=STAMPS.keys())
def test_the_rate_is_of_all_stamps_not_of_a_usual_step(times, rate):
    # One packet of 800: its stamps are up to a packet off, which a line through all averages.
    assert stamped_rate(times) == pytest.approx(rate, rel=1e-4)


def test_a_rate_that_the_stamps_do_not_have_is_told():
    assert contradiction(2000.0, 0.0) == contradiction(2000.0, 2010.0) == ""
    assert (
        contradiction(2000.0, 1000.0)
        == "sample_rate is 2000 Hz, the time stamps say 1000 on average"
    )
