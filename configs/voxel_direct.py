"""What a LiDAR would see, given the radar, in one answer: a U-Net without noise.

    python -m tds_jax.train --config=configs/voxel_direct.py [--config.data.path=DIR]

2 CPU cores, about 7 minutes of CPU time; predicted 353 MiB on the device, measured 1.34 GiB on the
host (of four sweeps). Generated streets, one seed, 95 % intervals over 7 unseen streets: IoU 0.449
(0.426 to 0.475), Chamfer 1.28 m (1.18 to 1.38). The linear regression on blurred radar: 0.415 and
1.65 m, street by street 0.029 to 0.041 and 0.32 to 0.42 m behind; the radar itself 0.181 and 2.46
m. With --config.data.sweeps=4: IoU 0.522 (0.492 to 0.554), Chamfer 0.99 m (0.85 to 1.13); the
regression 0.456 and 1.28 m. It is short of what it can: with --config.optim.steps=700, 15 minutes,
0.563 (0.536 to 0.593) and 0.85 m (0.74 to 0.96).
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
