"""The best forecast of the generated soil there is, by the law that made it: what is in reach."""

import math

import numpy as np
from scipy.special import ndtr

from tds_jax.forecast import synthetic, weather
from tds_jax.forecast.days import DAY


def expected_rain(moisture, spread, day):
    """What falls in an hour on average over normal moisture: E max(x, 0) = s φ(m/s) + m Φ(m/s)."""
    above = moisture - synthetic.threshold(day)
    z = above / spread
    return synthetic.RAIN * (
        spread * np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi) + above * ndtr(z)
    )


def forecast(soil, air, day, leads):
    """(leads, H, W) daily means of soil from 00 UTC of `day` on, knowing the soil and air then."""
    means, kept = [], 1.0
    for date in day + DAY * np.arange(leads):
        total = np.zeros(soil.shape)
        for hour in range(24):
            total += soil
            spread = max(math.sqrt(1 - kept**2), 1e-6)
            rain = expected_rain(air.moisture, spread, date)
            soil = synthetic.after(soil, synthetic.fluxes_of(soil, rain, date, hour))
            air, kept = air.expected(), kept * math.exp(-1 / weather.HOURS)
        means.append(total / 24)
    return np.stack(means)
