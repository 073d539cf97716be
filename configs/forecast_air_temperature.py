"""Ten days of air temperature over North America."""

from ml_collections import ConfigDict

from configs import forecast_soil_moisture


def get_config() -> ConfigDict:
    """DRAFT."""
    config = forecast_soil_moisture.get_config()
    config.data.variables = ("air",)
    config.data.target = "air"
    config.data.accumulated = ()
    config.data.split_ratio = (0.8, 0.0, 0.2)
    config.data.split_gap = 0
    config.model.extra_inputs = ()
    config.model.local_days = 2
    config.optim.batch_size = 8
    config.optim.steps = 800
    config.eval.every = 0
    return config
