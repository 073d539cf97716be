"""Five finger flexions from an 8-channel, 250 Hz band: a real, small data set.

    python -m tds_jax.train --config=configs/emg_hands.py --config.data.path=DIR \\
        --config.data.joint_names="('thumb', 'index', 'middle', 'ring', 'pinky')"

2 CPU cores, 1.4 minutes of CPU time; predicted 81 MiB on the device, measured 661 MiB on the host.
8 training, 2 validation and 1 test run of one person: MAE 0.360 ± 0.011 rad (constant median 0.526,
ridge on log-RMS 0.450). Prompts stand in for angles, so reaction time is part of every error.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """A TDS encoder that goes from 250 Hz to 50 Hz at once, and a small LSTM decoder."""
    config = default.get_config()
    config.model.conv_kernels = (5,)
    config.model.conv_strides = (5,)
    config.model.groups = (8,)
    config.model.widths = (8,)
    config.model.tds_kernels = (9,)
    config.model.tds_blocks = (2,)
    config.model.hidden = 64
    config.model.layers = 1
    config.data.window = 1000  # 4 s
    config.data.stride = 250
    config.data.eval_window = 4000
    config.optim.steps = 400
    config.optim.batch_size = 32
    config.optim.learning_rate = 3e-3
    config.optim.warmup_steps = 10
    config.eval.every = 25
    config.eval.patience = 0
    return config
