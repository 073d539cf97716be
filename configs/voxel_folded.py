"""What a LiDAR would see, given the radar: diffusion of the cells themselves, folded, no VAE.

    python -m tds_jax.train --config=configs/voxel_folded.py [--config.model.direct=DIR]

2 CPU cores, about 9 minutes of CPU time with the evaluation; predicted 293 MiB on the device,
measured 1.33 GiB on the host. It needs the run of configs/voxel_direct.py alone, around whose
probability samples lie. Generated streets, one seed, 95 % intervals over 7 unseen streets: IoU
0.447 (0.419 to 0.481) and Chamfer 1.28 m, `linear` 0.415 (lower by 0.021 to 0.046) and 1.65 m (0.31
to 0.43 more); sharper than the one answer it lies around, pattern JSD 0.0804 and 0.0878 (0.0052 to
0.0094 more), from which it is not told apart in IoU (0.449) and Chamfer distance (1.28 m). With
--config.data.sweeps=4, also of the one answer, three seeds: IoU 0.509 ± 0.013, the one answer 0.517
± 0.012, `linear` 0.456; pattern JSD 0.0688 ± 0.0046, the one answer 0.0706 ± 0.0056, told apart in
one seed; after 400 updates, one seed, 0.0602 and 0.0694. A one answer that has learned for longer
is ahead of these, see tds_jax/voxel/README.md. All this is of temperature 0, chosen on validation:
one answer, without the noise that makes samples differ. For several of them: model.temperature=0.3,
eval.samples=4.
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
