"""Five finger flexions from an 8-channel, 250 Hz band: a real, small data set.

    python -m tds_jax.train --config=configs/emg_hands.py --config.data.path=DIR \\
        --config.data.joint_names="('thumb', 'index', 'middle', 'ring', 'pinky')"

2 CPU cores, 1.0 minutes of CPU time; predicted 73 MiB on the device, measured 781 MiB on the host.
8 training, 2 validation and 1 test run of one person, three seeds, each four times: MAE 0.224 ±
0.019 rad, R2 0.36 ± 0.05 (without the stretches of 2 s 0.237 ± 0.016, of the waveform 0.360).
`linear_median` has 0.240 rad, told apart in one run of twelve; R2 of `linear` is 0.41, told apart
in two. What it owes all that to is the input, see experiments/README.md. Prompts stand in for
angles, so reaction time is part of every error. A pose needs the 2.6 s before it.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """A TDS encoder of powers and correlations at 50 Hz, and a small LSTM decoder."""
    config = default.get_config()
    config.model.notch_hz = (60.0,)  # hum holds 17 % of the power of one of the training runs
    config.model.powers = "covariance"
    config.model.power_samples = (25, 125, 500)  # 0.1 s, 0.5 s and 2 s
    config.model.power_stride = 5
    config.model.power_normalize = False  # with it val is 0.175 of two seeds, without 0.167
    config.model.conv_kernels = (5,)
    config.model.conv_strides = (1,)
    config.model.groups = (8,)
    config.model.widths = (8,)
    config.model.tds_kernels = (9,)
    config.model.tds_blocks = (2,)
    config.model.dropout = 0.3
    config.model.hidden = 64
    config.model.layers = 1
    config.model.start_at_mean = False  # as measured
    config.data.window = 1500  # 6 s
    config.data.stride = 250
    config.data.eval_window = 4000
    config.data.noise = 0.1
    config.data.gain_spread = 0.2
    config.loss.mse_weight = 0.0  # fingers are bent or not: a mean of both is never right
    config.loss.mae_weight = 1.0
    config.optim.steps = 300
    config.optim.batch_size = 32
    config.optim.learning_rate = 3e-3
    config.optim.warmup_steps = 10
    config.eval.every = 50
    config.eval.batch_size = 16
    config.eval.patience = 0
    return config
