"""`emg_hands` with a conformer encoder: attention over half a second in the place of TDS blocks.

    python -m tds_jax.train --config=configs/emg_hands_conformer.py --config.data.path=DIR \\
        --config.data.joint_names="('thumb', 'index', 'middle', 'ring', 'pinky')"

2 CPU cores, 2.1 minutes of CPU time; predicted 161 MiB on the device, measured 1.13 GiB on the
host. The runs of `emg_hands`: MAE 0.250 rad, one seed (TDS of the same seed on the same stretches
0.222; `linear_median` 0.239). On 0.2 hours of one person it is no better than TDS, and takes twice
a CPU's time. A pose needs the 2.1 s before it.
"""

from ml_collections import ConfigDict

from configs import emg_hands


def get_config() -> ConfigDict:
    """Two blocks of four heads of 16 channels, and the decoder of `emg_hands`."""
    config = emg_hands.get_config()
    config.model.power_samples = (25, 125)  # 0.1 s and 0.5 s, for which it was measured
    config.data.window = 1000  # 4 s
    config.model.encoder = "conformer"
    config.model.attention_frames = 25  # 0.5 s, of each block
    config.model.expansion = 2
    config.model.groups = (4,)
    config.model.widths = (16,)
    config.model.dropout = 0.2
    config.optim.learning_rate = 2e-3
    return config
