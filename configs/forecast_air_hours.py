"""Two days of air temperature in steps of six hours: a record that is four times daily, as it is.

    python -m tds_jax.train --config=configs/forecast_air_hours.py \\
        --config.data.path=air_temperature.nc

2 CPU cores, 3.2 minutes of CPU time, evaluation included; predicted 47 MiB on the device,
measured 833 MiB on the host. NCEP's reanalysis of 2013-2014, 25 x 53 cells; test: the last 20 % of
its steps, 577 forecasts, one every six hours, every cell alike. RMSE in K over leads of 6 to 48
hours 2.653 in one seed, six hours ahead 1.336, a day 2.560, two days 3.317; `linear`, one map of
5 x 5 cells and two days of steps, 2.739, 1.347, 2.646, 3.424 (over all leads 0.061 to 0.109 above,
a paired 95 % interval); a map for each cell wins six hours ahead, 1.320, and loses over all, 2.773;
damped persistence 2.932, climatology with a cycle of the day 3.927, persistence 3.670.

The prior is a ridge regression on 7 x 7 cells of two days, whose weights change with place; how
much of this is its and how much the network's was not measured. Settings were taken once: none was
tried against another, on test days or on others. Minutes are those of training and of an evaluation
after it added up, the former read off a process on a busy machine.
"""

from ml_collections import ConfigDict

from configs import forecast_air_temperature


def get_config() -> ConfigDict:
    """A cycle of the day in the climatology, a linear prior of two days of maps, and a U-Net."""
    config = forecast_air_temperature.get_config()
    config.model.name = "unet"
    config.model.hidden = 8
    config.model.dropout = 0.0
    config.model.extra_inputs = ("day_of_year", "time_of_day", "coordinates")
    config.model.prior = "linear"
    config.model.local_kernel = 7
    config.model.local_place = True
    config.model.local_folds = 5
    config.data.step_hours = 6
    config.data.input_days = 2.0
    config.data.lead_days = 2.0
    config.optim.learning_rate = 1e-3
    config.optim.ema_decay = 0.95
    config.optim.steps = 200
    return config
