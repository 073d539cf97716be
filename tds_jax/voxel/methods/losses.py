"""What a volume is charged for against the truth: one f32 number per example, (B,).

Volumes are (B, D, H, W, C) with channel 0 the occupancy; a cell of the truth is occupied where that
is above 0. Nothing here mixes examples, so that sums over micro-batches are sums over the batch.
The 4D-Radar project takes some of its ratios over whole batches instead; with one example at a
time, as it trains, they are the same.
"""

import jax
import jax.numpy as jnp
import numpy as np

FLOOR = 1e-6
DICE_SMOOTH = 1.0  # cells: keeps the ratio defined, and calm, where nearly nothing is occupied


def _mean(x: jax.Array) -> jax.Array:
    """(B, ...) -> (B,)."""
    return jnp.mean(x, axis=tuple(range(1, x.ndim)), dtype=jnp.float32)


def _sum(x: jax.Array) -> jax.Array:
    """(B, ...) -> (B,)."""
    return jnp.sum(x, axis=tuple(range(1, x.ndim)), dtype=jnp.float32)


def occupied(volume: jax.Array) -> jax.Array:
    """(B, D, H, W) f32: 1 where channel 0 is above 0."""
    return (volume[..., 0] > 0).astype(jnp.float32)


def mse(output: jax.Array, target: jax.Array) -> jax.Array:
    """Mean squared error over all cells and channels."""
    return _mean((output - target).astype(jnp.float32) ** 2)


def weighted(
    output: jax.Array,
    target: jax.Array,
    *,
    occupied_weight: float,
    channel_weights: tuple[float, ...],
    false_positive_weight: float,
    mass_weight: float,
) -> jax.Array:
    """Squared error weighted by occupancy and channel, and two charges on channel 0.

    Weighted error: occupied cells count `occupied_weight`, empty ones 1; divided by the mean
    weights. False positives: positive output in empty cells, squared. Mass: the difference of the
    mean positive output and the mean positive truth.
    """
    output, target = output.astype(jnp.float32), target.astype(jnp.float32)
    full = occupied(target)
    cells = 1 + (occupied_weight - 1) * full
    channels = np.asarray(channel_weights, np.float32)
    squared = cells[..., None] * channels.reshape(1, 1, 1, 1, -1) * (output - target) ** 2
    scale = jnp.maximum(_mean(cells), FLOOR) * max(float(channels.mean()), FLOOR)
    positive, true = jax.nn.relu(output[..., 0]), jax.nn.relu(target[..., 0])
    excess = jax.nn.relu(output[..., 0] - target[..., 0]) ** 2 * (1 - full)
    mass = jnp.abs(_mean(positive) - _mean(true))
    return _mean(squared) / scale + false_positive_weight * _mean(excess) + mass_weight * mass


def occupancy_aware(output: jax.Array, target: jax.Array) -> jax.Array:
    """Squared error; cells weigh 1, + 4 where occupied, + 2 where the 3 x 3 x 3 cells are mixed.

    Cells outside the grid count as empty, so occupied ones at its border are mixed.
    """
    full = occupied(target)
    count = jax.lax.reduce_window(full, 0.0, jax.lax.add, (1, 3, 3, 3), (1, 1, 1, 1), "SAME")
    boundary = ((count > 0) & (count < 27)).astype(jnp.float32)
    weight = 1 + 4 * full + 2 * boundary
    return _mean(weight[..., None] * (output - target).astype(jnp.float32) ** 2)


def structure(output: jax.Array, target: jax.Array) -> jax.Array:
    """Mean difference of the Sobel edge strength of channel 0; cells outside the grid are 0."""
    return _mean(jnp.abs(_edges(output) - _edges(target)))


def _edges(volume: jax.Array) -> jax.Array:
    smooth, step = np.array([1, 2, 1], np.float32), np.array([-1, 0, 1], np.float32)
    rows = [[step if axis == k else smooth for axis in range(3)] for k in range(3)]
    kernels = [np.einsum("d,h,w->dhw", *three) / 16 for three in rows]
    gradient = jax.lax.conv_general_dilated(
        volume[..., :1].astype(jnp.float32),
        jnp.asarray(np.stack(kernels, axis=-1)[..., None, :]),
        (1, 1, 1),
        ((1, 1),) * 3,
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
    )
    return jnp.sqrt(jnp.sum(gradient**2, axis=-1) + FLOOR)


def cross_entropy(
    logit: jax.Array, full: jax.Array, cells: jax.Array, *, occupied_weight: float, gamma: float
) -> jax.Array:
    """Weighted mean over cells of the occupancy logits' cross-entropy, in nats.

    logit, full: (B, D, H, W). cells: the same, 0 where a cell does not count, else 1. Occupied
    cells weigh `occupied_weight`, empty ones 1. gamma above 0 is the focal form: a cell that is
    right with probability p weighs (1 - p)^gamma as much.
    """
    logit = logit.astype(jnp.float32)
    wrong = jnp.where(full > 0, -logit, logit)  # log-odds of the wrong answer
    weight = cells * (1 + (occupied_weight - 1) * full)
    charge = jax.nn.softplus(wrong)
    if gamma:
        # Not a power: where the chance is 0 to f32, its slope at gamma below 1 is infinite.
        charge = charge * jnp.exp(gamma * jax.nn.log_sigmoid(wrong))
    return _ratio(_sum(weight * charge), _sum(weight))


def dice(probability: jax.Array, full: jax.Array, cells: jax.Array) -> jax.Array:
    """1 - 2 |A and B| / (|A| + |B|) with probabilities as memberships; each example its own.

    probability, full: (B, D, H, W). cells: the same, 0 where a cell does not count, else 1.
    """
    probability = cells * probability.astype(jnp.float32)
    both = 2 * _sum(probability * full) + DICE_SMOOTH
    return 1 - both / (_sum(probability) + _sum(cells * full) + DICE_SMOOTH)


def features(output: jax.Array, target: jax.Array, cells: jax.Array, *, squared: bool) -> jax.Array:
    """Mean error of the values that count; 0 for an example without any.

    output, target, cells: (B, D, H, W, F), cells 0 where a value does not count, else 1. squared:
    of squares, else absolute.
    """
    error = (output - target).astype(jnp.float32)
    cost = error**2 if squared else jnp.abs(error)
    return _ratio(_sum(cells * cost), _sum(cells))


def _ratio(value: jax.Array, weight: jax.Array) -> jax.Array:
    """(B,) value / weight, 0 where the weight is 0."""
    return value / jnp.where(weight > 0, weight, 1)
