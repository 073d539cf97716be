"""Models that other runs have trained, taken over with their weights."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax import config as configuration
from tds_jax import tasks
from tds_jax.config import Config
from tds_jax.engine import workdir
from tds_jax.engine.blueprint import Blueprint
from tds_jax.fields import require
from tds_jax.voxel.config import AUTOENCODERS, DIRECT
from tds_jax.voxel.data.dataset import VoxelData
from tds_jax.voxel.methods.model import Answer, FoldedCells, LatentDenoiser, ScaledAutoencoder

AUTOENCODER_SETTINGS = ("base", "multipliers", "blocks", "attention", "latent_channels", "codes")
UNET_SETTINGS = (
    "direct",
    "anchored",
    "direct_width",
    "direct_multipliers",
    "condition_channels",
    "condition_base",
    "condition_blocks",
    "width",
    "unet_multipliers",
    "unet_heads",
    "sigma_data",
    "fold",
)


def autoencoder(config: Config, folder: Path) -> ScaledAutoencoder:
    """The autoencoder of a workdir; its architecture must be the config's."""
    settings = tuple(f"model.{name}" for name in AUTOENCODER_SETTINGS)
    model = _load(config, folder, "model.autoencoder", AUTOENCODERS, settings)
    model.perceptual = nnx.data(None)  # of its loss, which is over
    return model


def folded_cells(config: Config, data: VoxelData) -> FoldedCells:
    """What model.fold says stands for an autoencoder, in the units of the train split."""
    require(
        config.loss.reconstruction == "occupancy",
        f"model.fold={config.model.fold} needs loss.reconstruction='occupancy', not "
        f"{config.loss.reconstruction!r}: its cells are full or empty",
    )
    # A split may be encoded where the training loop forbids uploads that nobody asked for by name.
    with jax.transfer_guard_host_to_device("allow"):
        cells = FoldedCells(config.model.fold)
        units = {"target": data.statistics.leaves()["target"]}
        nnx.update(cells, jax.tree.map(jnp.asarray, units))
    return cells


def direct(config: Config, folder: Path) -> Answer:
    """The network from radar to target of a workdir; its architecture must be the config's."""
    names = ("direct_width", "direct_multipliers", "unet_heads")
    settings = (*(f"model.{name}" for name in names), "data.sweeps")
    model = _load(config, folder, "model.direct", (DIRECT,), settings)
    model.around.perceptual = nnx.data(None)  # of its loss, which is over
    return model


def denoiser(config: Config, folder: Path) -> LatentDenoiser:
    """The diffusion of a workdir; its architecture must be the config's."""
    names = AUTOENCODER_SETTINGS + UNET_SETTINGS
    settings = (*(f"model.{name}" for name in names), "data.sweeps")
    return _load(config, folder, "model.teacher", ("diffusion",), settings)


def of_other_data(config: Config, data: VoxelData) -> list[str]:
    """A line for each trained model that a run learns from that has seen other data than it."""
    used = {"diffusion": ("autoencoder", "direct"), "consistency": ("teacher",)}
    folders = {name: getattr(config.model, name) for name in used.get(config.model.name, ())}
    return [
        f"model.{setting}={folder} was trained on other data, or on these split otherwise: it may "
        "have seen what tests this run, and suit these data less; train one on these"
        for setting, folder in folders.items()
        if folder and _has_seen_other(Path(folder), data)
    ]


def _has_seen_other(folder: Path, data: VoxelData) -> bool:
    known = workdir.has_checkpoint(folder)
    return known and not workdir.learned_from(folder, data.digest(), data.data_files())


def leaves(model: nnx.Module) -> dict[str, Any]:
    """Every array of a model, as a nested dict: what its frozen copy has in `rest`.

    On the host: a training step donates its `rest`, and would take the model's own arrays with it.
    """
    return jax.device_get(nnx.to_pure_dict(nnx.state(model)))


def _load(
    config: Config, folder: Path, setting: str, names: tuple[str, ...], settings: tuple[str, ...]
) -> Any:
    require(
        workdir.has_checkpoint(folder),
        f"{setting}={folder} has no checkpoint; train it first, or name the workdir of another",
    )
    values = workdir.read_config(folder)
    theirs = configuration.resolve(values, tasks.groups(values["task"]))
    require(
        theirs.task == config.task and theirs.model.name in names,
        f"{setting}={folder} was trained as {theirs.task} {theirs.model.name!r}; name a workdir "
        f"of {' or '.join(names)}",
    )
    for path in (*settings, "loss.reconstruction", "data.grid", "data.shape"):
        _require_same(path, config, theirs, folder)
    # Its own way of running it (remat, tiles, dtype) is not ours.
    theirs = dataclasses.replace(theirs, memory=config.memory)
    task = tasks.get(theirs, workdir.read_inputs(folder))
    model, _ = workdir.load_model(Blueprint(task, theirs), folder)
    return jax.device_put(model, jax.local_devices()[0])


def _require_same(path: str, config: Config, theirs: Config, folder: Path) -> None:
    ours, other = (configuration.value(one, path) for one in (config, theirs))
    require(
        ours == other, f"{path}={ours} but {folder} was trained with {other}; use --config.{path}"
    )
