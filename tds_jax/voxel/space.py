"""Volumes to turn and look into: one HTML file that needs nothing else, no network either."""

import html
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tds_jax.data.whole_file import whole_file
from tds_jax.voxel.data.resize import Geometry

MOST_POINTS = 40_000  # of a volume; more are thinned out evenly, and that is said
SCRIPT = Path(__file__).with_name("space.js")
COLOURS = ("#d95f0e", "#1f77b4", "#2ca02c", "#7f7f7f", "#9467bd")
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ margin: 0; font: 15px system-ui, sans-serif; color: #222; background: #fff }}
header {{ padding: 8px 14px }} h1 {{ font-size: 17px; margin: 0 0 6px }}
label {{ margin-right: 18px }} i {{ display: inline-block; width: 11px; height: 11px }}
canvas {{ display: block; width: 100vw; cursor: grab; touch-action: none }}
</style>
<header><h1>{title}</h1><form id="names">{names}</form>
<small>drag to turn, wheel to come nearer, shift and drag to move; axes in metres</small></header>
<canvas id="space"></canvas>
<script>const volumes = {volumes}; const box = {box};
{script}</script></html>
"""


def write_space(
    path: Path, volumes: Mapping[str, np.ndarray], geometry: Geometry, title: str
) -> Path:
    """volumes: (D, H, W, 4) by name, channel 0 above 0 where occupied; each can be hidden."""
    shown, names = [], []
    for i, (name, volume) in enumerate(volumes.items()):
        points = geometry.points(volume[..., 0] > 0)
        every = max(1, -(-len(points) // MOST_POINTS))
        colour = COLOURS[i % len(COLOURS)]
        shown.append({"colour": colour, "points": np.round(points[::every], 2).ravel().tolist()})
        words = f"{html.escape(name)}, {len(points):,} voxels"
        words += f", one in {every} drawn" if every > 1 else ""
        square = f'<i style="background:{colour}"></i>'
        names.append(f'<label><input type="checkbox" checked> {square} {words}</label>')
    (z, x, y), (dz, dx, dy) = geometry.lower, geometry.size
    depth, height, width = geometry.shape
    box = [x, x + dx * height, y, y + dy * width, z, z + dz * depth, max(dx, dy)]
    text = PAGE.format(
        title=html.escape(title),
        names="".join(names),
        volumes=json.dumps(shown, separators=(",", ":")),
        box=json.dumps([round(float(value), 3) for value in box]),
        script=SCRIPT.read_text(),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        temporary.write_text(text)
    return path
