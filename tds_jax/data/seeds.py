"""Random numbers of many examples at once, bit for bit those of numpy's own SeedSequence."""

from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence

POOL = 4  # words of numpy.random.SeedSequence, whose constants these are
INIT_A, MULT_A = 0x43B0D7E5, 0x931E8875
INIT_B, MULT_B = 0x8B51F9DD, 0x58F38DED
MIX_L, MIX_R = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)
HALF = np.uint32(16)
KEYS = 1  # a last word that keeps keys apart from generators, whose last is 0 or none


def words(count: int, *of: int | np.ndarray) -> np.ndarray:
    """(B, count) uint32: row b is SeedSequence(the b-th of each).generate_state(count).

    of: (B,) arrays, or one number for all, each from 0 to 2**32 - 1. One call costs as much as
    five SeedSequences.
    """
    parts = [np.asarray(part, np.uint32) for part in of]
    given = np.stack(np.broadcast_arrays(*parts, *[np.uint32(0)] * (POOL - len(parts))))
    hashed = _Hash(INIT_A, MULT_A)
    pool = hashed(given[:POOL])
    for source in range(POOL):
        others = [i for i in range(POOL) if i != source]
        pool[others] = _mixed(pool[others], hashed(pool[[source] * len(others)]))
    for extra in given[POOL:]:
        pool = _mixed(pool, hashed(np.tile(extra, (POOL, 1))))
    hashed = _Hash(INIT_B, MULT_B)
    return hashed(pool[np.arange(count) % POOL]).T


def generators(*of: int | np.ndarray) -> list[np.random.Generator]:
    """np.random.default_rng((the b-th of each)) for every b; see `words`."""
    return _generators(words(8, *of))


def _generators(drawn_words: np.ndarray) -> list[np.random.Generator]:
    states = np.ascontiguousarray(drawn_words).view("<u8").astype(np.uint64)
    drawn: list[Any] = [_Drawn(state) for state in states]  # numpy types know SeedSequence alone
    return [np.random.Generator(np.random.PCG64(state)) for state in drawn]


def generators_and_keys(
    *of: int | np.ndarray,
) -> tuple[list[np.random.Generator], np.ndarray]:
    """`generators` of (B,) arrays, and their `keys`, for little more than either."""
    count = len(np.broadcast_arrays(*of)[0])
    twice = [np.tile(np.broadcast_to(part, count), 2) for part in of]
    drawn = words(8, *twice, np.repeat([0, KEYS], count))
    return _generators(drawn[:count]), drawn[count:, :2]


def keys(*of: int | np.ndarray) -> np.ndarray:
    """(B, 2) uint32 of random keys, apart from the `generators` of the same three numbers."""
    return words(2, *of, KEYS)


class _Hash:
    """SeedSequence's hash of (n, B) numbers, whose constant changes from row to row."""

    def __init__(self, constant: int, factor: int) -> None:
        self._constant, self._factor = constant, factor

    def __call__(self, values: np.ndarray) -> np.ndarray:
        powers = (pow(self._factor, n, 2**32) for n in range(len(values) + 1))
        constants = [self._constant * power % 2**32 for power in powers]
        self._constant = constants[-1]
        column = np.array(constants, np.uint32)[:, None]
        values = (values ^ column[:-1]) * column[1:]
        return np.asarray(values ^ (values >> HALF))


def _mixed(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    value: np.ndarray = x * MIX_L - y * MIX_R
    return np.asarray(value ^ (value >> HALF))


class _Drawn(ISeedSequence):
    """The state of one PCG64, drawn already."""

    def __init__(self, state: np.ndarray) -> None:
        self._state = state

    def generate_state(self, n_words: int, dtype: Any = np.uint64) -> np.ndarray:
        """The state; PCG64 asks for all of it."""
        assert (n_words, dtype) == (len(self._state), np.uint64)
        return self._state


def key_data(*of: int) -> np.ndarray:
    """(2,) uint32 of a random key, which depends on these numbers alone."""
    return words(2, *(np.array([part]) for part in of))[0]
