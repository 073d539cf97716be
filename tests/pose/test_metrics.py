"""Pose metrics equal their definitions in plain numpy, for any mask and any split of the rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tds_jax.engine import metrics
from tds_jax.pose.joints import TWENTY, fingers, segments
from tds_jax.pose.kinematics import MCPS, default_hand, landmarks
from tds_jax.pose.metrics import landmark_stride, make_compare

ROWS, STEPS, RATE = 12, 23, 100.0
SPLITS = [(12,), (1,) * 12, (5, 7)]


def make(joints, seed=0):
    """Poses, targets (B, N, J) and ragged weights (B, N): runs of failed rows, an empty example."""
    rng = np.random.default_rng(seed)
    target = rng.uniform(-0.3, 1.2, (ROWS, STEPS, joints)).astype(np.float32)
    poses = target + rng.normal(0, 0.3, target.shape).astype(np.float32)
    weight = (rng.random((ROWS, STEPS)) < 0.8).astype(np.float32)
    weight[3] = 0
    return poses, target, weight


def values(arrays, split=(ROWS,), rate=RATE, every_sample=False):
    """What the states of these rows, batch by batch and example by example, come to."""
    joints = arrays[0].shape[2]
    hand = default_hand() if joints == 20 else None
    compare = jax.jit(make_compare(hand, rate, every_sample))
    ends, each = np.cumsum(split), []
    for n, end in zip(split, ends, strict=True):
        states = metrics.to_host(compare(*(jnp.asarray(x[end - n : end]) for x in arrays)))
        each += [jax.tree.map(lambda leaf, i=i: leaf[i], states) for i in range(n)]
    return metrics.compute(functools.reduce(metrics.merge, each))


def mean_difference(poses, weight, order):
    """Mean |k-th difference| over the rows all of whose samples count, one example at a time."""
    found = []
    for pose, counts in zip(poses.astype(np.float64), weight, strict=True):
        for n in range(STEPS - order):
            if counts[n : n + order + 1].all():
                found.append(np.abs(np.diff(pose[n : n + order + 1], order, axis=0)))
    return np.mean(found)


@pytest.mark.parametrize("split", SPLITS)
def test_angle_errors_are_numpys_per_finger_and_segment(split):
    arrays = make(20)
    found = values(arrays, split)
    poses, target, weight = arrays
    error = np.degrees(np.abs(poses - target)[weight > 0].astype(np.float64))
    # f32 sums of 23 rows: eps·sqrt(23) = 3e-7
    assert found["mae_deg"] == pytest.approx(error.mean(), rel=1e-6)
    assert found["mae_rad"] == pytest.approx(np.radians(error.mean()), rel=1e-6)
    parts = fingers(TWENTY) | segments(TWENTY)
    assert len(parts) == 8
    for name, joints in parts.items():
        assert found[f"mae_{name}_deg"] == pytest.approx(error[:, joints].mean(), rel=1e-6)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("rate", [50.0, 100.0, 250.0])
def test_landmark_distances_are_numpys_every_20_ms(split, rate):
    poses, target, weight = make(20)
    found = values((poses, target, weight), split, rate)
    stride = max(1, round(0.02 * rate))
    chosen = weight[:, ::stride] > 0
    a, b = (np.asarray(landmarks(default_hand(), jnp.asarray(x))) for x in (poses, target))
    apart = np.linalg.norm((a - b)[:, ::stride][chosen].astype(np.float64), axis=-1)
    moving = [i for i in range(21) if i not in (*MCPS, 5, 20)]
    expected = {
        "landmark_mm": apart[:, [i for i in range(21) if i not in MCPS]].mean(),
        "landmark_moving_mm": apart[:, moving].mean(),
        "fingertip_mm": apart[:, :5].mean(),
    }
    # positions of 200 mm in f32 are off by 1e-5 mm, distances are about 10 mm
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert found["landmark_moving_mm"] == pytest.approx(found["landmark_mm"] * 17 / 15, rel=1e-4)


def test_forty_samples_at_2_khz_and_every_row_when_rows_are_rarer():
    assert [landmark_stride(rate) for rate in (2000.0, 250.0, 50.0, 12.5)] == [40, 5, 1, 1]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("joints", [3, 20])
def test_differences_count_when_all_their_rows_do_and_have_true_units(split, joints):
    poses, target, weight = make(joints)
    found = values((poses, target, weight), split)
    names = ("velocity_rad_s", "acceleration_rad_s2", "jerk_rad_s3")
    for order, name in enumerate(names, start=1):
        for prefix, angles in (("", poses), ("label_", target)):
            expected = mean_difference(angles, weight, order) * RATE**order
            # angles of size 1 in f32, differences of about 0.3: a few eps
            assert found[f"{prefix}{name}"] == pytest.approx(expected, rel=2e-6)
    assert not any("reference" in name for name in found)


def test_the_references_convention_multiplies_by_the_rate_once():
    arrays = make(3)
    found = values(arrays, every_sample=True)
    assert found["acceleration_rad_s2"] == pytest.approx(found["acceleration_reference"] * RATE)
    assert found["jerk_rad_s3"] == pytest.approx(found["jerk_reference"] * RATE**2)
    assert found["jerk_reference"] == pytest.approx(
        mean_difference(arrays[0], arrays[2], 3) * RATE, rel=2e-6
    )


def test_a_sine_has_the_velocity_and_acceleration_of_a_sine():
    """sin 2t: mean |velocity| 2 · 2/π rad/s, mean |acceleration| 4 · 2/π rad/s²."""
    time = np.arange(4000) / 1000.0 * np.pi
    pose = np.sin(2 * time).astype(np.float32)[None, :, None]
    compare = make_compare(None, 1000.0 / np.pi, False)
    states = metrics.to_host(compare(*map(jnp.asarray, (pose, pose, np.ones((1, 4000), "f4")))))
    found = metrics.compute(jax.tree.map(lambda leaf: leaf[0], states))
    assert found["velocity_rad_s"] == pytest.approx(4 / np.pi, rel=1e-3)
    # f32 rounds angles by 6e-8 rad: at 318 Hz 6e-3 rad/s²
    assert found["acceleration_rad_s2"] == pytest.approx(8 / np.pi, rel=1e-2)


def test_values_under_weight_zero_do_not_count():
    poses, target, weight = make(20)
    dirty = poses + 9 * (weight[..., None] == 0).astype(np.float32)
    assert values((dirty, target, weight)) == values((poses, target, weight))


def test_nothing_counted_is_nan_everywhere():
    poses, target, weight = make(20)
    found = values((poses, target, 0 * weight), every_sample=True)
    assert len(found) > 20
    assert np.isnan(list(found.values())).all()


def test_other_hands_have_no_landmarks_and_no_fingers_by_their_number():
    for joints in (3, 5):
        found = values(make(joints))
        assert {"mae_deg", "velocity_rad_s"} <= set(found)
        assert not {"landmark_mm", "mae_proximal_deg", "mae_thumb_deg"} & set(found)
