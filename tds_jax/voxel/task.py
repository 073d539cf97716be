"""The voxel task: pairs of radar and LiDAR volumes -> a method -> volumes, and their worth."""

import copy
import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tds_jax.config import Config
from tds_jax.engine import processes
from tds_jax.engine.step import Batch, Objective, batch_spec
from tds_jax.errors import UserError
from tds_jax.fields import require
from tds_jax.own import is_own
from tds_jax.tasks import DataAbout
from tds_jax.voxel.config import ATTENTION_HEADS, AUTOENCODERS, DIRECT, GENERATORS
from tds_jax.voxel.data.dataset import Examples, VoxelData
from tds_jax.voxel.data.volumes import CHANNELS
from tds_jax.voxel.data.voxelise import need_words
from tds_jax.voxel.linear import Linear, fitted
from tds_jax.voxel.methods import build, trained
from tds_jax.voxel.methods.answering import Answering
from tds_jax.voxel.methods.autoencoding import Autoencoding
from tds_jax.voxel.methods.distillation import Distillation
from tds_jax.voxel.methods.generation import Diffusion
from tds_jax.voxel.networks import torch_names, unet_names


class Method(Protocol):
    """What a `model.name` stands for.

    leaves: what of a pair it trains on. A method with `latents` also gets the leaf `latent`.
    """

    leaves: tuple[str, ...]

    def init(self, rngs: nnx.Rngs) -> Any:
        """A fresh model."""

    def statistics(self, data: VoxelData) -> dict[str, Any]:
        """Leaves of `rest`: of the train split, and models that other runs have trained."""

    def digest(self) -> str:
        """Of the weights that other runs have trained; '' without."""

    def latents(self, data: VoxelData, split: str) -> Path | None:
        """Where the latents of a split's targets are, made if need be; None without."""

    def loss(self, model: Any, batch: Batch, train: bool) -> tuple[Objective, dict[str, Any]]:
        """As `tasks.Task.loss`."""

    def volumes(self, model: Any, batch: Batch) -> dict[str, jax.Array]:
        """What there is to evaluate: name -> (B, D, H, W, 4) raw, channel 0 a probability.

        'model' is what the run is about and what is predicted; 'samples' (B, S, D, H, W) the
        probabilities of several answers, if that is their mean.
        """


METHODS: dict[str, type[Method]] = {
    "vae": Autoencoding,
    "vqvae": Autoencoding,
    "direct": Answering,
    "diffusion": Diffusion,
    "consistency": Distillation,
}


