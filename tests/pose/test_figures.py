"""Figures show the window that moves, leave gaps where labels failed, and never fail on masks."""

import numpy as np
import pytest

from tds_jax.engine.report import Report, Row
from tds_jax.pose import figures, hands
from tds_jax.pose.figures import Trace
from tds_jax.pose.joints import FINGERS, TWENTY
from tds_jax.pose.kinematics import default_hand

PNG = b"\x89PNG"


def batch(joints, windows=3, steps=40):
    rng = np.random.default_rng(0)
    size = 0.1 * np.arange(1, windows + 1)[:, None, None]
    target = (size * rng.normal(size=(windows, steps, joints))).astype(np.float32)
    weight = np.ones((windows, steps), np.float32)
    session = np.arange(windows)
    return {"joint_angles": target, "weight": weight, "session": session}, target + 0.01


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
    assert figures._chosen(Trace.of(found, poses), TWENTY) == [1, 7, 8, 14, 19]
    assert figures._chosen(Trace.of(*batch(5)), FINGERS) == [0, 1, 2, 3, 4]
    assert figures._chosen(Trace.of(*batch(3)), "abc") == [0, 1, 2]
    assert figures._chosen(Trace.of(*batch(9)), "abcdefghi") == list(range(6))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("joints", [1, 5, 20])
@pytest.mark.parametrize("counted", [0, 1, 40])
def test_angles_are_drawn_whatever_the_mask(tmp_path, joints, counted):
    found, poses = batch(joints)
    found["weight"][:, counted:] = 0
    figures.draw_angles(tmp_path / "a.png", Trace.of(found, poses), TWENTY[:joints], 50.0, "test")
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)


def test_true_angles_have_gaps_where_the_label_failed(tmp_path, monkeypatch):
    found, poses = batch(3)
    found["weight"][:, 10:20] = 0
    drawn = {}
    save = figures.save

    def look(figure, path, **options):
        for line in figure.axes[0].get_lines():
            drawn[line.get_label()] = line.get_xydata()
        save(figure, path, **options)

    monkeypatch.setattr(figures, "save", look)
    figures.draw_angles(tmp_path / "a.png", Trace.of(found, poses), TWENTY[:3], 50.0, "test")
    assert np.flatnonzero(np.isnan(drawn["true"][:, 1])).tolist() == list(range(10, 20))
    assert np.isfinite(drawn["predicted"]).all()
    np.testing.assert_allclose(drawn["true"][1, 0], 0.02)  # seconds at 50 Hz
    np.testing.assert_allclose(drawn["true"][0, 1], np.degrees(found["joint_angles"][2, 0, 0]))


def report(groups, metrics=("mae_deg", "landmark_mm"), spread=1.0):
    rows = [
        Row("test", group, name, metric, value, spread, 3.0)
        for group in groups
        for name, value in (("model", 3.0), ("linear", float("nan")), ("zero", 9.0))
        for metric in metrics
    ]
    return Report(rows, ("mae_deg",), ())


def drawn(monkeypatch, tmp_path, found):
    """What draw_methods puts on the axes: bar heights per axis, tick texts, title."""
    save, seen = figures.save, {}

    def look(figure, path, **options):
        axes = figure.axes
        seen["heights"] = [[bar.get_height() for bar in axis.patches] for axis in axes]
        seen["ticks"] = [text.get_text() for text in axes[-1].get_xticklabels()]
        seen["title"] = figure.get_suptitle()
        save(figure, path, **options)

    monkeypatch.setattr(figures, "save", look)
    figures.draw_methods(tmp_path / "m.png", found, "test")
    assert (tmp_path / "m.png").read_bytes().startswith(PNG)
    return seen


@pytest.mark.filterwarnings("error")
def test_methods_stand_side_by_side_for_every_generalization(tmp_path, monkeypatch):
    groups = ["all", "per_user/all"]
    for kind in ("user", "user_stage"):
        groups += [f"generalization/{kind}", f"per_user/generalization/{kind}"]
    seen = drawn(monkeypatch, tmp_path, report(groups))
    assert seen["ticks"] == ["user\n(3 users)", "user + stage\n(3 users)"]
    assert seen["title"] == "test: mean ± SD over users"
    for heights in seen["heights"]:
        np.testing.assert_array_equal(heights, [3, 3, np.nan, np.nan, 9, 9])
    assert len(seen["heights"]) == 2


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("spread", [None, 1.0])
def test_without_users_generalizations_or_landmarks_pooled_values_are_drawn(
    tmp_path, monkeypatch, spread
):
    seen = drawn(monkeypatch, tmp_path, report(["all"], ("mae_deg",), spread))
    assert seen["ticks"] == ["all"]
    assert seen["title"] == "test: all rows pooled"
    np.testing.assert_array_equal(seen["heights"], [[3, np.nan, 9]])


@pytest.mark.filterwarnings("error")
def test_a_hand_is_drawn_at_labelled_moments_with_the_distance_of_its_landmarks(
    tmp_path, monkeypatch
):
    found, _ = batch(20)
    found["weight"][2, :30] = 0
    poses = found["joint_angles"].copy()
    poses[2, 30:35] += np.float32(0.2)
    said, draw = [], hands._strip
    monkeypatch.setattr(hands, "FRAMES", 2)
    monkeypatch.setattr(hands, "_strip", lambda *given: (said.append(given), draw(*given)))
    hands.draw_hands(tmp_path, "a", Trace.of(found, poses), default_hand(), 10.0)
    ((_, seen, _, titles, _),) = said
    assert titles[0].startswith("3.00 s\n"), "the first row with a label"
    assert titles[1] == "3.90 s\n0 mm apart"
    assert int(titles[0].split()[2]) > 5
    gap = np.abs(seen[hands.TRUE] - seen[hands.PREDICTED]).max(axis=(1, 2))
    assert gap[0] > 5 > 0 == gap[1]  # mm
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)
    assert (tmp_path / "a.gif").read_bytes().startswith(b"GIF8")


def test_a_gap_is_grey_as_far_as_the_line_has_none():
    weight = np.array([1, 1, 0, 1, 1, 1, 0, 0], np.float32)
    np.testing.assert_array_equal(figures._gaps(weight), [0, 1, 1, 1, 0, 1, 1, 1])
