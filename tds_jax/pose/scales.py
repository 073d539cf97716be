"""Whether EMG is in the unit that a model was trained in, as far as its spread tells."""

from collections.abc import Callable

import numpy as np

BLOCKS, BLOCK_ROWS = 8, 4096  # looked at, spread over a recording
# People, electrodes and rest differ by less; µV, mV and V by 1000.
MOST = 100.0


def other_scale(read: Callable[[int, int], np.ndarray], rows: int, scale: np.ndarray) -> str:
    """What is wrong with the EMG of a recording of `rows` rows, or ''.

    read(start, stop) -> (n, C); rows with NaN or Inf do not count. scale: (C,) spread of each
    channel in the model's training. Told by the usual channel: one that is dead tells nothing.
    """
    starts = np.unique(np.linspace(0, max(rows - BLOCK_ROWS, 0), BLOCKS).astype(int)).tolist()
    emg = np.concatenate([read(start, min(start + BLOCK_ROWS, rows)) for start in starts])
    known = emg[np.isfinite(emg).all(axis=1)].astype(np.float64)
    if not len(known):
        return ""
    ratio = float(np.median(known.std(axis=0) / scale))
    if ratio == 0 or 1 / MOST <= ratio <= MOST:
        return ""
    return (
        f"the spread of its EMG is {ratio:.3g} times that of the recordings the model was trained "
        "on; bring it to their unit"
    )
