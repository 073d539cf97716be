"""What a LiDAR would see, given the radar: diffusion of the cells themselves, folded, no VAE.

    python -m tds_jax.train --config=configs/voxel_folded.py [--config.model.direct=DIR]

2 CPU cores, about 12 minutes of CPU time with the evaluation (beside other work); predicted 292
MiB on the device, measured 1.50 GiB on the host. It needs the run of configs/voxel_direct.py alone,
around whose probability samples lie. Generated streets, one seed, 95 % intervals over 7 unseen
streets: IoU 0.436 and Chamfer 1.26 m, `linear` 0.415 (lower by 0.007 to 0.037) and 1.65 m (0.31 to
0.46 more); sharper than the one answer it lies around, pattern JSD 0.0880 and 0.0909 (0.0014 to
0.0042 more), which is ahead in IoU, 0.450 (by 0.003 to 0.022). That is of temperature 0, chosen on
validation: one answer, without the noise that makes samples differ. For several of them:
model.temperature=0.3, eval.samples=4. The same command later, sums in another order, four times
with the same digits: IoU 0.428 and 1.28 m, pattern JSD 0.0892, in IoU not told apart from `linear`,
in sharpness not from the one answer; on another machine 0.432, told apart, and less sharp.
With --config.data.sweeps=4, also of the one answer: IoU 0.505 (0.477 to 0.537) and Chamfer 0.98 m,
`linear` 0.456 (lower by 0.038 to 0.060) and 1.28 m (0.25 to 0.36 more), the one answer 0.522 and
0.99 m, and sharper, pattern JSD 0.0694 and 0.0765.
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
    config.model.temperature = 0.0  # of 0, 0.3, 0.5, 0.7 the sharpest on validation
    config.model.distillation_levels = 12
    config.loss.sample_dice_weight = 0.3  # of 0, 0.3, 1, 3 the best on validation
    config.optim.steps = 150
    config.optim.ema_decay = 0.98
    config.eval.every = 50
    config.eval.samples = 1  # of temperature 0 all are one
    return config
