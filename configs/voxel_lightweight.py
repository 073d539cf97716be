"""The preset of 24, 48 and 72 channels, 2,717,716 parameters.

    python -m tds_jax.train --config=configs/voxel_lightweight.py --config.data.path=DIR

For a GPU, not trained here, no error known. Predicted on a CPU: 1094 MiB on the device for volumes
of (32, 64, 64), as generated streets are padded.

The original's cannot be built: its norms want 32 groups, which do not divide 48. Here a norm has
the largest number of groups up to 32 that divides its channels: 24, 24, 24.
"""

from ml_collections import ConfigDict

from configs import voxel_light


def get_config() -> ConfigDict:
    """Everything but the widths is voxel_light's."""
    config = voxel_light.get_config()
    config.model.base = 24
    config.model.multipliers = (1, 2, 3)
    return config
