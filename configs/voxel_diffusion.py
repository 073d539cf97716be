"""What a LiDAR would see, given the radar: diffusion of the latents of configs/voxel_ultra.py.

    python -m tds_jax.train --config=configs/voxel_diffusion.py \
        [--config.model.autoencoder=DIR] [--config.model.direct=DIR]

For a CPU, in this form not trained here to its end, no error known; predicted 233 MiB on the
device.
It sees the answer of configs/voxel_direct.py beside the radar. An earlier form, which saw the radar
alone, had on generated streets of an earlier kind an IoU of 0.386 ± 0.010 and a Chamfer distance of
1.19 ± 0.03 m.
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
    config.model.draws = 4
    config.model.guidance_dropout = 0.1
    config.model.sampler_steps = 10
    config.optim.accumulate = 1
    config.optim.steps = 160
    config.optim.ema_decay = 0.99
    config.eval.every = 80
    config.eval.batch_size = 8
    config.eval.samples = 4
    config.data.augment_noise = 0.2
    config.data.augment_dropout = 0.2
    return config
