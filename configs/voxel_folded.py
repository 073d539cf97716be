"""What a LiDAR would see, given the radar: diffusion of the cells themselves, folded, no VAE.

    python -m tds_jax.train --config=configs/voxel_folded.py [--config.model.direct=DIR]

2 CPU cores, about 19 minutes of CPU time with the evaluation (beside much other work, compiled
twice); predicted 375 MiB on the device, measured 1.50 GiB on the host. It needs the run of
configs/voxel_direct.py alone, around whose probability samples lie. Generated streets, one seed,
95 % intervals over 7 unseen streets, around a `direct` of 100 updates instead of 300, which has IoU
0.251 and Chamfer 2.44 m: mean of 4 samples IoU 0.318 (0.300 to 0.342), Chamfer 1.79 m (1.66 to
1.92), pattern JSD 0.215; one sample 0.204, 2.54 m, 0.328. linear is better: 0.413, 1.63 m, 0.122.
Samples are too full yet; see tds_jax/voxel/README.md on model.temperature.
"""

from ml_collections import ConfigDict

from configs import voxel_diffusion


def get_config() -> ConfigDict:
    """Train voxel_direct.py first; its workdir is runs/voxel_direct unless told otherwise."""
    config = voxel_diffusion.get_config()
    config.model.autoencoder = ""
    config.model.fold = (2, 2, 2)
    config.model.condition_channels = 32
    config.model.condition_base = 32
    config.model.condition_blocks = 0
    config.model.draws = 2
    # A full cell and an empty one are 2.3 apart: below 0.2 noise hides nothing, above 8 everything.
    config.model.sigma_min = 0.1
    config.model.sigma_max = 8.0
    config.model.sigma_mean = 0.0
    config.model.sigma_spread = 1.0
    config.model.sampler_steps = 6
    config.model.distillation_levels = 12
    config.optim.steps = 150
    config.optim.ema_decay = 0.98
    config.eval.every = 50
    return config
