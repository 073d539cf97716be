"""Names of joint angles, by how many there are."""

FINGERS = ("thumb", "index", "middle", "ring", "pinky")
# The order of emg2pose files.
THUMB = ("thumb_cmc_fe", "thumb_cmc_aa", "thumb_mcp_fe", "thumb_ip_fe")
OTHERS = ("mcp_aa", "mcp_fe", "pip_fe", "dip_fe")
TWENTY = THUMB + tuple(f"{finger}_{joint}" for finger in FINGERS[1:] for joint in OTHERS)
# Places of a finger's four angles.
SEGMENTS = {"proximal": (0, 1), "mid": (2,), "distal": (3,)}


def joint_names(count: int) -> tuple[str, ...]:
    """20: emg2pose's angles. 5: one per finger. Otherwise joint_0, joint_1 …"""
    known = {20: TWENTY, 5: FINGERS}
    return known.get(count, tuple(f"joint_{j}" for j in range(count)))


def fingers(count: int) -> dict[str, list[int]]:
    """Joint numbers of each finger; empty when the angles are not a hand's 5 or 20."""
    per_finger = {20: 4, 5: 1}.get(count, 0)
    return {
        name: list(range(f * per_finger, (f + 1) * per_finger))
        for f, name in enumerate(FINGERS)
        if per_finger
    }


def segments(count: int) -> dict[str, list[int]]:
    """Joint numbers of the proximal, mid and distal joints of all fingers; empty unless 20."""
    if count != len(TWENTY):
        return {}
    return {
        name: [4 * f + place for f in range(len(FINGERS)) for place in places]
        for name, places in SEGMENTS.items()
    }
