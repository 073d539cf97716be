"""What a voxel run can be told; values live in configs/voxel_base.py and the files that use it."""

import dataclasses
import math
from dataclasses import field
from typing import Any

from tds_jax.config import Config, EvalConfig, SourceConfig
from tds_jax.fields import (
    FREE,
    Settings,
    at_least,
    between,
    one_of,
    one_of_or_own,
    require,
    require_between,
    require_shares,
)
from tds_jax.sizes import MIB
from tds_jax.voxel.data.resize import MODES

AUTOENCODERS = ("vae", "vqvae")
DIRECT = "direct"
GENERATORS = ("diffusion", "consistency")
MAX_LEVELS = 4  # the original's strides are known for so many
ATTENTION_HEADS = 4


@dataclasses.dataclass(frozen=True)
class VoxelModelConfig(Settings, group="model"):
    """The autoencoder, and for the generators what works on its latents.

    name: 'vae' and 'vqvae' learn volumes; 'direct' learns the target's volume from the radar's, as
    does 'package.module:Name', a network of one's own; 'diffusion' learns latents of a trained
    autoencoder, or cells that are folded as `fold` says, given the radar; 'consistency' learns to
    do so in few steps from a trained diffusion.
    """

    name: str = field(metadata=one_of_or_own(*AUTOENCODERS, DIRECT, *GENERATORS))
    base: int = field(metadata=at_least(1))
    multipliers: tuple[int, ...]
    blocks: int = field(metadata=between(0, 2))
    attention: bool
    latent_channels: int = field(metadata=at_least(1))
    span: str = field(metadata=one_of("block", "stage", "coder"))
    tile: int = field(metadata=at_least(0))
    codes: int = field(metadata=at_least(0))
    codebook_decay: float
    restart_below: float = field(metadata=at_least(0))
    autoencoder: str
    fold: tuple[int, ...]
    teacher: str
    direct: str
    anchored: bool
    direct_width: int = field(metadata=at_least(2))
    direct_multipliers: tuple[int, ...]
    condition_channels: int = field(metadata=at_least(1))
    condition_base: int = field(metadata=at_least(1))
    condition_blocks: int = field(metadata=at_least(0))
    width: int = field(metadata=at_least(2))
    unet_multipliers: tuple[int, ...]
    unet_heads: int = field(metadata=at_least(1))
    sigma_data: float
    sigma_min: float
    sigma_max: float
    rho: float
    sigma_mean: float
    sigma_spread: float
    draws: int = field(metadata=at_least(1))
    guidance_dropout: float = field(metadata=between(0, 1))
    guidance: float = field(metadata=at_least(0))
    temperature: float = field(metadata=at_least(0))
    sampler_steps: int = field(metadata=at_least(2))
    distillation_levels: int = field(metadata=at_least(2))
    jumps: tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("multipliers", "unet_multipliers", "direct_multipliers", "jumps"):
            values = getattr(self, name)
            require(
                len(values) > 0 and min(values) >= 1,
                f"model.{name}={values} must be whole numbers of 1 or more, at least one",
            )
        require_between("len(model.multipliers)", len(self.multipliers), 1, MAX_LEVELS)
        require(
            self.name in GENERATORS or (self.codes > 0) == (self.name == "vqvae"),
            f"model.codes={self.codes} does not go with model.name={self.name!r}; use 0 for 'vae' "
            "and the number of codes for 'vqvae'",
        )
        deepest = self.base * self.multipliers[-1]
        require(
            not self.attention or deepest % ATTENTION_HEADS == 0,
            f"model.base={self.base} times model.multipliers[-1]={self.multipliers[-1]} must be "
            f"divisible by {ATTENTION_HEADS}, the heads of model.attention",
        )
        self._require_unet("width", "unet_multipliers")
        if self.direct or self.name == DIRECT:
            self._require_unet("direct_width", "direct_multipliers")
        require(
            bool(self.direct) or not self.anchored or self.name not in GENERATORS,
            "model.anchored=True needs the one answer that samples lie around; name the workdir of "
            "a trained configs/voxel_direct.py as model.direct, or use model.anchored=False",
        )
        require(
            self.guidance == 1 or self.guidance_dropout > 0 or self.name != "diffusion",
            f"model.guidance={self.guidance} needs estimates without a condition, which are not "
            "learned with model.guidance_dropout=0; use 0.1, or model.guidance=1",
        )
        require(
            0 < self.sigma_min < self.sigma_max,
            f"model.sigma_min={self.sigma_min} and model.sigma_max={self.sigma_max} must be above "
            "0 and in this order",
        )
        for name in ("sigma_data", "rho", "sigma_spread"):
            require(getattr(self, name) > 0, f"model.{name}={getattr(self, name)} must be above 0")
        sources = {"diffusion": ("autoencoder", "ultra"), "consistency": ("teacher", "diffusion")}
        source, config = sources.get(self.name, ("name", ""))
        require(
            len(self.fold) in (0, 3) and min(self.fold, default=1) >= 1,
            f"model.fold={self.fold} must be three whole numbers above 0, as (Z, X, Y), or ()",
        )
        require(
            not (self.fold and self.autoencoder) or self.name != "diffusion",
            f"model.fold={self.fold} and model.autoencoder={self.autoencoder} both say what is "
            "denoised; use model.fold=() or model.autoencoder=''",
        )
        require(
            bool(getattr(self, source)) or (source == "autoencoder" and len(self.fold) > 0),
            f"model.{source}='' but model.name={self.name!r} needs one; train "
            f"configs/voxel_{config}.py and name its workdir",
        )

    def _require_unet(self, width_name: str, multipliers_name: str) -> None:
        width, deepest = getattr(self, width_name), getattr(self, multipliers_name)[-1]
        require(
            width % 2 == 0,
            f"model.{width_name}={width} must be even: half of the waves of time are sines",
        )
        require(
            width * deepest % self.unet_heads == 0,
            f"model.unet_heads={self.unet_heads} must divide the {width * deepest} channels of the "
            f"U-Net's middle (model.{width_name} times model.{multipliers_name}[-1])",
        )


