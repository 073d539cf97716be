"""What hypothesis draws for the laws."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as extra

LARGEST = 1e6


def flags(count):
    """(count,) booleans in a few runs."""

    def of_edges(edges):
        rows = np.zeros(count + 1, int)
        np.add.at(rows, np.array(edges, int) % (count + 1), 1)
        return np.cumsum(rows)[:count] % 2 == 1

    return st.lists(st.integers(0, 10_000), max_size=6).map(of_edges)


def arrays(least, most, columns=2, largest=LARGEST):
    """(n, columns) f64, of any scale up to `largest`."""
    rows = st.integers(least, most)
    values = st.floats(-largest, largest, allow_nan=False, allow_subnormal=False)
    return rows.flatmap(lambda n: extra.arrays(np.float64, (n, columns), elements=values))
