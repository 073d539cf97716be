"""Five finger flexions from an 8-channel, 250 Hz band."""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """A TDS encoder that halves 250 Hz to 50 Hz, and a small LSTM decoder."""
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
    config.optim.steps = 60
    config.optim.batch_size = 32
    config.optim.learning_rate = 3e-3
    config.optim.warmup_steps = 10
    config.eval.every = 20
    return config
