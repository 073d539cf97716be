"""Renders show every volume in its place, alike coloured, and never fail on an empty one."""

import json
import re

import numpy as np
import pytest

from tds_jax.voxel import figures, space
from tds_jax.voxel.data.resize import Geometry

SHAPE = (4, 6, 8)
GEOMETRY = Geometry.of((0, 12, -8, 8, -2, 6), (6, 8, 4))  # 2 m voxels


def volume(*places):
    array = np.zeros((*SHAPE, 4), np.float32)
    for place in places:
        array[place] = (1, 30, -4, 1)
    return array


def drawn(tmp_path, monkeypatch, volumes):
    save, seen = figures.save, {}

    def look(figure, path, **options):
        seen["axes"] = [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]
        save(figure, path, **options)

    monkeypatch.setattr(figures, "save", look)
    figures.draw_frames(tmp_path / "a.png", volumes, GEOMETRY, "title")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    views = len(figures.VIEWS)
    return [seen["axes"][i : i + views] for i in range(0, len(seen["axes"]), views)]


@pytest.mark.filterwarnings("error")
def test_every_volume_is_a_row_in_metres(tmp_path, monkeypatch):
    volumes = {"radar": volume((3, 5, 0)), "truth": volume((1, 2, 7), (1, 0, 7))}
    rows = drawn(tmp_path, monkeypatch, volumes)
    assert [row[0].get_ylabel().splitlines()[:2] for row in rows] == [
        ["radar", "1 voxels"],
        ["truth", "2 voxels"],
    ]
    above, layer, side, space, doppler = rows[0]
    image = above.get_images()[0]
    # y runs to the left: the picture's first column is y = 8 m, array column 7
    assert tuple(image.get_extent()) == (8, -8, 0, 12)
    places = np.argwhere(~np.ma.getmaskarray(image.get_array()))
    assert places.tolist() == [[5, 7]]
    assert image.get_array()[5, 7] == 5  # centre of the highest of four 2 m voxels from -2 m
    assert tuple(side.get_images()[0].get_extent()) == (0, 12, -2, 6)
    assert layer.get_title() == "slice at z = 1 m"  # where the truth is
    offsets = np.stack(space.collections[0]._offsets3d, axis=1)
    np.testing.assert_allclose(offsets, [[11, -7, 5]])
    assert doppler.get_images()[0].get_array()[5, 7] == -4
    scales = [row[k].get_images()[0].get_clim() for row in rows for k in (0, 1, 4)]
    assert scales == [(-2, 6), (0, 30), (-4, 4)] * 2


def test_fine_grids_are_drawn_in_squares_that_lose_no_voxel(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "MAX_CELLS", 3)  # 6 x 8 cells become 2 x 3 squares of 3 x 3
    fast = volume((3, 5, 0), (0, 0, 7), (0, 1, 6))
    fast[0, 0, 7, 2] = 2  # beside -4 in its square
    (row,) = drawn(tmp_path, monkeypatch, {"radar": fast})
    above, doppler = (row[k].get_images()[0] for k in (0, 4))
    # the last column of squares is one cell wider than the grid: y to 10 m
    assert tuple(above.get_extent()) == (10, -8, 0, 12)
    np.testing.assert_array_equal(
        above.get_array().filled(np.nan), [[-1, np.nan, np.nan], [np.nan, np.nan, 5]]
    )
    assert doppler.get_array()[0, 0] == -4
    assert tuple(row[2].get_images()[0].get_extent()) == (0, 12, -2, 6)


@pytest.mark.filterwarnings("error")
def test_empty_and_full_volumes_are_drawn(tmp_path, monkeypatch):
    full = np.ones((*SHAPE, 4), np.float32)
    rows = drawn(tmp_path, monkeypatch, {"none": volume(), "all": full, "truth": volume()})
    assert len(rows) == 3
    assert np.ma.getmaskarray(rows[0][0].get_images()[0].get_array()).all()
    assert not np.ma.getmaskarray(rows[1][0].get_images()[0].get_array()).any()


def test_a_scatter_has_a_bounded_number_of_points(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "MAX_POINTS", 50)
    rows = drawn(tmp_path, monkeypatch, {"all": np.ones((*SHAPE, 4), np.float32)})
    assert 25 <= len(rows[0][3].collections[0]._offsets3d[0]) <= 50


def test_values_below_zero_and_counts_of_all_rows_are_inside_the_colours(tmp_path, monkeypatch):
    dark = volume((1, 2, 7), (1, 2, 6), (1, 2, 5))
    dark[..., 1] = -25 * dark[..., 0]
    rows = drawn(tmp_path, monkeypatch, {"radar": dark, "truth": volume((1, 2, 7))})
    for row in rows:
        assert row[1].get_images()[0].get_clim() == (-25, 30)
        assert row[2].get_images()[0].get_clim() == (0, np.log1p(3))


def test_a_page_to_turn_has_every_voxels_place_and_needs_nothing_else(tmp_path):
    volumes = {"radar & <b>": volume((3, 5, 0)), "truth": volume((1, 2, 7), (1, 0, 7))}
    text = space.write_space(tmp_path / "a.html", volumes, GEOMETRY, "frame <1>").read_text()
    shown = json.loads(re.search(r"const volumes = (\[.*?\]);", text)[1])
    assert [one["points"] for one in shown] == [[11, -7, 5], [1, 7, 1, 5, 7, 1]]
    assert json.loads(re.search(r"const box = (\[.*?\]);", text)[1]) == [0, 12, -8, 8, -2, 6, 2]
    assert "radar &amp; &lt;b&gt;, 1 voxels" in text
    assert "<title>frame &lt;1&gt;</title>" in text
    assert not re.search(r"https?://|src=|href=|import\(|fetch\(", text)
