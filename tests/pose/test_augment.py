"""Laws of augmentation: each example's own, in training only, in units of the recordings."""

import jax.numpy as jnp
import numpy as np
import pytest

from tds_jax.data import seeds
from tds_jax.nn.normalizer import Normalizer
from tds_jax.pose.augment import Augmentation
from tests.pose.small import LENGTHS, SPLITS, small_task, write_recordings

MEAN, SCALE = np.array([5.0, -2.0, 0.0, 1.0]), np.array([2.0, 1.0, 10.0, 0.1])
EXAMPLES = 400


@pytest.fixture(scope="module")
def drawn():
    """Normaliser, keys and EMG of many windows (B, T, C), of spread 1 when normalised."""
    normalizer = Normalizer(4)
    normalizer.mean[...], normalizer.scale[...] = jnp.float32(MEAN), jnp.float32(SCALE)
    z = np.random.default_rng(0).normal(size=(EXAMPLES, 50, 4))
    keys = jnp.asarray(seeds.keys(0, 0, np.arange(EXAMPLES)))
    return normalizer, keys, jnp.asarray(z * SCALE + MEAN, jnp.float32)


def normalised(values):
    return (np.asarray(values, np.float64) - MEAN) / SCALE


def test_noise_has_its_deviation_in_units_of_each_channels_spread(drawn):
    normalizer, keys, emg = drawn
    added = normalised(Augmentation(0.5, 0.0, 0.0)(emg, normalizer, keys)) - normalised(emg)
    # 20,000 draws a channel: the deviation of a deviation is 0.5 / sqrt(40,000).
    np.testing.assert_allclose(added.std(axis=(0, 1)), 0.5, atol=0.0125)
    flat = added.reshape(EXAMPLES, -1)
    assert np.abs(np.corrcoef(flat[:20])[np.triu_indices(20, 1)]).max() < 0.35, "own draws"


def test_a_gain_is_one_number_per_channel_and_window(drawn):
    normalizer, keys, emg = drawn
    ratio = normalised(Augmentation(0.0, 0.3, 0.0)(emg, normalizer, keys)) / normalised(emg)
    middle = np.median(ratio, axis=1, keepdims=True)
    # Where z is near 0 the rounding of mean + scale · z counts; the middle half is free of it.
    assert np.abs(ratio / middle - 1).mean() < 1e-3
    log = np.log(middle[:, 0])
    assert abs(log.mean()) < 0.03
    assert log.std(axis=0) == pytest.approx(0.3, abs=0.05)
    assert np.abs(np.corrcoef(log.T)[np.triu_indices(4, 1)]).max() < 0.2


def test_a_dropped_channel_stays_at_its_mean_for_its_share_of_windows(drawn):
    normalizer, keys, emg = drawn
    found = normalised(Augmentation(0.2, 0.0, 0.25)(emg, normalizer, keys))
    silent = np.abs(found).max(axis=1) < 1e-5
    assert silent.mean() == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 1600) ** 0.5)
    assert (np.abs(found).std(axis=1)[~silent] > 0.3).all()


def test_a_window_is_changed_by_its_own_key_alone(drawn):
    normalizer, keys, emg = drawn
    change = Augmentation(0.5, 0.3, 0.25)
    together = change(emg, normalizer, keys)
    order = np.random.default_rng(0).permutation(EXAMPLES)[:7]
    np.testing.assert_array_equal(together[order], change(emg[order], normalizer, keys[order]))
    assert Augmentation(0.0, 0.0, 0.0)(emg, normalizer, keys) is emg


class Seen:
    """A model that answers with the EMG it was given."""

    def __init__(self):
        self.normalizer = Normalizer(4)

    def __call__(self, emg, initial_pose, keys):
        return emg


def test_only_training_is_augmented(tmp_path):
    write_recordings(tmp_path / "data", LENGTHS, SPLITS)
    changes = {"data__noise": 0.1, "data__gain_spread": 0.2, "data__channel_drop": 0.5}
    task = small_task(tmp_path / "data", tmp_path, **changes)
    assert task.config.data.augmentation == Augmentation(0.1, 0.2, 0.5)
    source, keys = task.source("train"), seeds.keys(0, 0, np.arange(2))
    batch = {name: jnp.asarray(leaf) for name, leaf in source.examples([0, 1], None).items()}
    batch |= {"key": jnp.asarray(keys)}
    evaluated, trained = (np.asarray(task.poses(Seen(), batch, train)) for train in (False, True))
    np.testing.assert_array_equal(evaluated, batch["emg"])
    expected = task.config.data.augmentation(batch["emg"], Normalizer(4), batch["key"])
    np.testing.assert_array_equal(trained, expected)
    assert 0 < np.mean((trained == 0).all(axis=1)) < 1
