"""Least squares from sums that add up, so that days can be left out of them and judge them."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np

from tds_jax.data.crew import Crew

# Times the ridge that a config names: what a lead may choose from.
STEPS = (1.0, 3.0, 10.0, 30.0, 100.0)


@dataclasses.dataclass
class Sums:
    """Of rows with F inputs x and L targets y, f64.

    whole: Σ xxᵀ (F, F) over rows with all targets. parts: the same (L, F, F) over rows that lack
    some, or None. product: Σ xy (L, F). square: Σ y² (L,).
    """

    whole: np.ndarray
    parts: np.ndarray | None
    product: np.ndarray
    square: np.ndarray

    @classmethod
    def of(cls, inputs: int, leads: int) -> Self:
        """Of no row."""
        return cls(np.zeros((inputs, inputs)), None, np.zeros((leads, inputs)), np.zeros(leads))

    def add(self, x: np.ndarray, y: np.ndarray, known: np.ndarray) -> None:
        """x (N, F) f64; y (L, N), 0 where it is not known; known (L, N)."""
        whole = known.all(axis=0)
        self.whole += x[whole].T @ x[whole] if not whole.all() else x.T @ x
        if not whole.all():
            if self.parts is None:
                self.parts = np.zeros((len(y), *self.whole.shape))
            for lead, there in enumerate(known & ~whole):
                self.parts[lead] += x[there].T @ x[there]
        self.product += y @ x
        self.square += np.square(y).sum(axis=1)

    def __add__(self, other: Self) -> Self:
        parts = [each.parts for each in (self, other) if each.parts is not None]
        return type(self)(
            self.whole + other.whole,
            np.sum(parts, axis=0) if parts else None,
            self.product + other.product,
            self.square + other.square,
        )

    def merged(self, crew: Crew) -> Self:
        """With those of a crew's other members."""
        sums = [self.whole, self.product, self.square]
        if any(crew.gather(self.parts is not None)):
            shape = len(self.square), *self.whole.shape
            sums.append(np.zeros(shape) if self.parts is None else self.parts)
        whole, product, square, *parts = crew.add(sums)
        return type(self)(whole, parts[0] if parts else None, product, square)

    def solve(self, ridges: Sequence[float]) -> np.ndarray:
        """(F, L) weights; ridges: of each lead, as shares of the inputs' mean square."""
        if self.parts is not None:
            each = (self.whole + part for part in self.parts)
            solved = [_solve(*one) for one in zip(each, self.product, ridges, strict=True)]
            return np.stack(solved, axis=1)
        weights, shares = np.zeros(self.product.shape), np.asarray(ridges)
        for share in np.unique(shares):  # one factorisation for all its leads
            weights[shares == share] = _solve(self.whole, self.product[shares == share].T, share).T
        return weights.T

    def left(self, weights: np.ndarray) -> np.ndarray:
        """(L,) Σ (y - wx)² of weights (F, L)."""
        each = np.einsum("fl,fg,gl->l", weights, self.whole, weights, optimize=True)
        if self.parts is not None:
            each += np.einsum("fl,lfg,gl->l", weights, self.parts, weights, optimize=True)
        return self.square - 2 * (weights * self.product.T).sum(axis=0) + each

    def reduced(self, weights: np.ndarray, rank: int) -> np.ndarray:
        """Weights of which so many mixtures of leads are left: those that explain most."""
        gram = self.whole if self.parts is None else self.whole + self.parts.mean(axis=0)
        _, mixtures = np.linalg.eigh(weights.T @ gram @ weights)
        most = mixtures[:, -rank:]
        return weights @ most @ most.T


def _solve(gram: np.ndarray, product: np.ndarray, share: float) -> np.ndarray:
    typical = np.trace(gram) / len(gram)
    floor = share * typical if typical > 0 else 1.0
    return np.linalg.solve(gram + floor * np.eye(len(gram)), product)


class Chosen(NamedTuple):
    """weights (F, L) of everything; without: of everything but each fold, chosen alike."""

    weights: np.ndarray
    without: list[np.ndarray]


def chosen(folds: Sequence[Sums], between: Sequence[Sums], ridge: float) -> Chosen:
    """Weights whose ridge at each lead, and whose rank, are best on folds that were left out.

    between: what lies between a fold and the next, and shares days with both: left out with either.
    """
    rest = [_without(folds, between, n) for n in range(len(folds))]
    leads = len(folds[0].product)
    tried = [[one.solve([ridge * step] * leads) for step in STEPS] for one in rest]
    errors = sum(
        np.stack([fold.left(weights) for weights in each])
        for fold, each in zip(folds, tried, strict=True)
    )
    best = np.argmin(errors, axis=0)
    without = [np.stack([each[n][:, lead] for lead, n in enumerate(best)], 1) for each in tried]

    def error(rank: int) -> float:
        each = zip(folds, rest, without, strict=True)
        return float(sum(fold.left(one.reduced(own, rank)).sum() for fold, one, own in each))

    rank = min(range(1, leads + 1), key=error)
    everything = _sum([*folds, *between])
    weights = everything.solve([ridge * STEPS[n] for n in best])
    return Chosen(
        everything.reduced(weights, rank),
        [one.reduced(own, rank) for one, own in zip(rest, without, strict=True)],
    )


def _without(folds: Sequence[Sums], between: Sequence[Sums], fold: int) -> Sums:
    kept = [one for n, one in enumerate(folds) if n != fold]
    return _sum([*kept, *(one for n, one in enumerate(between) if n not in (fold - 1, fold))])


def _sum(parts: Sequence[Sums]) -> Sums:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
