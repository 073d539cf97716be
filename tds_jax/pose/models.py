"""The pose model: raw EMG -> joint angles at the decoder's rate."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax.errors import UserError
from tds_jax.fields import require, require_choice
from tds_jax.nn.module import Module
from tds_jax.nn.noise import key_of
from tds_jax.nn.normalizer import Normalizer
from tds_jax.nn.precision import at_least_f32
from tds_jax.nn.resample import interpolate
from tds_jax.pose import calibration as calibrations
from tds_jax.pose.config import INITIAL_POSES
from tds_jax.pose.decoders import Carry, Decoder, LSTMCore, MLPCore, num_outputs
from tds_jax.pose.film import Film
from tds_jax.pose.filters import SpeedAdaptiveFilter
from tds_jax.pose.tds import TDSNetwork

DECODERS = ("lstm", "mlp")
ALIGNMENTS = ("fixed", "reference")
START_LAYER = 200  # of the draw of 'mixed'; dropout layers count below
POSITION_SECONDS = 0.25  # of a 'hybrid' rollout


class PoseModel(Module):
    """emg (B, T, C) in the recording's units -> poses (B, num_steps(T), J) in radians, f32.

    Step n is the pose at sample `left_context + n * step` of the window and sees no later sample.
    `step` = round(sample_rate / rollout_freq). Where frames are more frequent than steps a step
    gets their mean since the step before; where they are rarer it gets the newest one.

    alignment 'reference' computes what emg2pose does instead: frames spread evenly over
    round(seconds * rollout_freq) steps, poses spread over the samples from the first supervised
    one on (step 1). A pose then depends on the window's end, so it is neither causal nor
    streamable; the parameters are those of 'fixed'.

    encoder: the other options of a `tds.TDSNetwork`. decoder: 'lstm' (hidden, layers) or 'mlp'
    (mlp_hidden). output: 'position', 'velocity' or 'hybrid'. initial_pose: 'zeros', 'learned' (one
    parameter per joint), 'given' (by the caller) or 'mixed' (given or learned). dropout follows
    each encoder convolution and sits between LSTM layers. decoder_chunk and remat: see `nn.remat`.
    dtype: of convolutions and matrix products; parameters, normalisation statistics and everything
    the rollout carries are f32.

    user_embedding: numbers of a `film.Film` between encoder and decoder; 0 = none.

    reference_rate repeats the original implementation, for comparing and for its weights: TDS
    kernels clamped to the group width and made odd, max(1, int(frames * 50 / 2000)) decoder steps
    from frames spread over the whole window, poses spread back over all T samples (so left_context
    0, step 1, and not causal).
    """

    def __init__(
        self,
        *,
        num_channels: int,
        num_joints: int,
        sample_rate: float,
        dropout: float,
        decoder: str,
        hidden: int,
        layers: int,
        mlp_hidden: Sequence[int],
        rollout_freq: float,
        output: str,
        output_scale: float,
        initial_pose: str,
        reference_rate: bool,
        decoder_chunk: int,
        remat: str,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
        slope: float = 0.1,
        decoder_kernel: str = "auto",
        alignment: str = "fixed",
        tracking_share: float = 1.0,
        output_filter: SpeedAdaptiveFilter | None = None,
        user_embedding: int = 0,
        **encoder: Any,
    ) -> None:
        _require_known(decoder, initial_pose, alignment, reference_rate)
        self.reference_rate = reference_rate
        self.alignment = alignment
        self.tracking_share = tracking_share
        self.output_filter = output_filter
        self.initial_pose = initial_pose
        self.num_joints = num_joints
        self.normalizer = Normalizer(num_channels)
        if reference_rate:
            pairs = zip(encoder["tds_kernels"], encoder["widths"], strict=True)
            encoder["tds_kernels"] = [clamped_kernel(kernel, width) for kernel, width in pairs]
        self.encoder = TDSNetwork(
            num_channels, **encoder, dropout=dropout, remat=remat, dtype=dtype, rngs=rngs
        )
        shared: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        told = (calibrations.size(num_channels), user_embedding, self.encoder.features)
        self.film = Film(*told, **shared) if user_embedding else None
        sizes = (self.encoder.features, num_joints, num_outputs(output, num_joints))
        lstm = {"hidden": hidden, "layers": layers, "dropout": dropout}
        own = (lstm if decoder == "lstm" else {"sizes": mlp_hidden}) | shared
        self.decoder = Decoder(
            _make_core(decoder, *sizes, slope=slope, **own),
            num_joints=num_joints,
            output=output,
            output_scale=output_scale,
            position_steps=round(POSITION_SECONDS * rollout_freq),
            chunk=decoder_chunk,
            dtype=dtype,
            kernel=decoder_kernel,
        )
        if initial_pose in ("learned", "mixed"):
            self.start = nnx.Param(jnp.zeros((num_joints,), jnp.float32))
        self._set_grid(sample_rate, rollout_freq)

    def _set_grid(self, sample_rate: float, rollout_freq: float) -> None:
        self.delay = 0
        self.sample_rate, self.rollout_freq = sample_rate, rollout_freq
        self.windowed = self.reference_rate or self.alignment == "reference"
        if self.windowed:
            self.step = self.frames_per_step = self.steps_per_frame = 1
            self.left_context = 0 if self.reference_rate else self.encoder.left_context
            return
        stride = self.encoder.stride
        self.step = round(sample_rate / rollout_freq)
        self.frames_per_step = max(1, self.step // stride)
        self.steps_per_frame = max(1, stride // max(1, self.step))
        if self.frames_per_step * stride != self.step * self.steps_per_frame:
            raise UserError(
                f"model.rollout_freq={rollout_freq} gives a step of {self.step} samples at "
                f"{sample_rate} Hz, which does not fit model.conv_strides with product {stride} "
                "(power_stride of model.powers included); "
                f"make one a multiple of the other, for example rollout_freq={sample_rate / stride}"
            )
        self.left_context = self.encoder.left_context + (self.frames_per_step - 1) * stride

    @property
    def receptive_field(self) -> int:
        """The least number of samples that gives a pose."""
        return 1 + (self.encoder.left_context if self.reference_rate else self.left_context)

    def aligned(self, alignment: str) -> "PoseModel":
        """A model with the same parameters and the other alignment (or the same one)."""
        model = nnx.merge(*nnx.split(self))
        model.alignment = alignment
        model._set_grid(self.sample_rate, self.rollout_freq)
        return model

    def num_steps(self, length: int) -> int:
        """Poses returned for a window of `length` samples; 0 when it is too short for one."""
        if self.reference_rate:
            return length if self.encoder.num_frames(length) else 0
        return max(0, (length - 1 - self.left_context) // self.step + 1)

    def decoder_steps(self, length: int, frames: int) -> int:
        """Decoder steps for a window of `length` samples that gave `frames` frames, at least 1.

        They are as many as poses with alignment 'fixed', fewer otherwise.
        """
        if self.reference_rate:  # as if the frames came at 2 kHz
            return max(1, int(frames * 50 / 2000))
        if self.alignment == "reference":  # Python's round: 12.5 -> 12
            seconds = (length - self.left_context) / self.sample_rate
            return max(1, round(seconds * self.rollout_freq))
        return self.num_steps(length)

    def __call__(
        self,
        emg: jax.Array,
        initial_pose: jax.Array | None = None,
        keys: jax.Array | None = None,
        calibration: jax.Array | None = None,
    ) -> jax.Array:
        """Poses (B, num_steps(T), J), f32 (f64 when built and fed in f64).

        initial_pose: (B, J) with 'given', None or (B, J) with 'mixed'. keys: (B, 2) uint32 in
        training, for dropout and the draws of 'mixed'; None: neither. calibration: (B, K) vectors
        of the users, None: the user that the model remembers; see `film.Film`.
        """
        features = self.features(emg, keys, calibration)
        carry = self.initial_carry(emg.shape[0], initial_pose, keys)
        poses, _ = self.decode(features, carry, keys)
        if self.reference_rate:
            return interpolate(poses, emg.shape[1], align_corners=True)
        if self.alignment == "reference":
            return interpolate(poses, self.num_steps(emg.shape[1]), align_corners=False)
        return poses

    def features(
        self,
        emg: jax.Array,
        keys: jax.Array | None = None,
        calibration: jax.Array | None = None,
    ) -> jax.Array:
        """emg (B, T, C) -> (B, N, F), one feature vector per decoder step."""
        if self.num_steps(emg.shape[1]) == 0:
            raise UserError(
                f"window of {emg.shape[1]} samples is shorter than the receptive field; "
                f"use at least {self.receptive_field}"
            )
        frames = self.encoder(self.normalizer(emg), keys)
        if self.reference_rate or self.alignment == "reference":
            steps = self.decoder_steps(emg.shape[1], frames.shape[1])
            frames = interpolate(frames, steps, align_corners=True)
        else:
            frames = self._align(frames, self.num_steps(emg.shape[1]))
        return self.film(frames, calibration) if self.film else frames

    def _align(self, frames: jax.Array, steps: int) -> jax.Array:
        """frames (B, M, F) -> (B, steps, F)."""
        batch, _, size = frames.shape
        if self.steps_per_frame > 1:
            return jnp.repeat(frames, self.steps_per_frame, axis=1)[:, :steps]
        count = self.frames_per_step
        frames = frames[:, : steps * count].reshape(batch, steps, count, size)
        frames = frames.astype(at_least_f32(frames.dtype))
        return jnp.mean(frames, axis=2)

    def initial_carry(
        self, batch: int, initial_pose: jax.Array | None = None, keys: jax.Array | None = None
    ) -> Carry:
        """The decoder's carry before step 0; initial_pose (B, J) with 'given' and only then.

        'mixed' takes one or none. With keys (B, 2) it is used for the tracking_share of examples
        that its key draws; the others begin at the learned pose.
        """
        given = initial_pose is not None
        if self.initial_pose != "mixed" and given != (self.initial_pose == "given"):
            raise ValueError(
                f"initial_pose={'present' if given else 'absent'} but the model was "
                f"built with initial_pose={self.initial_pose!r}; pass one with 'given' only"
            )
        own = self.start[...] if hasattr(self, "start") else jnp.zeros((self.num_joints,))
        own = jnp.broadcast_to(own, (batch, self.num_joints))
        start = own if initial_pose is None else initial_pose
        if self.initial_pose == "mixed" and given and keys is not None:
            start = jnp.where(drawn(keys, self.tracking_share), start, own)
        carry = self.decoder.initial_carry(start)
        smoothing = self.output_filter.initial(carry["pose"]) if self.output_filter else {}
        return carry | {"filter": smoothing}

    def decode(
        self, features: jax.Array, carry: Carry, keys: jax.Array | None = None
    ) -> tuple[jax.Array, Carry]:
        """features (B, N, F) -> (poses (B, N, J), carry after the last step).

        Without keys, that is not in training, the output filter acts; the rollout does not see it.
        """
        poses, new = self.decoder.rollout(features, _unfiltered(carry), keys)
        smoothing = carry["filter"]
        if self.output_filter and keys is None:
            poses, smoothing = self.output_filter(poses, smoothing)
        return poses, new | {"filter": smoothing}

    def decode_step(self, carry: Carry, feature: jax.Array) -> tuple[Carry, jax.Array]:
        """One step of `decode` without keys: feature (B, F) -> (carry, pose (B, J))."""
        new, pose = self.decoder.step(_unfiltered(carry), feature)
        smoothing = carry["filter"]
        if self.output_filter:
            smoothing, pose = self.output_filter.step(smoothing, pose)
        return new | {"filter": smoothing}, pose


def _require_known(decoder: str, initial_pose: str, alignment: str, reference_rate: bool) -> None:
    require_choice("model.decoder", decoder, DECODERS)
    require_choice("model.initial_pose", initial_pose, INITIAL_POSES)
    require_choice("model.alignment", alignment, ALIGNMENTS)
    require(
        alignment == "fixed" or not reference_rate,
        "model.reference_rate=True has a grid of its own; use model.alignment='fixed' with it",
    )


def _make_core(decoder: str, *sizes: int, **own: Any) -> LSTMCore | MLPCore:
    return LSTMCore(*sizes, **own) if decoder == "lstm" else MLPCore(*sizes, **own)


def _unfiltered(carry: Carry) -> Carry:
    """What of the carry is the decoder's own."""
    return {name: leaf for name, leaf in carry.items() if name != "filter"}


def drawn(keys: jax.Array, share: float) -> jax.Array:
    """(B, 1) bool, True with probability `share`; each a function of its key (2,) alone."""

    def one(key: jax.Array) -> jax.Array:
        return jax.random.bernoulli(key_of(key, START_LAYER), share, (1,))

    return jax.vmap(one)(keys)


def clamped_kernel(kernel: int, width: int) -> int:
    """The original's TDS kernel: no longer than the group width, then made odd (less one)."""
    kernel = min(kernel, width)
    return kernel if kernel % 2 else kernel - 1
