"""Ten days of soil moisture from twenty days of ERA5-Land; every forecast setting with its unit.

    python -m tds_jax.train --config=configs/forecast_soil_moisture.py [--config.data.path=DIR]

DIR holds hourly NetCDF files as the Climate Data Store gives them, or daily ones, or Zarr.
Generated files stand in where data.path is empty: two years of hourly fields with sea, totals that
run from 00 UTC, and a month missing. There, on 2 CPU cores, 2.2 minutes of CPU time; predicted 66
MiB on the device, measured 705 MiB on the host. RMSE in m3/m3 over ten days 0.0795 in one seed, a
day ahead 0.0293; one linear map of soil moisture 0.0821 and 0.0365, of all inputs 0.0783 and
0.0198; damped persistence 0.0830 and 0.0421. What comes there is mostly upwind, and these inputs do
not say where that is: forecast_soil_weather has wind and moisture. It says nothing of real soil.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """A 3-D convolution, then an LSTM over the times of every cell, in the repaired layout."""
    config = base.get_config()
    config.task = "forecast"

    config.model = ConfigDict()
    # 'convlstm' | 'cnn3d_lstm' | 'cnn3d_lstm_lite' | 'cnn3d_lstm_micro'; with days as
    # channels of maps 'unet' | 'simvp', each day on its own first.
    config.model.name = "cnn3d_lstm_micro"
    config.model.hidden = 0  # 0 = as published: 16 | 64 | 32 | 16; 24 of maps
    config.model.lstm_hidden = 0  # 0 = as published: none | 32 | 16 | 8
    # 'pixels': the LSTM reads the days of one pixel. 'reference': as published, space and time
    # mixed up; for published weights and comparison only.
    config.model.layout = "pixels"
    config.model.head = (
        "leads"  # 'leads': a map for each lead | 'repeat': one for all, as published
    )
    # 'batch' (as published; not exact with optim.accumulate > 1) | 'group' | 'none'.
    config.model.norm = "group"
    config.model.groups = 4  # of 'group'; divides every width
    config.model.dropout = 0.15  # of whole channels; published: none | 0.1 | 0.15 | 0.2
    config.model.land_only = False  # True: LSTM and head on land cells only; same result on land
    config.model.periodic = False  # True: columns go around the globe, not between edges of zeros
    # What the network sees is (field - centre) / scale, measured on train days. 'none' | 'scalar':
    # one mean per variable | 'cell': one per cell | 'anomaly': each cell's climatology.
    config.model.normalize = "anomaly"
    config.model.harmonics = 1  # annual waves of the climatology, the baselines' too
    # Waves of the day in it, where data.step_hours is less than 24: as many as steps can tell.
    config.model.day_harmonics = 2
    # What the answer is added to: 'none' | 'last': the last day | 'damped': its anomaly, damped as
    # train days damp it at each lead and cell | 'linear': that, and the map below, fitted on train
    # days by least squares instead of learnt step by step.
    config.model.prior = "damped"
    # A linear map of the last `local_days` days in a square of `local_kernel` cells, added too.
    config.model.local_kernel = 5
    config.model.local_days = 2.0  # 0 = none; as data.input_days
    # Of prior 'linear': its map also reads the target's mean anomaly over so many last days, which
    # says how far this year is from the climatology.
    config.model.local_means = ()
    config.model.local_ridge = 0.005  # of prior 'linear': added share of its inputs' mean square
    # Also of it: the inputs averaged over blocks of 5 x 5 cells, so many rows and columns of blocks
    # around, such as (5, 9), () = none.
    config.model.local_wide = ()
    config.model.local_place = False  # True: its weights change from row to row, column to column
    # Also of it: blocks of train days that are left out in turn. On them each lead chooses its
    # ridge, of 1 to 100 times local_ridge, all choose how many mixtures of leads there are, and the
    # spread of an ensemble is measured. 0 = nothing is chosen, the spread is that of fitted days.
    config.model.local_folds = 0
    # Fields of noise that the network reads, each smooth over some cells: another draw is another
    # member of an ensemble, spread as far as the prior errs on train days until training changes
    # that. 0 = one forecast. Needs prior 'damped' or 'linear'.
    config.model.noise = 0
    # What the target is never below, in the run's unit, as (0.0,) for rain: forecasts below it are
    # raised to it when they are used; training goes on where they would be. () = nothing. Of
    # several targets a number for each, or for the first ones.
    config.model.floor = ()
    # Also 'coordinates' and, where data.step_hours is less than 24, 'time_of_day'.
    config.model.extra_inputs = ("land_mask", "day_of_year")

    # Redone together going backward instead of kept, 0 keeps all: days of convlstm; sequences
    # (pixels of all examples) of the others' LSTM, whose convolutions then take one example at a
    # time. Up to one more forward pass of that part.
    config.memory.day_chunk = 0
    config.memory.pixel_chunk = 0  # see day_chunk

    config.loss = ConfigDict()
    config.loss.mse_weight = 1.0  # of errors in units of the target's spread
    config.loss.mae_weight = 0.0  # of absolute ones
    # Of the ensemble that model.noise makes: its fair CRPS, which rewards the right spread, too.
    config.loss.crps_weight = 0.0
    config.loss.members = 2  # drawn for each example in training; each is a pass of the network
    config.loss.area = False  # True: cells count by their area
    # What a cell of each target counts, data.target's first, errors being in units of each one's
    # own spread; () = alike.
    config.loss.target_weights = ()
    # A loss of one's own, 'package.module:function', added to the others; '' = none.
    config.loss.own = ""

    config.data = ConfigDict()
    config.data.path = ""  # file, folder or pattern of NetCDF or HDF5, or Zarr; '' = generated
    # Data of one's own instead of files, 'package.module:Name', see docs/own_parts.md; '' = none.
    config.data.source = ""
    # Channels, in this order; also an hour of the day, as 'swvl1@18' for 18 UTC.
    config.data.variables = ("swvl1", "ro", "e", "tp")
    config.data.target = "swvl1"  # the variable to forecast, one of them; the headline
    # Others of them that the same network forecasts, such as ("t2m",), each in its own unit, with
    # its own baselines and rows 'of/t2m'. Days are those of data.target.
    config.data.more_targets = ()
    # Totals, whose days are not the mean of their hours. 'tp': of the kind that its values show;
    # or 'tp=running' (from 00 UTC, as ERA5-Land) | 'tp=step' (of each step that ends at its stamp,
    # as ERA5) | 'tp=begin' (that begins there, as IMERG) | 'tp=midnight' (of the day before its
    # stamp) | 'tp=day' (none of these: means). Variables that say so themselves (GRIB_stepType
    # 'accum', those of prepare) need not be named.
    config.data.accumulated = ("ro", "e", "tp")
    config.data.land_mask = ""  # 'FILE:VARIABLE', share of land; '' = where the target exists
    # One of each further dimension, such as ('number=0', 'depth=0.05'), by the files' own values.
    config.data.select = ()
    config.data.static = ()  # 'FILE:VARIABLE' maps added as inputs: soil texture, elevation
    config.data.downsample = 1  # cells per side of averaged blocks; memory / its square
    # Hours in a step of the forecast: 24, or 12, 8, 6, 4, 3, 2, 1 where files have steps that make
    # these up (means, totals of what accumulates). Settings named days stay days of time.
    config.data.step_hours = 24
    config.data.input_days = 20.0  # that the model sees; of finer steps also 0.5
    config.data.lead_days = 10.0  # that it forecasts; likewise
    config.data.crop = (0, 0)  # rows, columns cut out at random in training; (0, 0) = whole grid
    config.data.split_ratio = (0.7, 0.1, 0.2)  # of the days, in order: train, val, test
    # Days that must lie between a split's first target and the split before. -1 = a whole window,
    # so that nothing is shared. 0: targets are never shared, inputs may reach back.
    config.data.split_gap = -1
    config.data.cache_dir = ""  # generated data; '' = the user's cache folder
    # Days of a record that all fit in so many bytes (4 for a cell of each variable and day) are
    # read once and kept, in each reading process; 0 = none. Else a window costs milliseconds.
    config.data.keep_bytes = 64 * 2**20
    config.data.workers = 0  # reading processes; 0 = threads of this one
    config.data.threads = 2  # that read, where there are no workers
    config.data.prefetch = 4  # batches read ahead
    config.data.persistent_workers = True  # False: stopped during evaluation, ~2 s to restart
    config.data.synthetic_months = 24  # of hourly files, from 2019-01
    config.data.synthetic_missing_month = "2019-09"  # that is left out; '' = none
    config.data.synthetic_grid = (16, 24)  # rows, columns of 1 degree
    config.data.synthetic_land = 0.6  # share of cells
    config.data.synthetic_seed = 0  # the same gives the same bytes

    config.optim.batch_size = 8
    config.optim.steps = 100
    config.optim.learning_rate = 3e-3
    config.optim.warmup_steps = 20
    config.eval.every = 25
    config.eval.batch_size = 8
    config.eval.members = 20  # of an ensemble, in evaluation and predict
    # True: an ensemble without model.noise, whose members leave out channels as training does. It
    # is no more than how sure the network is of its weights: mostly too narrow.
    config.eval.dropout = False
    # Of data.target alone, as 'mae' and 'skill'; 'rmse/t2m' of another, 'nrmse' of all targets: the
    # root of their mean square error in units of each one's spread.
    config.eval.metric = "rmse"
    config.eval.min_delta = 0.0
    config.log.every = 10
    return config