@dataclasses.dataclass(frozen=True)
class VoxelDataConfig(SourceConfig):
    """Where the volumes are, and the grid they come to. ranges: x0, x1, y0, y1, z0, z1 metres."""

    cache_dir: str = field(metadata=FREE)
    grid: str = field(metadata=one_of(*MODES))
    shape: tuple[int, ...]
    multiple: tuple[int, ...]
    ranges: tuple[float, ...]
    sweeps: int = field(metadata=at_least(1))
    augment_flip: float
    augment_noise: float
    augment_intensity_noise: float
    augment_doppler_noise: float
    augment_dropout: float
    augment_dropout_rate: float
    augment_intensity: float
    augment_intensity_scale: float
    augment_doppler: float
    augment_doppler_shift: float
    train_scenes: tuple[str, ...]
    val_scenes: tuple[str, ...]
    test_scenes: tuple[str, ...]
    split_ratio: tuple[float, ...]
    max_bad_files: int = field(metadata=FREE | at_least(0))
    max_statistics_frames: int = field(metadata=at_least(1))
    max_open_files: int = field(metadata=FREE | at_least(1))
    chunk_cache_bytes: int = field(metadata=FREE | at_least(0))
    keep_bytes: int = field(metadata=FREE | at_least(0))
    synthetic_scenes: int = field(metadata=at_least(3))
    synthetic_frames: int = field(metadata=at_least(1))
    synthetic_shape: tuple[int, ...]
    synthetic_seed: int

    @property
    def cache_bytes(self) -> int:
        """Chunk caches of all files that may be open at once, and volumes kept in memory."""
        return self.max_open_files * self.chunk_cache_bytes + self.keep_bytes

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("shape", "multiple", "synthetic_shape"):
            value = getattr(self, name)
            require(
                len(value) == 3 and min(value) >= 1,
                f"data.{name}={value} must be three whole numbers above 0, as (Z, X, Y)",
            )
        low, high = self.ranges[::2], self.ranges[1::2]
        require(
            len(self.ranges) == 6 and all(a < b for a, b in zip(low, high, strict=True)),
            f"data.ranges={self.ranges} must be (x0, x1, y0, y1, z0, z1) metres, each pair rising",
        )
        require_shares("data.split_ratio", self.split_ratio)


