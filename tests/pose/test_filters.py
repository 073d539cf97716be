"""Laws of the output filter: causal, still at rest, quick in motion, the same in pieces."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from tds_jax.pose.filters import SpeedAdaptiveFilter, make_filter

RATE = 50.0
FILTER = SpeedAdaptiveFilter(cutoff=1.0, gain=2.0, speed_cutoff=1.0, rate=RATE)


def run(poses, smooth=FILTER):
    """poses (N,) of one joint -> filtered (N,)."""
    shaped = jnp.asarray(poses, jnp.float32)[None, :, None]
    return np.asarray(smooth(shaped, smooth.initial(shaped[:, 0]))[0])[0, :, 0]


def by_the_paper(poses, cutoff, gain, speed_cutoff):
    """Casiez et al. 2012, sample by sample in double precision."""

    def alpha(frequency):
        tau = 1 / (2 * np.pi * frequency)
        return 1 / (1 + tau * RATE)

    out, speed = [poses[0]], 0.0
    for before, pose in itertools.pairwise(poses):
        raw = (pose - before) * RATE
        speed = alpha(speed_cutoff) * raw + (1 - alpha(speed_cutoff)) * speed
        a = alpha(cutoff + gain * abs(speed))
        out.append(a * pose + (1 - a) * out[-1])
    return np.array(out)


def test_it_is_the_one_euro_filter():
    poses = np.cumsum(np.random.default_rng(0).normal(0, 0.05, 300)) + 1
    # 300 steps of f32 on values of about 1.
    np.testing.assert_allclose(run(poses), by_the_paper(poses, 1.0, 2.0, 1.0), atol=1e-5)


def test_a_constant_passes_unchanged_from_the_first_pose_on():
    np.testing.assert_array_equal(run(np.full(20, 0.7)), np.full(20, 0.7, np.float32))


def test_noise_at_rest_shrinks_and_fast_motion_hardly_lags():
    time = np.arange(500) / RATE
    noise = np.random.default_rng(1).normal(0, 0.02, 500)
    assert run(noise)[50:].std() < 0.5 * noise.std()
    ramp = 5.0 * time  # rad/s
    fixed = SpeedAdaptiveFilter(cutoff=1.0, gain=0.0, speed_cutoff=1.0, rate=RATE)
    lag = (ramp - run(ramp))[-1] / 5.0
    # A first-order low-pass lags by 1 / (2 pi cutoff): 1 Hz at rest, 1 + 2 * 5 Hz here.
    assert lag == pytest.approx(1 / (2 * np.pi * 11.0), rel=0.01)
    assert (ramp - run(ramp, fixed))[-1] / 5.0 == pytest.approx(1 / (2 * np.pi), rel=0.01)


def test_no_later_pose_is_looked_at_and_joints_and_rows_do_not_mix():
    poses = np.random.default_rng(2).normal(0, 1, (2, 30, 3)).astype(np.float32)
    whole, _ = FILTER(jnp.asarray(poses), FILTER.initial(poses[:, 0]))
    changed = poses.copy()
    changed[1, 20:, 2] += 1
    other, _ = FILTER(jnp.asarray(changed), FILTER.initial(poses[:, 0]))
    different = np.array(whole != other)
    assert different[1, 20:, 2].all()
    different[1, 20:, 2] = False
    assert not different.any()


def test_pieces_and_single_steps_equal_the_whole():
    poses = jnp.asarray(np.random.default_rng(3).normal(0, 1, (2, 31, 3)), jnp.float32)
    whole, _ = FILTER(poses, FILTER.initial(poses[:, 0]))
    carry, found = FILTER.initial(poses[:, 0]), []
    for n in range(20):
        carry, pose = FILTER.step(carry, poses[:, n])
        found.append(pose[:, None])
    rest, _ = FILTER(poses[:, 20:], carry)
    np.testing.assert_allclose(jnp.concatenate([*found, rest], 1), whole, atol=1e-6)


def test_none_is_no_filter():
    assert make_filter("none", cutoff=1, gain=1, speed_cutoff=1, rate=RATE) is None
