"""Ten days of air temperature over North America."""

from ml_collections import ConfigDict

from configs import forecast_soil_moisture


def get_config() -> ConfigDict:
    """The smallest network, beside a linear map of the last two days around each cell."""
    config = forecast_soil_moisture.get_config()
    config.model.name = "cnn3d_lstm_micro"
    config.model.extra_inputs = ()
    config.model.local_kernel = 5
    config.model.local_days = 2
    config.data.variables = ("air",)
    config.data.target = "air"
    config.data.accumulated = ()
    config.data.input_days = 10
    config.data.split_ratio = (0.8, 0.0, 0.2)
    config.data.split_gap = 0
    config.optim.batch_size = 16
    config.optim.steps = 300
    config.eval.every = 0
    config.eval.batch_size = 32
    return config
