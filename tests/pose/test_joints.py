"""Joint names belong together with their fingers."""

import pytest

from tds_jax.errors import UserError
from tds_jax.pose.joints import FINGERS, TWENTY, fingers, joint_names, segments


@pytest.mark.parametrize("count", [1, 3, 5, 20, 21])
def test_every_angle_has_a_name_of_its_own(count):
    names = joint_names(count)
    assert len(names) == len(set(names)) == count


@pytest.mark.parametrize("names", [FINGERS, TWENTY])
def test_fingers_share_out_all_angles_by_name(names):
    parts = fingers(names)
    assert tuple(parts) == FINGERS
    assert sorted(j for part in parts.values() for j in part) == list(range(len(names)))
    for finger, part in parts.items():
        assert all(names[j].startswith(finger) for j in part)


@pytest.mark.parametrize("count", [3, 5])
def test_angles_of_something_else_have_numbers_and_no_fingers(count):
    assert joint_names(count) == tuple(f"joint_{j}" for j in range(count))
    assert fingers(joint_names(count)) == {}


def test_names_that_are_given_are_the_angles_names():
    given = ("wrist_flexion", "index_mcp", "index_pip")
    assert joint_names(3, given) == given
    assert fingers(given) == {"index": [1, 2]}
    with pytest.raises(UserError, match="joint_names names 3 joint angles, the recordings have 5"):
        joint_names(5, given)


def test_segments_share_out_the_twenty_angles_as_published():
    parts = segments(TWENTY)
    assert {name: len(part) for name, part in parts.items()} == {
        "proximal": 10,
        "mid": 5,
        "distal": 5,
    }
    assert sorted(j for part in parts.values() for j in part) == list(range(20))
    endings = {"proximal": ("cmc_fe", "cmc_aa", "mcp_aa", "mcp_fe"), "mid": ("mcp_fe", "pip_fe")}
    for segment, part in parts.items():
        names = [TWENTY[j] for j in part]
        assert all(name.endswith(endings.get(segment, ("ip_fe", "dip_fe"))) for name in names)
    assert TWENTY[parts["mid"][0]] == "thumb_mcp_fe"
    assert segments(FINGERS) == {}
