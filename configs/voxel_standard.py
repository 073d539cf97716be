"""The VAE of 40,847,092 parameters with attention, on volumes resized to (32, 128, 128).

    python -m tds_jax.train --config=configs/voxel_standard.py --config.data.path=DIR

For a GPU, not trained here, no error known. Predicted on a CPU, where nothing is recomputed: 16.4
GiB on the device.
"""

from ml_collections import ConfigDict

from configs import voxel_light


def get_config() -> ConfigDict:
    """Attention sees all 16,384 cells of the latent; the padded grid has 25 times as many."""
    config = voxel_light.get_config()
    config.model.base = 64
    config.model.multipliers = (1, 2, 4)
    config.model.blocks = 2
    config.model.attention = True
    config.model.span = "stage"
    config.model.tile = 0
    config.data.grid = "resize"
    config.data.shape = (32, 128, 128)
    return config
