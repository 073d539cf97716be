"""Figures show the window that moves, leave gaps where labels failed, and never fail on masks."""

import numpy as np
import pytest

from tds_jax.engine.report import Report, Row
from tds_jax.pose import figures
from tds_jax.pose.figures import Trace

PNG = b"\x89PNG"


def batch(joints, windows=3, steps=40):
    rng = np.random.default_rng(0)
    size = 0.1 * np.arange(1, windows + 1)[:, None, None]
    target = (size * rng.normal(size=(windows, steps, joints))).astype(np.float32)
    weight = np.ones((windows, steps), np.float32)
    return {"joint_angles": target, "weight": weight}, target + 0.01


def test_the_trace_is_the_window_with_most_movement_in_counted_rows():
    found, poses = batch(5)
    assert np.array_equal(Trace.of(found, poses).target, found["joint_angles"][2])
    found["weight"][2] = 0
    assert np.array_equal(Trace.of(found, poses).target, found["joint_angles"][1])
    found["weight"][1, 1:] = 0  # one row does not move
    assert np.array_equal(Trace.of(found, poses).target, found["joint_angles"][0])


def test_one_joint_per_finger_is_shown_the_one_that_moves_most():
    found, poses = batch(20)
    for j in (1, 7, 8, 14, 19):
        found["joint_angles"][2, :, j] *= 30
    assert figures._chosen(Trace.of(found, poses)) == [1, 7, 8, 14, 19]
    assert figures._chosen(Trace.of(*batch(5))) == [0, 1, 2, 3, 4]
    assert figures._chosen(Trace.of(*batch(3))) == [0, 1, 2]
    assert figures._chosen(Trace.of(*batch(9))) == list(range(6))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("joints", [1, 5, 20])
@pytest.mark.parametrize("counted", [0, 1, 40])
def test_angles_are_drawn_whatever_the_mask(tmp_path, joints, counted):
    found, poses = batch(joints)
    found["weight"][:, counted:] = 0
    figures.draw_angles(tmp_path / "a.png", Trace.of(found, poses), 50.0, "test")
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)


def test_true_angles_have_gaps_where_the_label_failed(tmp_path, monkeypatch):
    found, poses = batch(3)
    found["weight"][:, 10:20] = 0
    drawn = {}
    pyplot = figures._pyplot()
    close = pyplot.close

    def look(figure):
        for line in figure.axes[0].get_lines():
            drawn[line.get_label()] = line.get_xydata()
        close(figure)

    monkeypatch.setattr(pyplot, "close", look)
    figures.draw_angles(tmp_path / "a.png", Trace.of(found, poses), 50.0, "test")
    assert np.flatnonzero(np.isnan(drawn["true"][:, 1])).tolist() == list(range(10, 20))
    assert np.isfinite(drawn["predicted"]).all()
    np.testing.assert_allclose(drawn["true"][1, 0], 0.02)  # seconds at 50 Hz
    np.testing.assert_allclose(drawn["true"][0, 1], np.degrees(found["joint_angles"][2, 0, 0]))


def test_methods_without_a_number_are_left_out(tmp_path):
    rows = [
        Row("test", "all", name, "mae_deg", value, None, 1.0)
        for name, value in (("model", 3.0), ("ridge", float("nan")), ("zero", 9.0))
    ]
    figures.draw_methods(tmp_path / "m.png", Report(rows, ("mae_deg",), ()), "test")
    assert (tmp_path / "m.png").read_bytes().startswith(PNG)
