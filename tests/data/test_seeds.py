import numpy as np
import pytest

from tds_jax.data import seeds


@pytest.mark.parametrize("count", [1, 3, 4, 5, 6])
def test_words_are_those_of_numpys_seed_sequence(count):
    of = np.random.default_rng(count).integers(0, 2**32, (40, count), dtype=np.int64)
    of[0], of[1] = 0, 2**32 - 1
    found = seeds.words(8, *of.T)
    for row, numbers in zip(found, of.tolist(), strict=True):
        np.testing.assert_array_equal(row, np.random.SeedSequence(numbers).generate_state(8))


def test_generators_are_numpys_own():
    indices = np.array([0, 5, 2**31 - 1])
    for rng, index in zip(seeds.generators(7, np.array(2), indices), indices.tolist(), strict=True):
        own = np.random.default_rng((7, 2, index))
        assert [rng.integers(1000), rng.random()] == [own.integers(1000), own.random()]


def test_generators_and_keys_drawn_together_are_those_drawn_alone():
    indices = np.array([0, 5, 2**31 - 1])
    of = 7, np.array([2, 2, 3]), indices
    rngs, keys = seeds.generators_and_keys(*of)
    np.testing.assert_array_equal(keys, seeds.keys(*of))
    np.testing.assert_array_equal(keys, seeds.words(2, *of, 1))
    for found, alone in zip(rngs, seeds.generators(*of), strict=True):
        assert found.random() == alone.random()
