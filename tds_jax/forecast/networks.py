"""The network a config names, with its memory settings."""

import dataclasses
from typing import Any

from flax import nnx

from tds_jax.forecast.cnn3d_lstm import CNN3DLSTM, structure
from tds_jax.forecast.config import ForecastMemoryConfig, ForecastModelConfig
from tds_jax.forecast.convlstm import ConvLSTM
from tds_jax.forecast.model import Network
from tds_jax.forecast.unet import UNet
from tds_jax.nn.precision import compute_dtype
from tds_jax.own import is_own, made

# (hidden, lstm_hidden) as published.
PUBLISHED = {
    "convlstm": (16, 0),
    "cnn3d_lstm": (64, 32),
    "cnn3d_lstm_lite": (32, 16),
    "cnn3d_lstm_micro": (16, 8),
}
# (hidden, channels of each day alone) of ours.
MAPS = {"unet": (24, 0), "simvp": (24, 8)}


def make_network(
    model: ForecastModelConfig,
    memory: ForecastMemoryConfig,
    *,
    num_channels: int,
    leads: int,
    days: int,
    cells: int,
    rngs: nnx.Rngs,
) -> Network:
    """A fresh network; widths of 0 are those published, or ours.

    cells: how many land cells its LSTM runs on, 0 for all of the grid.
    With memory.pixel_chunk their convolutions also take one example at a time.
    """
    dtype = compute_dtype(memory.dtype)
    if is_own(model.name):
        beside = {"num_channels": num_channels, "leads": leads, "dtype": dtype, "rngs": rngs}
        settings = dataclasses.asdict(model) | dataclasses.asdict(memory)
        return made("model.name", model.name, settings | beside)
    shared: dict[str, Any] = {
        "num_channels": num_channels,
        "leads": leads,
        "head": model.head,
        "periodic": model.periodic,
        "remat": memory.remat,
        "dtype": dtype,
        "rngs": rngs,
    }
    normed = shared | {name: getattr(model, name) for name in ("norm", "groups", "dropout")}
    if model.name in MAPS:
        hidden, by_day = MAPS[model.name]
        return UNet(**normed, days=days, hidden=model.hidden or hidden, by_day=by_day)
    hidden, lstm_hidden = PUBLISHED[model.name]
    hidden, lstm_hidden = model.hidden or hidden, model.lstm_hidden or lstm_hidden
    if model.name == "convlstm":
        return ConvLSTM(**shared, hidden=hidden, day_chunk=memory.day_chunk)
    return CNN3DLSTM(
        **normed,
        **dataclasses.asdict(structure(model.name, hidden, lstm_hidden)),
        layout=model.layout,
        cells=cells,
        example_chunk=1 if memory.pixel_chunk else 0,
        pixel_chunk=memory.pixel_chunk,
    )
