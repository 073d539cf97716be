"""From raw fields to a forecast in the data's unit: normalise, add inputs, predict, add a prior."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tds_jax.engine.step import Batch
from tds_jax.fields import require
from tds_jax.forecast.cycles import cycles, split, waves
from tds_jax.forecast.ensemble import keys_of_days, member_keys, smooth_noise
from tds_jax.forecast.linear import flat, leads_first, shared_map
from tds_jax.forecast.prior import Inputs, placed_map, places, wide_map
from tds_jax.nn.module import Module
from tds_jax.nn.normalizer import Statistic
from tds_jax.own import require_shape


class Network(Protocol):
    """Any of the networks: x (B, T, H, W, C) -> (B, L, H, W) f32; keys None without dropout.

    x is normalised, 0 where missing, with the maps that model.extra_inputs adds; what is returned
    is in units of the target's spread, less what model.prior says already. Of K targets L counts
    all their maps, target after target.
    """

    def __call__(self, x: jax.Array, train: bool, keys: jax.Array | None) -> jax.Array: ...


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What a `Forecaster` does besides calling its network; sizes and switches, no arrays.

    grid: (H, W). channels, targets: how many variables, and which of them are forecast. leads: of
    each. terms: of
    the centre, see `climatology.basis`; daily: waves of the day in them. per_cell: whether centre
    and scale differ between cells. prior: 'none', 'last', 'damped' or 'linear'. local: (kernel,
    days) of the linear map, days 0 for none; means, wide, place: see `prior.Inputs`. noise: fields
    of it that the network reads. floor: what no forecast of the first targets is below. static:
    maps added to every day's input. season: whether sine and cosine of the year are, clock: of the
    day. periodic: whether the linear map goes around the globe, as the network then does.
    """

    grid: tuple[int, int]
    channels: int
    targets: tuple[int, ...]
    leads: int
    terms: int
    daily: int
    centre_per_cell: bool
    scale_per_cell: bool
    prior: str
    local: tuple[int, int]
    means: tuple[int, ...]
    wide: tuple[int, ...]
    place: bool
    noise: int
    floor: tuple[float, ...]
    static: int
    season: bool
    clock: bool
    periodic: bool

    @property
    def maps(self) -> int:
        """That are forecast: of each target all leads."""
        return len(self.targets) * self.leads

    @property
    def linear(self) -> Inputs | None:
        """What the fitted linear map reads, or None without one."""
        own = Inputs(*self.local, self.means, self.wide, self.place)
        return own if self.prior == "linear" else None

    @property
    def inputs(self) -> int:
        """Channels the network sees."""
        return self.channels + self.static + 2 * self.season + 2 * self.clock + self.noise


