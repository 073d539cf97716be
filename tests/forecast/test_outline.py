"""Coastlines lie where the map has their longitudes, and leave its limits alone."""

import numpy as np
import pytest

from tds_jax.drawing import new_figure
from tds_jax.forecast import figures, outline

SHORE = np.array([[-10, 40], [-5, 41], [5, 42], [10, 43]], "<f4")
LAKE = np.array([[0, 1], [2, 3]], "<f4")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A lake and a shore across Greenwich, in the package's format."""
    (tmp_path / "gshhs_c.dat").write_bytes(LAKE.tobytes() + SHORE.tobytes())
    rows = f"2 9.5 2 1 3 0 {LAKE.nbytes} 7\n1 9.5 4 40 43 {LAKE.nbytes} {SHORE.nbytes} 8\n"
    (tmp_path / "gshhsmeta_c.dat").write_text(rows)
    monkeypatch.setattr(outline, "_folder", lambda: tmp_path)
    outline.coastlines.cache_clear()
    yield
    outline.coastlines.cache_clear()


def test_a_shore_is_at_the_maps_own_longitudes_and_cut_where_it_leaves_them(package):
    (whole,) = outline.placed(np.arange(-180.0, 180.0))
    np.testing.assert_array_equal(whole, SHORE)
    right, left = outline.placed(np.arange(0.0, 360.0))
    np.testing.assert_array_equal(right - [360, 0], SHORE[:2])
    np.testing.assert_array_equal(left, SHORE[2:])


def test_a_map_shows_it_and_keeps_its_limits(package):
    axis = new_figure(2, 2).subplots()
    canvas = figures.Canvas(np.array([42.0, 40.0]), np.array([-2.0, 0.0, 2.0]), "x", "1")
    canvas.draw(axis, np.zeros((2, 3)))
    (line,) = axis.collections[-1].get_paths()
    np.testing.assert_array_equal(line.vertices, SHORE)
    assert (axis.get_xlim(), axis.get_ylim()) == ((-3.0, 3.0), (39.0, 43.0))


def test_without_the_package_there_is_none(monkeypatch):
    monkeypatch.setattr(outline, "PACKAGE", "mpl_toolkits.absent")
    outline.coastlines.cache_clear()
    assert outline.coastlines() == ()
    outline.coastlines.cache_clear()
