"""The emg2pose benchmark's regression_neuropose, in its published recipe.

    python -m tds_jax.train --config=configs/neuropose.py --config.data.path=DIR

For a GPU, not trained here. Predicted on a CPU: 4.34 GiB on the device; 1.17 GiB with
--config.optim.accumulate=4, but not quite the same result: BatchNorm sees one micro-batch at a
time, so with optim.accumulate > 1 (warned of) it is not what it would be over the whole batch;
everything else is. Published on the real recordings, one model: 13.20 / 17.20 / 17.50 degrees for
unseen users / stages / both (constant pose: 16.86 / 19.18 / 18.87). 6,354,903 parameters.
"""

from ml_collections import ConfigDict

from configs import emg2pose_tracking


def get_config() -> ConfigDict:
    """Convolutions over time x electrodes; other model settings than these are not used by it."""
    config = emg2pose_tracking.get_config()
    config.model.name = "neuropose"
    # Encoder blocks: channels made, then max pooling along time and across electrodes.
    config.model.widths = (32, 128, 256)
    config.model.conv_strides = (10, 8, 4)
    config.model.groups = (2, 2, 4)
    config.model.layers = 5  # residual blocks
    config.model.dropout = 0.05
    config.model.initial_pose = "zeros"
    # Not used, but one entry per block all the same.
    config.model.conv_kernels = (3, 3, 3)
    config.model.tds_kernels = (1, 1, 1)
    config.model.tds_blocks = (0, 0, 0)
    config.optim.clip_norm = 0.0
    config.data.window = 4000
    config.data.stride = 4000
    config.data.eval_window = 10_000
    config.optim.steps = 500 * 8070  # 517,000 windows in 287 h
    config.eval.every = 8070
    config.optim.accumulate = 1
    return config
