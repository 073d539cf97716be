"""What a LiDAR would see, given the radar: diffusion of the latents of configs/voxel_ultra.py.

    python -m tds_jax.train --config=configs/voxel_diffusion.py [--config.model.autoencoder=DIR] \
        [--config.model.direct=DIR]
"""

from ml_collections import ConfigDict

from configs import voxel_ultra


def get_config() -> ConfigDict:
    """Train voxel_ultra.py and voxel_direct.py first; their workdirs are runs/… unless told
    otherwise. It sees the one answer beside the radar, and learns what that leaves open."""
    config = voxel_ultra.get_config()
    config.model.name = "diffusion"
    config.model.autoencoder = "runs/voxel_ultra"
    config.model.direct = "runs/voxel_direct"
    config.model.condition_channels = 8
    config.model.condition_base = 16
    config.model.unet_multipliers = (1, 2)
    config.model.guidance_dropout = 0.1
    config.model.sampler_steps = 10
    config.optim.accumulate = 1
    config.optim.steps = 500
    config.optim.ema_decay = 0.99
    config.eval.every = 250
    config.eval.samples = 4
    config.data.augment_noise = 0.2
    config.data.augment_dropout = 0.2
    return config
