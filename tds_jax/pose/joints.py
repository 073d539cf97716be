"""Names of joint angles: those a run is given, or by how many there are."""

from collections.abc import Sequence

from tds_jax.errors import UserError, some

FINGERS = ("thumb", "index", "middle", "ring", "pinky")
# The order of emg2pose files.
THUMB = ("thumb_cmc_fe", "thumb_cmc_aa", "thumb_mcp_fe", "thumb_ip_fe")
OTHERS = ("mcp_aa", "mcp_fe", "pip_fe", "dip_fe")
TWENTY = THUMB + tuple(f"{finger}_{joint}" for finger in FINGERS[1:] for joint in OTHERS)
# Places of a finger's four angles.
SEGMENTS = {"proximal": (0, 1), "mid": (2,), "distal": (3,)}


def joint_names(count: int, given: Sequence[str] = ()) -> tuple[str, ...]:
    """Those given (`data.joint_names`); else of 20 emg2pose's angles, of others joint_0, joint_1 …

    UserError where others are given than there are angles.
    """
    if given and len(given) != count:
        raise UserError(
            f"data.joint_names names {len(given)} joint angles, the recordings have {count}: "
            f"{some(given)}; name each once, in the order of the files, or none"
        )
    numbered = tuple(f"joint_{j}" for j in range(count))
    return tuple(given) or (TWENTY if count == len(TWENTY) else numbered)


def fingers(names: Sequence[str]) -> dict[str, list[int]]:
    """Joint numbers of each finger that joints are called after: thumb, thumb_cmc_fe …"""
    found = {
        finger: [j for j, name in enumerate(names) if name.split("_")[0] == finger]
        for finger in FINGERS
    }
    return {finger: part for finger, part in found.items() if part}


def segments(names: Sequence[str]) -> dict[str, list[int]]:
    """Joint numbers of the proximal, mid and distal joints of all fingers, of emg2pose's angles;
    empty of others."""
    if tuple(names) != TWENTY:
        return {}
    return {
        name: [4 * f + place for f in range(len(FINGERS)) for place in places]
        for name, places in SEGMENTS.items()
    }