class Forecaster(Module):
    """A network between normalisation and its inverse.

    Everything measured on the train split is a `Statistic`, neutral until set: centre
    (terms, H, W, C) and scale (H, W, C), H = W = 1 where cells do not differ, damping (L, H, W),
    what `prior.Inputs.shapes` names, spread (L, H, W), static (H, W, S), and area
    (H,), of the cells in each row. With noise the network answers in units of the spread, and what
    it answers without is the middle of the ensemble. What is missing becomes 0 after normalisation,
    the usual value: the number that stands in its place reaches nothing. Of K targets every axis L
    here is of K L maps, target after target: that of target k at lead l is k L + l.
    """

    def __init__(self, network: Network, around: Surroundings) -> None:
        require(
            isinstance(network, nnx.Module) and callable(network),
            f"model.name makes a {type(network).__name__}; make a flax.nnx.Module",
        )
        self.network = network
        self.around = around
        channels, leads, cells = around.channels, around.maps, around.grid
        one = (1, 1)
        centre = (around.terms, *(cells if around.centre_per_cell else one), channels)
        self.centre = Statistic(jnp.zeros(centre, jnp.float32))
        scale = (*(cells if around.scale_per_cell else one), channels)
        self.scale = Statistic(jnp.ones(scale, jnp.float32))
        self.area = Statistic(jnp.ones(cells[:1], jnp.float32))
        if around.prior in ("damped", "linear"):
            self.damping = Statistic(jnp.zeros((leads, *cells), jnp.float32))
        if around.static:
            self.static = Statistic(jnp.zeros((*cells, around.static), jnp.float32))
        size, days = around.local
        if around.linear:
            shapes = around.linear.shapes(channels, leads)
            zeros = {name: jnp.zeros(shape, jnp.float32) for name, shape in shapes.items()}
            self.linear = Statistic(zeros["linear"])
            if around.means:
                self.slow = Statistic(zeros["slow"])
            if around.wide:
                self.wide = Statistic(zeros["wide"])
            if around.place:
                self.place = Statistic(zeros["place"])
        elif days:
            self.local = nnx.Param(jnp.zeros((size, size, days * channels, leads), jnp.float32))
        if around.noise:
            self.spread = Statistic(jnp.ones((leads, *cells), jnp.float32))
            # At first each lead, of all targets, is moved by one of the fields.
            moves = [lead * around.noise // around.leads for lead in range(around.leads)]
            first = [[n == own for own in moves * len(around.targets)]
                     for n in range(around.noise)]  # fmt: skip
            self.mix = nnx.Param(jnp.asarray(first, jnp.float32))

    def __call__(self, batch: Batch, train: bool) -> jax.Array:
        """(B, L, H, W) f32 in the data's unit, of `fields`, `present`, `phase`, `origin`, `key`."""
        x = self.normalized(batch)
        answer = self._answer(x, batch, train, batch.get("key") if train else None, None)
        return self._raised(self._placed(answer, x, batch), train)

    def members(self, batch: Batch, train: bool, count: int, dropout: bool = False) -> jax.Array:
        """(B, count, L, H, W) as of `__call__`: an ensemble, each member of its own draw of noise
        and, in training or with `dropout`, of the channels that are left out.

        (B, 1, L, H, W) where nothing is drawn. In training draws are of the example's key, else of
        its last day. Members are made one after the other, so that, but for training, memory is
        one's.
        """
        if not self.around.noise and (train or not dropout):
            return self(batch, train)[:, None]
        x = self.normalized(batch)
        one = functools.partial(self._drawn, x, batch, train, dropout)
        if train:  # where statistics may move, which a loop of jax would not let them
            answers = [one(n) for n in range(count)]
        else:
            answers = [*jax.lax.map(one, jnp.arange(count))]
        middle = self._placed(jnp.zeros_like(answers[0]), x, batch)
        scale = self.target_scale(batch)
        return self._raised(jnp.stack([middle + y * scale for y in answers], axis=1), train)

    def member(self, batch: Batch, n: jax.typing.ArrayLike, dropout: bool = False) -> jax.Array:
        """(B, L, H, W): the n-th of `members` alone, outside of training."""
        x = self.normalized(batch)
        answer = self._drawn(x, batch, False, dropout, n)
        return self._raised(self._placed(answer, x, batch), False)

    def _drawn(
        self, x: jax.Array, batch: Batch, train: bool, dropout: bool, n: jax.typing.ArrayLike
    ) -> jax.Array:
        """`_answer` of the n-th member."""
        last = split(batch["phase"])[0][:, x.shape[1] - 1]
        keys = batch["key"] if train else keys_of_days(last)
        count, cells = self.around.noise, (x.shape[2], x.shape[3])
        noise = smooth_noise(keys, n, count, cells) if count else None
        return self._answer(
            x, batch, train, member_keys(keys, n) if train or dropout else None, noise
        )

    def _raised(self, forecasts: jax.Array, train: bool) -> jax.Array:
        """No forecast below the floor; in training they are let be, for nothing is learnt there."""
        if train or not self.around.floor:
            return forecasts
        free = len(self.around.targets) - len(self.around.floor)
        floors = np.repeat((*self.around.floor, *(-math.inf,) * free), self.around.leads)
        each = floors.astype(np.float32).reshape(*(1,) * (forecasts.ndim - 3), -1, 1, 1)
        return jnp.maximum(forecasts, each)

    def _answer(
        self,
        x: jax.Array,
        batch: Batch,
        train: bool,
        keys: jax.Array | None,
        noise: jax.Array | None,
    ) -> jax.Array:
        """(B, L, H, W) of the network, normalised. keys: of dropout, None for none; noise:
        (B, H, W, noise), None for 0."""
        y = self.network(self._inputs(x, batch, noise), train, keys)
        expected = (x.shape[0], self.around.maps, *x.shape[2:4])
        require_shape("model.name", type(self.network).__name__, y, expected)
        if not self.around.noise:
            return y
        moved = 0.0 if noise is None else jnp.einsum("bhwn,nl->blhw", noise, self.mix[...])
        spread = self._crop(batch, jnp.moveaxis(self.spread[...], 0, -1))
        return (y + moved) * jnp.moveaxis(spread, -1, 1)

    def _placed(self, y: jax.Array, x: jax.Array, batch: Batch) -> jax.Array:
        """A normalised answer on the prior, in the data's unit."""
        y = y + self._prior(x, batch)
        days = batch["phase"][:, batch["fields"].shape[1] :]
        usual = self._each(lambda n: self._usual(batch, days, slice(n, n + 1))[..., 0])
        return usual + y * self.target_scale(batch)

    def _each(self, maps_of: Callable[[int], jax.Array]) -> jax.Array:
        """(B, K L, ...) of what is (B, L or 1, ...) for the channel of a target; of one target as
        it is."""
        each = [maps_of(channel) for channel in self.around.targets]
        if len(each) == 1:
            return each[0]
        leads = self.around.leads
        wide = [jnp.broadcast_to(m, (m.shape[0], leads, *m.shape[2:])) for m in each]
        return jnp.concatenate(wide, axis=1)

    def normalized(self, batch: Batch) -> jax.Array:
        """(B, T, H, W, C): (fields - centre) / scale, 0 where missing."""
        fields = batch["fields"]
        usual = self._usual(batch, batch["phase"][:, : fields.shape[1]], slice(None))
        x = (fields - usual) / self._crop(batch, self.scale[...])[:, None]
        return jnp.where(batch["present"] > 0, x, 0)

    def target_scale(self, batch: Batch) -> jax.Array:
        """(B or 1, 1, H or 1, W or 1): what one normalised unit of the target is; of K targets
        (…, K L, …)."""
        return self._each(lambda n: self._crop(batch, self.scale[..., n])[:, None])

    def area_of(self, batch: Batch) -> jax.Array:
        """(B or 1, 1, h, 1) share of the sphere of each row's cells, 1 on average."""
        height = batch["fields"].shape[2]
        maps = jnp.broadcast_to(self.area[...][:, None], self.around.grid)
        return self._crop(batch, maps)[:, None, :height, :1]

    def _usual(self, batch: Batch, phase: jax.Array, channels: slice) -> jax.Array:
        """(B, N, H, W, C) centre of some channels at phases of N days; as sums over terms,
        so that it fuses into whatever reads it."""
        terms = self._crop(batch, jnp.moveaxis(self.centre[..., channels], 0, -1))
        total = terms[:, None, ..., 0]
        for term, wave in enumerate(cycles(phase, self.around.terms, self.around.daily)):
            total = total + terms[:, None, ..., term + 1] * wave[:, :, None, None, None]
        return total

    def _crop(self, batch: Batch, maps: jax.Array) -> jax.Array:
        """(B, h, w, ...) parts of maps (H, W, ...) under each example; (1, 1, ...) stays."""
        size = batch["fields"].shape[2:4]
        if maps.shape[:2] in ((1, 1), size):
            return maps[None]

        def cut(origin: jax.Array) -> jax.Array:
            start = [origin[0], origin[1]] + [jnp.zeros_like(origin[0])] * (maps.ndim - 2)
            return jax.lax.dynamic_slice(maps, start, (*size, *maps.shape[2:]))

        return jax.vmap(cut)(batch["origin"])

    def _inputs(self, x: jax.Array, batch: Batch, noise: jax.Array | None) -> jax.Array:
        parts = [x]
        year, day = split(batch["phase"][:, : x.shape[1]])
        if self.around.static:
            static = self._crop(batch, self.static[...])[:, None]
            parts.append(jnp.broadcast_to(static, (*x.shape[:4], static.shape[-1])))
        if self.around.season:
            parts.append(_everywhere(waves(year, 3), x))
        if self.around.clock and day is not None:
            parts.append(_everywhere(waves(day, 3), x))
        if self.around.noise:
            shape = (*x.shape[:4], self.around.noise)
            fields = jnp.zeros(shape) if noise is None else noise[:, None]
            parts.append(jnp.broadcast_to(fields, shape))
        return jnp.concatenate(parts, axis=-1) if len(parts) > 1 else x

    def _prior(self, x: jax.Array, batch: Batch) -> jax.Array:
        """(B, L or 1, H, W) what the network's answer is added to, normalised."""
        last = self._each(lambda n: x[:, -1:, :, :, n])
        found = jnp.zeros_like(last) if self.around.prior == "none" else last
        if self.around.prior in ("damped", "linear"):
            damping = self._crop(batch, jnp.moveaxis(self.damping[...], 0, -1))
            found = last * jnp.moveaxis(damping, -1, 1)
        if not self.around.local[1]:
            return found
        weights = self.linear[...] if self.around.prior == "linear" else self.local[...]
        recent = flat(x[:, -self.around.local[1] :])
        found = found + leads_first(shared_map(recent, weights, self.around.periodic))
        if self.around.wide:
            found = found + leads_first(wide_map(recent, self.wide[...], self.around.periodic))
        if self.around.place:
            where = self._crop(batch, jnp.asarray(places(self.around.grid)))
            found = found + leads_first(placed_map(x[:, -1], self.place[...], where))
        for n, days in enumerate(self.around.means):
            found = found + self._mean(x, days) * self.slow[n][None, :, None, None]
        return found

    def _mean(self, x: jax.Array, days: int) -> jax.Array:
        """(B, 1 or K L, H, W) of the targets over their last days."""
        return self._each(lambda n: x[:, -days:, ..., n].mean(axis=1)[:, None])


def _everywhere(values: Sequence[jax.Array], x: jax.Array) -> jax.Array:
    """(B, T, H, W, n) maps of n numbers (B, T) for the days of x."""
    maps = jnp.stack(values, axis=-1)[:, :, None, None]
    return jnp.broadcast_to(maps, (*x.shape[:4], len(values)))