class VoxelTask:
    """A `tasks.Task` for radar volumes; see `tasks.Task` for what is not said here."""

    def __init__(self, config: Config, inputs: dict[str, Any] | None = None) -> None:
        self.config = config
        self.method = _method(config)
        self.data = VoxelData(config, inputs)
        cells = build.divisor(config.model)
        require(
            all(n % m == 0 for n, m in zip(self.data.shape, cells, strict=True)),
            f"the grid (Z, X, Y) = {self.data.shape} is not divisible by {cells}, as model.name="
            f"{config.model.name!r} needs; use data.grid='pad' with data.multiple={cells}",
        )

    @property
    def generates(self) -> bool:
        """True for methods that answer to a radar volume; others reconstruct targets."""
        return self.config.model.name not in AUTOENCODERS

    @property
    def latent(self) -> bool:
        """True for methods that learn latents of targets."""
        return self.config.model.name in GENERATORS

    def under(self, config: Config) -> Self:
        """See `tasks.Task.under`."""
        other = copy.copy(self)
        other.config = config
        other.method = _method(config)
        return other

    def inputs(self) -> dict[str, Any]:
        """The grid of the files and where it lies."""
        return self.data.inputs()

    def digest(self) -> str:
        """Changes with any frame's name or split, and with the frozen networks trained against."""
        return self.data.digest() + self.method.digest()

    def data_files(self) -> dict[str, str]:
        """The volumes in use, and where they are said to lie."""
        return self.data.data_files()

    def data_about(self) -> DataAbout:
        """Scenes, frames and the grid."""
        return self.data.about()

    @functools.cached_property
    def linear(self) -> Linear:
        """The regression of the train split."""
        return processes.by_first(lambda: fitted(self.data))

    def init(self, rngs: nnx.Rngs) -> nnx.Module:
        """A fresh model."""
        return self.method.init(rngs)

    def loss(
        self, model: nnx.Module, batch: Batch, train: bool
    ) -> tuple[Objective, dict[str, Any]]:
        """The method's; every example is charged on its own."""
        return self.method.loss(model, batch, train)

    @functools.cache  # noqa: B019 - one task per run, three splits
    def source(self, split: str) -> Examples:
        """The examples of a split, with stored latents where the method wants them."""
        latents = self.method.latents(self.data, split)
        augment = self.data.augment(radar_only=self.latent) if split == "train" else None
        return Examples(self.data.pairs(split, augment), self.method.leaves, latents)

    def batch_spec(self, examples: int, train: bool = True) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and types of a batch."""
        grid = self.data.shape
        leaves: dict[str, tuple[tuple[int, ...], Any]] = {
            "radar": ((*grid, CHANNELS), jnp.float32),
            "target": ((*grid, CHANNELS), jnp.float32),
        }
        leaves = {name: leaf for name, leaf in leaves.items() if name in self.method.leaves}
        leaves["weight"] = (grid, jnp.float32)
        if self.latent:
            model = self.config.model
            cells = build.cells_per_latent(model)
            small = tuple(n // m for n, m in zip(grid, cells, strict=True))
            leaves |= {
                "latent": ((*small, build.latent_channels(model)), jnp.float32),
                "weight": ((), jnp.float32),
            }
        return batch_spec(examples, leaves)

    def memory_options(self) -> dict[str, tuple[Any, ...]]:
        """Recomputation of what `model.span` names, and of the U-Net's residual blocks.

        Of a network of one's own nothing is known.
        """
        return {} if is_own(self.config.model.name) else {"remat": ("none", "names", "full")}

    def fit_statistics(self) -> dict[str, Any]:
        """Units of the data, and frozen models of other runs."""
        return self.method.statistics(self.data)

    def first_params(self) -> dict[str, Any]:
        """None."""
        return {}

    def warnings(self) -> list[str]:
        """What was left out, frames with nothing in them, a model that has seen other data."""
        empty = self.data.statistics.empty
        frames = [f"{empty} frames of the train split have an empty radar or target"]
        others = trained.of_other_data(self.config, self.data)
        large = [] if self.latent else need_words(self.data.shape)
        return self.data.warnings() + frames * bool(empty) + others + large

    def describe(self, values: dict[str, Any]) -> str:
        """loss, and IoU at the uncalibrated threshold where there is one."""
        iou = f"  iou {values['iou']:.3f}" if "iou" in values else ""
        return f"loss {values['loss']:.4f}{iou}"

    def import_params(
        self, params: dict[str, Any], rest: dict[str, Any], tensors: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """(params, rest) with the network of a PyTorch checkpoint: autoencoder or U-Net.

        The original's encoder of the radar is its autoencoder's: so is ours where the sizes are
        alike, else it stays random, which is said. Statistics stay as they are.
        """
        name = self.config.model.name
        if name == "diffusion":
            heads = self.config.model.unet_heads
            require(
                heads == ATTENTION_HEADS,
                f"model.unet_heads={heads}, but the original's latent U-Net attends with "
                f"{ATTENTION_HEADS}, which no weight tells; use {ATTENTION_HEADS}",
            )
            params = params | {"unet": unet_names.import_params(params["unet"], tensors)}
            encoder = unet_names.radar_encoder(params["encoder"], rest["autoencoder"])
            if encoder is None:
                print(f"note: {unet_names.STAYS_RANDOM}", file=sys.stderr)
                return params, rest
            # As the original: the autoencoder's own encoder, in the units of what it was given.
            units = {"radar": rest["autoencoder"]["target"]}
            return params | {"encoder": encoder}, rest | units
        if is_own(name) or name == DIRECT:
            raise UserError(f"model.name={name!r} is no network of the original's; import has none")
        if name == "consistency":
            raise UserError("model.name='consistency' learns changes of a teacher; import that")
        network, codes = torch_names.import_params(
            params["network"], rest.get("network", {}), tensors
        )
        return params | {"network": network}, rest | ({"network": codes} if codes else {})


def _method(config: Config) -> Method:
    name = config.model.name
    cls: Any = Answering if is_own(name) else METHODS[name]
    return cls(config)


def inputs_of(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Nothing: weights tell no grid. It comes from data.path, or from generated volumes."""
    return {}
