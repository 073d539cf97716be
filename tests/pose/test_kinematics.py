"""Laws of the hand: rigid bones, a rest pose, smooth gradients, and the formula written out."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tds_jax.errors import UserError
from tds_jax.pose import joints, kinematics
from tds_jax.pose.kinematics import HandModel, default_hand, distances, landmarks

# A landmark of each bone's two ends, tip last: thumb MCP-IP-tip, then MCP-PIP-DIP-tip.
CHAINS = ((6, 7, 0), (8, 9, 10, 1), (11, 12, 13, 2), (14, 15, 16, 3), (17, 18, 19, 4))


def random_hand(seed=0):
    """Any axes and points, and landmarks that blend three frames."""
    rng = np.random.default_rng(seed)
    axes = rng.normal(size=(20, 3))
    blend = np.zeros((21, 17))
    for row in blend:
        row[rng.choice(17, 3, replace=False)] = rng.dirichlet(np.ones(3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    return HandModel(axes, rng.normal(0, 60, (20, 3)), rng.normal(0, 60, (21, 3)), blend)


def brute_force(hand, angles):
    """Landmarks of one pose (20,), with 4 x 4 matrices in float64, from the published formulas."""

    def joint(j):
        v = hand.axes[j] * angles[j]
        size = np.sqrt(max(v @ v, 1e-4))
        k = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
        matrix = np.eye(4)
        matrix[:3, :3] += np.sin(size) / size * k + (1 - np.cos(size)) / size**2 * k @ k
        matrix[:3, 3] = hand.joints[j] - matrix[:3, :3] @ hand.joints[j]
        return matrix

    frames = [np.eye(4), np.eye(4)]
    for finger in range(5):
        first, *others = (joint(4 * finger + i) for i in range(4))
        for other in others:
            first = first @ other
            frames.append(first)
    points = np.append(hand.landmarks, np.ones((21, 1)), axis=1)
    return np.stack(
        [
            sum(w * (f @ p)[:3] for w, f in zip(row, frames, strict=True))
            for row, p in zip(hand.blend, points, strict=True)
        ]
    )


@pytest.fixture
def f64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("hand", [default_hand(), random_hand()], ids=["default", "random"])
@pytest.mark.parametrize("scale", [0.003, 1.0])  # below and above the clamp at 0.01 rad
def test_landmarks_are_those_of_the_formula(f64, hand, scale):
    angles = scale * np.random.default_rng(1).normal(size=(2, 3, 20))
    found = landmarks(hand, jnp.asarray(angles))
    expected = [[brute_force(hand, pose) for pose in row] for row in angles]
    # positions of 200 mm through five products in f64: 1e3 · 1e-16
    np.testing.assert_allclose(found, expected, atol=1e-11)


def test_float32_is_good_to_a_micrometre(f64):
    angles = np.random.default_rng(2).uniform(-1, 2, (50, 20))
    exact = landmarks(default_hand(), jnp.asarray(angles))
    found = landmarks(default_hand(), jnp.asarray(angles, jnp.float32))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, exact, atol=1e-3)


@pytest.mark.parametrize("hand", [default_hand(), random_hand()], ids=["default", "random"])
def test_the_zero_pose_is_the_hand_at_rest(f64, hand):
    np.testing.assert_allclose(landmarks(hand, jnp.zeros(20)), hand.landmarks, atol=1e-12)


def test_wrist_and_finger_mcps_never_move():
    angles = jnp.asarray(np.random.default_rng(3).uniform(-2, 2, (30, 20)), jnp.float32)
    rest, found = default_hand().landmarks, np.asarray(landmarks(default_hand(), angles))
    still = [kinematics.WRIST, *kinematics.MCPS, kinematics.PALM]
    np.testing.assert_allclose(found[:, still], np.broadcast_to(rest[still], (30, 6, 3)), atol=1e-4)
    assert np.abs(found - rest)[:, list(kinematics.MOVING)].max(axis=(0, 2)).min() > 10
    assert (len(kinematics.SCORED), len(kinematics.MOVING)) == (17, 15)


def test_bones_keep_their_length_and_have_the_published_ratios(f64):
    angles = np.random.default_rng(4).uniform(-2, 2, (30, 20))
    found = np.asarray(landmarks(default_hand(200.0), jnp.asarray(angles)))
    published = [
        ratios[-len(chain) + 1 :]
        for chain, (ratios, _, _) in zip(CHAINS, kinematics.GEOMETRY.values(), strict=True)
    ]
    for chain, ratios in zip(CHAINS, published, strict=True):
        bones = np.linalg.norm(np.diff(found[:, list(chain)], axis=1), axis=-1)
        # Below 0.01 rad the clamped formula is off a rotation by up to θ²·1e-5 = 1e-9.
        np.testing.assert_allclose(bones, np.broadcast_to(ratios, bones.shape) * 200, rtol=3e-9)


def test_flexion_goes_into_the_palm_and_a_finger_moves_alone():
    """Signs of the default hand, and which landmarks hang on which angle."""
    rest = default_hand().landmarks
    for j, name in enumerate(joints.TWENTY):
        pose = jnp.zeros(20).at[j].set(0.5)
        moved = np.asarray(landmarks(default_hand(), pose)) - rest
        finger = j // 4
        changed = np.flatnonzero(np.abs(moved).max(axis=1) > 1e-3)
        assert set(changed) <= set(CHAINS[finger])
        assert finger in changed
        if name.endswith("_fe"):
            assert moved[finger, 2] < -1, name
        elif finger:
            assert moved[finger, 0] < -1, name  # towards the thumb
    assert len(joints.TWENTY) == 20


@pytest.mark.parametrize("scale", [0.0, 0.02, 1.0])
def test_gradients_are_numeric_ones(f64, scale):
    """Of the mean distance to another pose, through every angle."""
    hand, rng = random_hand(5), np.random.default_rng(6)
    angles, target = scale * rng.normal(size=20), rng.normal(size=20)

    @jax.jit
    def cost(x):
        return jnp.mean(distances(hand, x, jnp.asarray(target)))

    found = jax.grad(cost)(jnp.asarray(angles))
    step = 1e-6  # central: error of step² from curvature, 1e-16 · 100 mm / step from rounding
    numeric = [
        (cost(jnp.asarray(angles + e)) - cost(jnp.asarray(angles - e))) / (2 * step)
        for e in step * np.eye(20)
    ]
    np.testing.assert_allclose(found, numeric, atol=1e-6)
    assert np.abs(found).max() > 1


def test_gradients_are_finite_at_zero_and_where_the_poses_agree():
    zero = jnp.zeros((2, 3, 20))
    jacobian = jax.jit(jax.jacrev(lambda x: landmarks(default_hand(), x)))(zero[0, 0])
    assert np.isfinite(jacobian).all()
    # A finger turned by its MCP: the tip moves by its distance from the joint.
    reach = np.linalg.norm(default_hand().landmarks[1] - default_hand().landmarks[8])
    # sin(0.01)/0.01 = 1 - 1.7e-5 below the clamp
    assert np.linalg.norm(jacobian[1, :, 5]) == pytest.approx(reach, rel=1e-4)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(distances(default_hand(), x, zero))))(zero)
    np.testing.assert_array_equal(gradient, 0)


def test_distances_are_euclidean_and_fingertips_are_the_first_five():
    rng = np.random.default_rng(7)
    a, b = (jnp.asarray(rng.normal(size=(4, 20)), jnp.float32) for _ in range(2))
    hand = default_hand()
    expected = np.linalg.norm(landmarks(hand, a) - landmarks(hand, b), axis=-1)
    np.testing.assert_allclose(distances(hand, a, b), expected, rtol=1e-5, atol=1e-4)
    tips = kinematics.fingertip_distance(hand, a, b)
    np.testing.assert_allclose(tips, expected[:, :5].mean(1), rtol=1e-5)


def document(hand):
    """The JSON of a hand whose landmarks blend up to three frames, two wrist joints at the end."""
    order = np.argsort(-hand.blend, axis=1, kind="stable")[:, :3]
    return {
        "joint_rotation_axes": np.concatenate([hand.axes, np.eye(3)[:2]]).tolist(),
        "joint_rest_positions": np.concatenate([hand.joints, np.ones((2, 3))]).tolist(),
        "landmark_rest_positions": hand.landmarks.tolist(),
        "landmark_rest_bone_weights": np.take_along_axis(hand.blend, order, axis=1).tolist(),
        "landmark_rest_bone_indices": order.tolist(),
        "hand_scale": 1.0,
        "mesh_vertices": [[0.0, 0.0, 0.0]],
    }


def write(path, values):
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return path


@pytest.mark.parametrize("hand", [default_hand(), random_hand(8)], ids=["default", "random"])
def test_a_hand_comes_back_from_its_file(tmp_path, hand):
    again = kinematics.read_hand_model(write(tmp_path / "hand.json", document(hand)))
    jax.tree.map(np.testing.assert_array_equal, hand, again)


def test_indices_under_weight_zero_and_repeated_ones_do_no_harm(tmp_path):
    values = document(default_hand())
    values["landmark_rest_bone_indices"][0][1:] = [255, -1]
    values["landmark_rest_bone_indices"][1] = [7, 7, 7]
    values["landmark_rest_bone_weights"][1] = [0.5, 0.25, 0.25]
    found = kinematics.read_hand_model(write(tmp_path / "hand.json", values))
    np.testing.assert_array_equal(found.blend, default_hand().blend)


def changed(name, value):
    return document(default_hand()) | {name: value}


WRONG = {
    "text": ("not json", "cannot be read (Expecting value"),
    "list": ("[]", "must hold a JSON object"),
    "missing": ({"hand_scale": 1}, "joint_rotation_axes must be 22 x 3 numbers"),
    "shape": (changed("landmark_rest_positions", [[0, 0, 0]] * 20), "must be 21 x 3 numbers"),
    "ragged": (changed("joint_rest_positions", [[0, 0], [1]]), "must be 22 x 3 numbers"),
    "infinite": (changed("joint_rest_positions", [[1e999] * 3] * 22), "must be 22 x 3 numbers"),
    "scale": (changed("hand_scale", 0.9), "hand_scale=0.9, expected 1"),
    "weights": (changed("landmark_rest_bone_weights", [[0.5, 0, 0]] * 21), "do not add up to 1"),
    "frames": (changed("landmark_rest_bone_indices", [[17, 0, 0]] * 21), "outside 0..16"),
    "axes": (changed("joint_rotation_axes", [[1, 1, 0]] * 22), "not of length 1"),
}


@pytest.mark.parametrize(("values", "text"), WRONG.values(), ids=WRONG.keys())
def test_a_file_that_is_no_hand_is_one_line(tmp_path, values, text):
    path = write(tmp_path / "hand.json", values)
    with pytest.raises(UserError) as error:
        kinematics.read_hand_model(path)
    assert str(error.value).startswith(f"eval.hand_model={path}")
    assert text in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"eval\.hand_model=.*nowhere\.json cannot be read"):
        kinematics.read_hand_model(tmp_path / "nowhere.json")
