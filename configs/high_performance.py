"""The largest pose preset: three TDS stages, a three-layer LSTM, batches of 128.

    python -m tds_jax.train --config=configs/high_performance.py [--config.data.path=DIR]

For a GPU. On 2 CPU cores, about 30 minutes of CPU time, measured 2.40 GiB on the host (read without
processes, data.workers=0); predicted 1.65 GiB on the device. Freedoms of eight users, as of
configs/powers.py, three seeds: R2 0.538 ± 0.032, MAE 0.177 ± 0.004 rad; default.py has 0.556,
`linear` 0.650. Of generated recordings of 13 poses, once, an earlier state: R2 0.860 on
unseen sessions, 16 minutes, 3.7 GiB.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """1.5 million parameters at 16 channels and 20 joints; longer windows, read by processes."""
    config = default.get_config()
    config.model.conv_kernels = (7, 5, 3)
    config.model.conv_strides = (2, 2, 2)
    config.model.groups = (8, 8, 8)
    config.model.widths = (8, 8, 8)
    config.model.tds_kernels = (21, 11, 7)
    config.model.tds_blocks = (2, 2, 2)
    config.model.hidden = 256
    config.model.layers = 3
    config.optim.batch_size = 128
    config.optim.weight_decay = 0.02
    config.optim.learning_rate = 2e-3
    config.data.workers = 2
    config.data.prefetch = 4
    config.data.chunk_cache_bytes = 16 * 2**20
    return config
