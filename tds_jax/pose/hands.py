"""A hand drawn from predicted and true landmarks over time: a strip of moments, and a film."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tds_jax.data.whole_file import whole_file
from tds_jax.drawing import new_figure, save
from tds_jax.pose.figures import Trace
from tds_jax.pose.kinematics import HandModel, landmarks

MOMENTS = 6
FRAMES, FRAMES_PER_SECOND = 24, 8
# From the wrist to each tip, by the numbers of landmarks.
FINGERS = ((5, 6, 7, 0), *((5, 8 + 3 * f, 9 + 3 * f, 10 + 3 * f, 1 + f) for f in range(4)))
# Seen from above the back of the hand, a little from its side: degrees about x, then y, then z.
VIEW = (-55.0, 0.0, 25.0)
TRUE, PREDICTED = "0.6", "C1"
SCALE = 50  # mm, of the bar in each picture


Limits = tuple[np.ndarray, np.ndarray]


def draw_hands(folder: Path, name: str, trace: Trace, hand: HandModel, rate_hz: float) -> None:
    """<name>.png, moments of the window beside each other, and <name>.gif, all of it.

    Moments have a valid label, of which there must be one. Each says how far the landmarks are
    apart, their mean in mm.
    """
    counted = np.flatnonzero(trace.weight > 0)
    rows = counted[np.linspace(0, len(counted) - 1, FRAMES).round().astype(int)]
    both = jnp.asarray(np.stack([trace.target[rows], trace.poses[rows]]))
    points = np.asarray(jax.jit(landmarks)(hand, both))
    apart = np.linalg.norm(points[0] - points[1], axis=-1).mean(axis=-1)
    seen = dict(zip((TRUE, PREDICTED), _seen(points), strict=True))
    every = np.concatenate([*seen.values()]).reshape(-1, 2)
    limits = (every.min(axis=0) - 10, every.max(axis=0) + 10)
    titles = [
        f"{row / rate_hz:.2f} s\n{gap:.0f} mm apart" for row, gap in zip(rows, apart, strict=True)
    ]
    chosen = np.unique(np.linspace(0, FRAMES - 1, MOMENTS).round().astype(int))
    _strip(folder / f"{name}.png", seen, limits, titles, chosen)
    _film(folder / f"{name}.gif", seen, limits, titles)


def _seen(points: np.ndarray) -> np.ndarray:
    """(..., 3) mm -> (..., 2) mm on the picture, from VIEW."""
    a, b, c = np.radians(VIEW)
    about_x = [[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]
    about_y = [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]
    about_z = [[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]]
    turn = np.array(about_x) @ np.array(about_y) @ np.array(about_z)
    return (points @ turn.T)[..., :2]


def _draw(axis: Any, points: dict[str, np.ndarray], limits: Limits) -> None:
    """Hands (21, 2) by their colour."""
    for colour, hand in points.items():
        for i, finger in enumerate(FINGERS):
            label = ("true" if colour == TRUE else "predicted") if i == 0 else None
            line = hand[list(finger)]
            width = 4 if colour == TRUE else 1.5  # the wider one shows beneath the other
            axis.plot(*line.T, "-o", color=colour, lw=width, ms=width, label=label)
    (left, bottom), (right, top) = limits
    axis.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    axis.plot([left + 5, left + 5 + SCALE], [bottom + 5] * 2, color="0.5", lw=1)
    axis.text(left + 5, bottom + 8, f"{SCALE} mm", fontsize=7, color="0.5")
    axis.set_xticks([])
    axis.set_yticks([])


def _strip(
    path: Path,
    seen: dict[str, np.ndarray],
    limits: Limits,
    titles: list[str],
    chosen: np.ndarray,
) -> None:
    figure = new_figure(2.1 * len(chosen), 3.2)
    axes = figure.subplots(1, len(chosen), squeeze=False)
    for axis, i in zip(axes[0], chosen, strict=True):
        _draw(axis, {colour: hands[i] for colour, hands in seen.items()}, limits)
        axis.set_title(titles[i], fontsize=9)
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle("the hand over time")
    save(figure, path)


def _film(
    path: Path,
    seen: dict[str, np.ndarray],
    limits: tuple[np.ndarray, np.ndarray],
    titles: list[str],
) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from PIL import Image

    pictures = []
    figure = new_figure(3.2, 3.6)
    canvas, axis = FigureCanvasAgg(figure), figure.subplots()
    for i, title in enumerate(titles):
        axis.clear()
        _draw(axis, {colour: hands[i] for colour, hands in seen.items()}, limits)
        axis.set_title(title.replace("\n", ", "), fontsize=9)
        if i == 0:
            handles = axis.get_legend_handles_labels()
            figure.legend(*handles, loc="outside lower center", ncols=2, frameon=False)
        canvas.draw()
        pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("P"))
    with whole_file(path) as temporary:
        pictures[0].save(
            temporary, format="GIF", save_all=True, append_images=pictures[1:], loop=0,
            duration=1000 // FRAMES_PER_SECOND,
        )  # fmt: skip
