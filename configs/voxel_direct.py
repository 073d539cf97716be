"""What a LiDAR would see, given the radar, in one answer: a U-Net without noise.

python -m tds_jax.train --config=configs/voxel_direct.py [--config.data.path=DIR]
"""

from ml_collections import ConfigDict

from configs import voxel_ultra


def get_config() -> ConfigDict:
    """The bar for everything that samples: it must know more than the best single answer."""
    config = voxel_ultra.get_config()
    config.model.name = "direct"
    config.optim.accumulate = 1
    config.optim.steps = 300
    config.optim.ema_decay = 0.99
    config.eval.every = 100
    config.data.augment_flip = 0.5
    config.data.augment_noise = 0.2
    config.data.augment_dropout = 0.2
    return config
