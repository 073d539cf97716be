"""The published soil moisture networks as they are: for their weights, and to compare with.

    python -m tds_jax.import_torch --config=configs/forecast_published.py --checkpoint=FILE.pth \\
        --workdir=runs/published [--config.data.path=DIR]
    python -m tds_jax.evaluate --workdir=runs/published

For any device, CPU or GPU; not trained here. Predicted on a CPU: 9 MiB on the device for the
generated grid of 16 x 24, more for more cells (tds_jax/forecast/README.md). No error is known.

Raw values in, one map for all ten days out; the 3-D networks read neighbouring cells of one time as
if they were the days of one cell, so their weights belong to one size of the grid. To train one on,
set its model.dropout: 0.1 cnn3d_lstm, 0.15 its lite, 0.2 micro (convlstm has none).
"""

from ml_collections import ConfigDict

from configs import forecast_soil_moisture


def get_config() -> ConfigDict:
    """name 'convlstm' has 11,601 parameters; 'cnn3d_lstm' 114,833, its lite 8,777, micro 2,617."""
    config = forecast_soil_moisture.get_config()
    config.model.name = "convlstm"
    config.model.layout = "reference"
    config.model.head = "repeat"
    config.model.norm = "batch"
    config.model.normalize = "none"
    config.model.prior = "none"
    config.model.local_days = 0
    config.model.extra_inputs = ()
    config.optim.batch_size = 2
    config.optim.optimizer = "adam"
    config.optim.learning_rate = 1e-3
    config.optim.schedule = "constant"
    config.optim.weight_decay = 0.0
    config.optim.clip_norm = 0.0
    return config
