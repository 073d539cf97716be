"""Which sessions are for training, which for validation and which for the test."""

import hashlib
from collections.abc import Sequence

import numpy as np

SPLIT_BY = ("session", "user", "time")
GAP_SECONDS = 1.0  # between parts of one recording: a pose lasts about so long


def parts_in_time(
    samples: np.ndarray, ratio: Sequence[float], gap: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(first row, rows, split) of the parts (S, 3) of each recording: train, val, test in time.

    samples: (S,) rows. gap: rows between two parts that belong to none. A split of ratio 0 has no
    rows and no gap.
    """
    share = np.array(ratio) / sum(ratio)
    used = share > 0
    left = np.maximum(samples - gap * (used.sum() - 1), 0)[:, None]
    end = np.floor(np.cumsum(share) * left + 1e-6).astype(np.int64)
    start = np.concatenate([np.zeros_like(left), end[:, :-1]], axis=1)
    before = gap * np.maximum(np.cumsum(used) - 1, 0)
    split = np.broadcast_to(np.arange(len(share), dtype=np.int8), end.shape)
    return start + before, end - start, split


def ranked(keys: Sequence[str]) -> list[str]:
    """Every key once, in an order by a hash of its text."""
    return sorted(set(keys), key=lambda key: hashlib.blake2b(key.encode()).digest())


def split_by_hash(keys: Sequence[str], ratio: Sequence[float]) -> np.ndarray:
    """(S,) int8 index into SPLITS; equal keys stay together (both hands of one session).

    ratio: train, val, test shares, normalised by their sum. Keys are ranked by a hash of their
    text: no seed, and a new key moves at most the few keys at the borders of the shares. With at
    least three keys every split of a positive ratio gets one; with fewer, train is filled first.
    """
    order = ranked(keys)
    n, total, held = len(order), sum(ratio), [0, 0]
    for i, share in enumerate(ratio[1:]):
        wanted = max(1, round(n * share / total)) if share else 0
        held[i] = min(wanted, n - 1 - held[0] - (1 if i == 0 and ratio[2] and n > 2 else 0))
    bounds = dict.fromkeys(order[held[0] + held[1] :], 0)
    bounds |= dict.fromkeys(order[: held[0]], 1)
    bounds |= dict.fromkeys(order[held[0] : held[0] + held[1]], 2)
    return np.array([bounds[key] for key in keys], np.int8)
