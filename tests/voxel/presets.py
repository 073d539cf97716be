"""Sizes of the published autoencoders, with 4 channels in, out and latent.

The reference's "lightweight" cannot be built there; with `blocks.groups_of` it can.
"""

PRESETS = {
    "ultra": {"base": 16, "multipliers": (1, 2, 2), "blocks": 1, "attention": False},
    "lightweight": {"base": 24, "multipliers": (1, 2, 3), "blocks": 1, "attention": False},
    "light_32": {"base": 32, "multipliers": (1, 2, 4), "blocks": 1, "attention": False},
    "standard": {"base": 64, "multipliers": (1, 2, 4), "blocks": 2, "attention": True},
}
