"""Every setting of the voxel task, with its unit; other configs/voxel_*.py choose from here.

    python -m tds_jax.train --config=configs/voxel_base.py

Runs by itself, too: the network of configs/voxel_ultra.py for 200 updates at the full size of
generated scenes, (16, 64, 64). Slow on a CPU and not trained here; predicted 398 MiB on the device.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """The smallest VAE (694,788 parameters) on generated streets."""
    config = base.get_config()
    config.task = "voxel"

    config.model = ConfigDict()
    config.model.name = "vae"  # 'vae' | 'vqvae' | 'direct' | 'diffusion' | 'consistency' | own
    # The autoencoder: channels of level i = base * multipliers[i]; three levels make latents of
    # (Z / 2, X / 4, Y / 4).
    config.model.base = 16
    config.model.multipliers = (1, 2, 2)  # one entry per level
    config.model.blocks = 1  # residual blocks per level of the encoder, 0 to 2; the decoder +1
    config.model.attention = False  # 4 heads at the lowest resolution
    config.model.latent_channels = 4  # of a latent voxel
    # What memory.remat redoes as one: 'block' | 'stage' (one resolution) | 'coder' (all of it).
    config.model.span = "block"
    # Most voxels a span holds at once, forward and backward, 0 = all: tiles give what the whole
    # gives, for about one more forward pass per normalisation. 1 << 20 is a good value on a GPU.
    config.model.tile = 0
    # The codebook: 0 codes = a VAE.
    config.model.codes = 0
    config.model.codebook_decay = 0.99  # running means of a code's latents; 0 = by gradient
    # Codes whose running mean of tokens per update, 1 at first, falls below begin anew; 0 = never.
    config.model.restart_below = 0.5
    # The generators (not used by 'vae' and 'vqvae').
    config.model.autoencoder = ""  # workdir of a trained autoencoder of the settings above
    # Cells (Z, X, Y) that become channels, denoised without an autoencoder, on disk 16 bytes each;
    # () = latents of one.
    config.model.fold = ()
    config.model.teacher = ""  # workdir of a trained diffusion, for 'consistency'
    config.model.direct = ""  # workdir of a trained 'direct' that a diffusion sees; '' = none
    config.model.anchored = (
        False  # True: a diffusion learns how its samples differ from that answer
    )
    config.model.direct_width = 16  # channels of the first level of the U-Net of 'direct'
    config.model.direct_multipliers = (1, 2, 4)  # its levels, as unet_multipliers
    config.model.condition_channels = 4  # of the radar's latents
    config.model.condition_base = 8  # channels of the radar's own encoder
    config.model.condition_blocks = 1  # residual blocks per level of that encoder
    config.model.width = 32  # channels of the U-Net's first level
    config.model.unet_multipliers = (1, 2, 3)  # one entry per level
    config.model.unet_heads = 4  # of the linear attention in its middle; 4 as the original
    config.model.sigma_data = 0.5  # standard deviation that latents are brought to
    config.model.sigma_min = 0.002  # lowest noise level of sampling
    config.model.sigma_max = 80.0  # highest noise level of sampling
    config.model.rho = 7.0  # levels are even in sigma^(1/rho)
    config.model.sigma_mean = -1.2  # of the natural log of the levels seen in training
    config.model.sigma_spread = 1.2  # their standard deviation
    # Noises that a generator learns from at each sight of an example; one condition serves all.
    config.model.draws = 1
    config.model.guidance_dropout = 0.0  # share of examples that learn without the radar
    # Samples: 1 = as likely as they are, above = more of what the radar says, for twice the work.
    config.model.guidance = 1.0
    # Of the noise that samples are drawn from: 1 = as it was learned, 0 = none, one sample.
    config.model.temperature = 1.0
    config.model.sampler_steps = 18  # levels; Heun's method evaluates 2 * 18 - 1 times
    config.model.distillation_levels = 18  # of the teacher's path
    config.model.jumps = (1, 2, 4)  # numbers of steps evaluated; the largest is the model's

    config.loss = ConfigDict()
    # 'occupancy': a logit for channel 0, normalised values for the others (the terms below).
    # The original's, on raw values: 'mse' | 'weighted' | 'composite'.
    config.loss.reconstruction = "occupancy"
    config.loss.bce_weight = 1.0  # cross-entropy of occupancy
    config.loss.occupied_weight = 4.0  # of an occupied cell; an empty one weighs 1 (original: 8)
    config.loss.focal_gamma = 0.0  # above 0: cells that are right already weigh less
    config.loss.dice_weight = 1.0  # of the Dice loss of occupancy
    # Of the same beside the squared error of a diffusion of folded cells: samples are sharper.
    config.loss.sample_dice_weight = 0.0
    # Of values in occupied cells. On voxel_ultra's streets, at an earlier state, 0.25 gave an IoU
    # of 0.84 instead of 0.76, and reflectivity 15.8 off instead of 7.1.
    config.loss.feature_weight = 1.0
    config.loss.feature_squared = False  # squared instead of absolute errors
    config.loss.kl_weight = 1e-6  # per latent element
    config.loss.commitment_weight = 0.25  # of a latent to its code
    config.loss.channel_weights = (4.0, 0.2, 0.5, 0.2)  # of 'weighted', as the two below
    config.loss.false_positive_weight = 4.0  # of occupancy where nothing is
    config.loss.mass_weight = 1.0  # of the difference in mean occupancy
    config.loss.perceptual_weight = 0.1  # of 'composite', as the one below
    config.loss.structure_weight = 0.05  # of edges

    config.data = ConfigDict()
    config.data.path = ""  # folder of scenes; '' = generated streets, built once
    # Data of one's own instead of files, 'package.module:Name', see docs/own_parts.md; '' = none.
    config.data.source = ""
    config.data.cache_dir = ""  # generated volumes and latents; '' = the user's cache folder
    config.data.grid = "native"  # 'native' | 'pad' (to multiples) | 'resize' (to shape)
    config.data.shape = (32, 128, 128)  # (Z, X, Y) of 'resize'
    config.data.multiple = (2, 4, 4)  # of 'pad'; the original pads to (32, 32, 32)
    # x0, x1, y0, y1, z0, z1 metres, where the folder has no geometry.json.
    config.data.ranges = (0.0, 32.0, -16.0, 16.0, -2.0, 6.0)
    # Scene names; all empty: scenes in order of name by split_ratio.
    config.data.train_scenes = ()
    config.data.val_scenes = ()  # as train_scenes
    config.data.test_scenes = ()  # as train_scenes
    config.data.split_ratio = (0.7, 0.15, 0.15)  # train, val, test, of the scenes
    config.data.max_bad_files = 10  # unreadable ones left out with a warning before giving up
    config.data.max_statistics_frames = 2000  # frames read for means, scales and priors
    # Of the radar, merged by the poses in a scene's poses.txt; 1 = the frame's own.
    config.data.sweeps = 1
    # Random changes of training pairs: probabilities, each followed by its size. All off, as the
    # original trains its VAE. Generators apply those that leave the target alone: noise, dropout.
    config.data.augment_flip = 0.0  # left and right (original: 0.5)
    config.data.augment_noise = 0.0  # of the radar's values (0.2)
    config.data.augment_intensity_noise = 0.02  # its standard deviation
    config.data.augment_doppler_noise = 0.02  # m/s
    config.data.augment_dropout = 0.0  # of radar voxels (0.1)
    config.data.augment_dropout_rate = 0.05  # share of them
    config.data.augment_intensity = 0.0  # one factor of 1 +- scale for both (0.1)
    config.data.augment_intensity_scale = 0.1  # largest change
    config.data.augment_doppler = 0.0  # one shift for both (0.05)
    config.data.augment_doppler_shift = 0.1  # m/s
    config.data.workers = 0  # reading processes (~50 MiB each); 0 = threads of this one
    config.data.threads = 2  # that read, where there are no workers
    config.data.prefetch = 4  # batches read ahead
    config.data.persistent_workers = True  # False: stopped during evaluation, ~2 s to restart
    config.data.max_open_files = 16  # per reading process
    config.data.chunk_cache_bytes = 4 * 2**20  # per open file of a chunked store
    # Volumes are read once and stay in memory, as many as fit: in every reading process.
    config.data.keep_bytes = 64 * 2**20
    config.data.synthetic_scenes = 48  # streets
    config.data.synthetic_frames = 16  # per scene, half a second apart
    config.data.synthetic_shape = (16, 64, 64)  # (Z, X, Y) voxels
    config.data.synthetic_seed = 0  # the same gives the same bytes

    config.optim.batch_size = 8
    config.optim.accumulate = 8
    config.optim.steps = 200
    config.optim.learning_rate = 2e-3
    config.optim.warmup_steps = 10
    config.eval.every = 50
    config.eval.batch_size = 2
    config.eval.dilation = 1  # voxels by which radar_dilated grows
    config.eval.samples = 1  # drawn per frame by a generator, and averaged
    config.eval.renders = 2  # frames drawn into plots/
    config.checkpoint.every = 0
    return config