@dataclasses.dataclass(frozen=True)
class VoxelLossConfig(Settings, group="loss"):
    """What a volume is charged for; see `voxel.losses`.

    reconstruction: 'occupancy' trains logits of channel 0 and normalised features; the others are
    the original's and train raw values.
    """

    reconstruction: str = field(metadata=one_of("occupancy", "mse", "weighted", "composite"))
    bce_weight: float = field(metadata=at_least(0))
    occupied_weight: float = field(metadata=at_least(0))
    focal_gamma: float = field(metadata=at_least(0))
    dice_weight: float = field(metadata=at_least(0))
    feature_weight: float = field(metadata=at_least(0))
    feature_squared: bool
    sample_dice_weight: float = field(metadata=at_least(0))
    kl_weight: float = field(metadata=at_least(0))
    commitment_weight: float = field(metadata=at_least(0))
    channel_weights: tuple[float, ...]
    false_positive_weight: float = field(metadata=at_least(0))
    mass_weight: float = field(metadata=at_least(0))
    perceptual_weight: float = field(metadata=at_least(0))
    structure_weight: float = field(metadata=at_least(0))

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.occupied_weight > 0, f"loss.occupied_weight={self.occupied_weight} must be > 0"
        )
        require(
            len(self.channel_weights) == 4 and math.fsum(self.channel_weights) > 0,
            f"loss.channel_weights={self.channel_weights} must be four weights, not all 0",
        )
        require(
            self.reconstruction != "occupancy" or self.bce_weight + self.dice_weight > 0,
            "loss.bce_weight=0 and loss.dice_weight=0 leave the occupancy unlearned; raise one",
        )


@dataclasses.dataclass(frozen=True)
class VoxelEvalConfig(EvalConfig):
    """The engine's settings; dilation: radius of the dilated-radar baseline, voxels. samples:
    drawn per frame by a generator and averaged. renders: frames drawn as figures."""

    metric: str = field(metadata={"rises": ("iou", "perplexity")})
    dilation: int = field(metadata=at_least(1))
    samples: int = field(metadata=at_least(1))
    renders: int = field(metadata=at_least(0))


def today(values: dict[str, Any]) -> dict[str, Any]:
    """An older run's settings under the names of now.

    decoder_chunk meant nothing here. The U-Net had one head before their number was a setting; of
    an autoencoder's run the number means nothing, and it is the original's. A diffusion saw the
    radar alone and always, and an example with one noise; samples lay around no answer, were of an
    autoencoder's latents, and learned by squared errors alone. One file of volumes that could not
    be read ended a run.
    """
    memory = {name: value for name, value in values["memory"].items() if name != "decoder_chunk"}
    model = values["model"]
    heads = {"unet_heads": 1 if model["name"] in GENERATORS else ATTENTION_HEADS}
    direct = {
        "direct": "",
        "fold": (),
        "anchored": False,
        "direct_width": 16,
        "direct_multipliers": (1, 2, 4),
    }
    guidance = {"draws": 1, "guidance_dropout": 0.0, "guidance": 1.0, "temperature": 1.0}
    unsaid = {"max_bad_files": 0, "source": "", "sweeps": 1, "keep_bytes": 64 * MIB}
    data = unsaid | values["data"]
    loss = {"sample_dice_weight": 0.0} | values["loss"]
    model = heads | direct | guidance | model
    return values | {"memory": memory, "model": model, "loss": loss, "data": data}


def settings(config: Config) -> VoxelEvalConfig:
    """A voxel run's `eval` with the settings that other domains have not."""
    assert isinstance(config.eval, VoxelEvalConfig)
    return config.eval
