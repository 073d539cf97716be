"""Which sessions are for training, which for validation and which for the test."""

import hashlib
from collections.abc import Sequence

import numpy as np


def split_by_hash(keys: Sequence[str], ratio: Sequence[float]) -> np.ndarray:
    """(S,) int8 index into SPLITS; equal keys stay together (both hands of one session).

    ratio: train, val, test shares, normalised by their sum. Keys are ranked by a hash of their
    text: no seed, and a new key moves at most the few keys at the borders of the shares. With at
    least three keys every split of a positive ratio gets one; with fewer, train is filled first.
    """
    ranked = sorted(set(keys), key=lambda key: hashlib.blake2b(key.encode()).digest())
    n, total, held = len(ranked), sum(ratio), [0, 0]
    for i, share in enumerate(ratio[1:]):
        wanted = max(1, round(n * share / total)) if share else 0
        held[i] = min(wanted, n - 1 - held[0] - (1 if i == 0 and ratio[2] and n > 2 else 0))
    bounds = dict.fromkeys(ranked[held[0] + held[1] :], 0)
    bounds |= dict.fromkeys(ranked[: held[0]], 1)
    bounds |= dict.fromkeys(ranked[held[0] : held[0] + held[1]], 2)
    return np.array([bounds[key] for key in keys], np.int8)
