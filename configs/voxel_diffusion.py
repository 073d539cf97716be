"""What a LiDAR would see, given the radar: diffusion of the latents of configs/voxel_ultra.py."""

from ml_collections import ConfigDict

from configs import voxel_ultra


def get_config() -> ConfigDict:
    """Train voxel_ultra.py first; its workdir is runs/voxel_ultra unless told otherwise."""
    config = voxel_ultra.get_config()
    config.model.name = "diffusion"
    config.model.autoencoder = "runs/voxel_ultra"
    config.model.unet_multipliers = (1, 2)
    config.optim.accumulate = 1
    config.optim.ema_decay = 0.99
    config.data.augment_noise = 0.2
    config.data.augment_dropout = 0.2
    return config
