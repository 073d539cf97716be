"""Joint names belong together with their fingers."""

import pytest

from tds_jax.pose.joints import FINGERS, fingers, joint_names, segments


@pytest.mark.parametrize("count", [1, 3, 5, 20, 21])
def test_every_angle_has_a_name_of_its_own(count):
    names = joint_names(count)
    assert len(names) == len(set(names)) == count


@pytest.mark.parametrize("count", [5, 20])
def test_fingers_share_out_all_angles_by_name(count):
    parts = fingers(count)
    assert tuple(parts) == FINGERS
    assert sorted(j for part in parts.values() for j in part) == list(range(count))
    names = joint_names(count)
    for finger, part in parts.items():
        assert all(names[j].startswith(finger) for j in part)


def test_angles_of_something_else_have_numbers_and_no_fingers():
    assert joint_names(3) == ("joint_0", "joint_1", "joint_2")
    assert fingers(3) == {}


def test_segments_share_out_the_twenty_angles_as_published():
    parts = segments(20)
    assert {name: len(part) for name, part in parts.items()} == {
        "proximal": 10,
        "mid": 5,
        "distal": 5,
    }
    assert sorted(j for part in parts.values() for j in part) == list(range(20))
    endings = {"proximal": ("cmc_fe", "cmc_aa", "mcp_aa", "mcp_fe"), "mid": ("mcp_fe", "pip_fe")}
    for segment, part in parts.items():
        names = [joint_names(20)[j] for j in part]
        assert all(name.endswith(endings.get(segment, ("ip_fe", "dip_fe"))) for name in names)
    assert joint_names(20)[parts["mid"][0]] == "thumb_mcp_fe"
    assert segments(5) == {}
