"""The diffusion of configs/voxel_diffusion.py distilled: samples in 1, 2 or 4 steps, not 35."""

from ml_collections import ConfigDict

from configs import voxel_diffusion


def get_config() -> ConfigDict:
    """Train voxel_diffusion.py first; its workdir is runs/voxel_diffusion unless told otherwise."""
    config = voxel_diffusion.get_config()
    config.model.name = "consistency"
    config.model.autoencoder = ""
    config.model.teacher = "runs/voxel_diffusion"
    config.optim.learning_rate = 2e-4
    config.optim.weight_decay = 0.0
    return config
