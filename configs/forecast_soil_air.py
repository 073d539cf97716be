"""Soil moisture and dewpoint, ten days of both by one network, on generated fields.

    python -m tds_jax.train --config=configs/forecast_soil_air.py

2 CPU cores with much other work on them, 8.1 minutes of CPU time, two fifths for the evaluation,
whose baselines read the hourly files six times for each target; predicted 30 MiB on the device,
measured 675 MiB on the host. Record, test split, network and steps are those of
forecast_soil_weather. In one seed RMSE over leads 1-10 and a day ahead: soil moisture 0.0714 and
0.0285 m3/m3, by a run of it alone 0.0721 and 0.0281, `linear` 0.0733 and 0.0355, `linear_inputs`
0.0720 and 0.0291; dewpoint 3.640 and 2.606 K, by a run of it alone 3.641 and 2.630, `linear` 3.604
and 2.648. Of the dewpoint little can be known after three days: over all leads `linear` is ahead of
both runs. Nothing was tuned for two targets.
"""

from ml_collections import ConfigDict

from configs import forecast_soil_weather


def get_config() -> ConfigDict:
    """Each target on its own linear map of the last two days; the network is shared."""
    config = forecast_soil_weather.get_config()
    config.data.more_targets = ("d2m",)
    config.eval.metric = "nrmse"
    return config
