"""What a LiDAR would see, given the radar: diffusion of the latents of configs/voxel_ultra.py.

    python -m tds_jax.train --config=configs/voxel_diffusion.py \
        [--config.model.autoencoder=DIR] [--config.model.direct=DIR]

2 CPU cores, about 6.4 minutes of CPU time with the evaluation; predicted 241 MiB on the device,
measured 1.76 GiB on the host. It learns how its samples differ from the answer of
configs/voxel_direct.py, which it sees beside the radar, and they lose to it: generated streets, one
seed, 95 % intervals over 7 unseen streets: mean of 4 samples IoU 0.349 (0.327 to 0.371), Chamfer
1.61 m (1.51 to 1.71), pattern JSD 0.125; one sample 0.280, 1.92 m, 0.117. After 300 updates (an
older chain, which had 0.357 after 100) 0.338, 1.62 m, 0.128; with model.anchored=False, after 160,
0.286, 1.77 m, 0.146. The one answer: 0.450, 1.26 m, 0.091; linear 0.415, 1.65 m.
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
    config.model.anchored = True
    config.model.condition_channels = 8
    config.model.condition_base = 16
    config.model.unet_multipliers = (1, 2)
    config.model.draws = 4
    config.model.guidance_dropout = 0.1
    config.model.sampler_steps = 10
    config.optim.accumulate = 1
    config.optim.steps = 100
    config.optim.ema_decay = 0.99
    config.eval.every = 100
    config.eval.batch_size = 8
    config.eval.samples = 4
    config.data.augment_noise = 0.2
    config.data.augment_dropout = 0.2
    return config
