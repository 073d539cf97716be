"""The VAE of 7,652,628 parameters.

    python -m tds_jax.train --config=configs/voxel_light.py --config.data.path=DIR

For a GPU, not trained here, no error known. Predicted for an H100: 6.02 GiB on the device for
volumes of (96, 608, 224), temporaries alone (python -m experiments.voxel_memory --rows=light_32).
"""

from ml_collections import ConfigDict

from configs import voxel_base


def get_config() -> ConfigDict:
    """Volumes padded to multiples of 32, as NTU4DRadLM's (600, 200, 80) to (96, 608, 224)."""
    config = voxel_base.get_config()
    config.model.base = 32
    config.model.multipliers = (1, 2, 4)
    config.model.tile = 1 << 20
    config.memory.remat = "full"
    config.memory.dtype = "bfloat16"
    config.data.grid = "pad"
    config.data.multiple = (32, 32, 32)
    config.data.ranges = (0.0, 120.0, -20.0, 20.0, -6.0, 10.0)
    config.eval.batch_size = 1
    return config
