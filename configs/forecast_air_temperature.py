"""Ten days of daily air temperature over North America, from ten: a small record, real weather.

    python -m tds_jax.train --config=configs/forecast_air_temperature.py \\
        --config.data.path=air_temperature.nc

2 CPU cores, 2.4 minutes of CPU time; predicted 77 MiB on the device, measured 565 MiB on the host.
The record is NCEP's reanalysis of 2013-2014 on 25 x 53 cells, as xarray's tutorial has it. Test:
the last 20 % of its days, 137 forecasts, every cell alike. RMSE in K over leads 1-10 3.408 ± 0.001,
a day ahead 2.179 ± 0.001; damped persistence 3.471 and 2.405, one linear map of the same 5 x 5
cells and 2 days 3.428 and 2.171, one for each cell 3.448 and 2.074, climatology 3.717, persistence
4.414.

Settings were chosen with the last 15 % of the other days as val (split_ratio 0.65, 0.15, 0.2;
eval.every 100): 2.428 K there, damped persistence 2.501. The model is then trained on all days
before the test, for as many steps; nothing is selected on val or test, there is no val.
"""

from ml_collections import ConfigDict

from configs import forecast_soil_moisture


def get_config() -> ConfigDict:
    """The smallest network, beside a linear map of the last two days around each cell."""
    config = forecast_soil_moisture.get_config()
    config.model.extra_inputs = ()
    config.data.variables = ("air",)
    config.data.target = "air"
    config.data.accumulated = ()
    config.data.input_days = 10
    config.data.split_ratio = (0.8, 0.0, 0.2)
    config.data.split_gap = 0  # inputs may reach back into train days, targets not
    config.optim.batch_size = 16
    config.optim.steps = 300
    config.eval.every = 0  # there is no val
    config.eval.batch_size = 32
    return config
