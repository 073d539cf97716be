"""Laws of the generated recordings: physics, file format, splits, reproducibility."""

import csv
import dataclasses

import h5py
import numpy as np
import pytest

from tds_jax.data import generated
from tds_jax.data.hdf5_write import write_session
from tds_jax.errors import UserError
from tds_jax.pose import gestures, motor_units, synthetic
from tds_jax.pose.synthetic import Simulation

SMALL = Simulation(
    users=2, sessions=3, seconds=2.0, sample_rate=1000.0, num_channels=8, units=4, seed=5
)


def rows(folder, name):
    with h5py.File(folder / f"{name}.hdf5") as file:
        return dict(file["emg2pose"].attrs), file["emg2pose/timeseries"][:]


def metadata(folder):
    with (folder / "metadata.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return generated.synthesize(tmp_path_factory.mktemp("data") / "small", SMALL)


def test_files_have_the_layout_of_the_real_recordings(folder):
    for row in metadata(folder):
        attrs, data = rows(folder, row["filename"])
        assert data.dtype["time"] == np.float64
        assert data.dtype["joint_angles"] == np.dtype(("<f4", (20,)))
        assert data.dtype["emg"] == np.dtype(("<f4", (8,)))
        assert len(data) == 2000
        assert {"dataset", "start", "end", "num_channels", "sample_rate"} <= set(attrs)
        for key in ("filename", "user", "session", "stage", "side"):
            assert attrs[key] == row[key]
        np.testing.assert_allclose(np.diff(data["time"]), 1e-3, atol=1e-9)  # eps of 1e5 s: 1.5e-11
        assert (attrs["start"], attrs["end"]) == (data["time"][0], data["time"][-1])
        assert np.isfinite(data["emg"]).all()


def test_compression_changes_the_size_and_not_the_rows(tmp_path):
    time, angles, emg = np.arange(70_000.0), np.zeros((70_000, 20)), np.ones((70_000, 4))
    emg[:, 0] = time
    for name, compression in (("plain", None), ("small", "gzip")):
        path = tmp_path / f"{name}.hdf5"
        write_session(path, "emg2pose", time, angles, emg, {"user": "a"}, compression)
    np.testing.assert_array_equal(rows(tmp_path, "plain")[1], rows(tmp_path, "small")[1])
    np.testing.assert_array_equal(rows(tmp_path, "plain")[1]["emg"], emg)
    sizes = [(tmp_path / f"{name}.hdf5").stat().st_size for name in ("small", "plain")]
    assert sizes[0] < sizes[1] / 5
    with pytest.raises(ValueError, match="must be equal"):
        write_session(tmp_path / "x.hdf5", "g", time, angles[1:], emg, {})


def test_metadata_has_every_column_and_file_of_the_data_set(folder):
    table = metadata(folder)
    columns = "filename user session stage side moving_hand held_out_user held_out_stage"
    assert " ".join(table[0]) == f"{columns} split generalization"
    assert {f"{row['filename']}.hdf5" for row in table} == {p.name for p in folder.glob("*.hdf5")}
    assert len({row["session"] for row in table}) == len(table)


def test_training_sees_neither_the_unseen_user_nor_the_held_out_poses(folder):
    groups = {}
    for row in metadata(folder):
        groups.setdefault((row["split"], row["generalization"]), []).append(row)
    assert {key: len(group) for key, group in groups.items()} == {
        ("train", "none"): 2,
        ("val", "session"): 2,
        ("test", "session"): 2,
        ("test", "stage"): 2,
        ("test", "user"): 1,
        ("test", "user_stage"): 1,
    }
    for (_, kind), group in groups.items():
        for row in group:
            assert (row["held_out_user"] == "True") == (kind in ("user", "user_stage"))
            assert (row["held_out_stage"] == "True") == (kind in ("stage", "user_stage"))
            assert (row["stage"] == "free") == (row["held_out_stage"] == "False")


def test_no_held_out_pose_is_a_scaled_free_pose():
    free, held_out = np.stack(gestures.STAGES["free"]), np.stack(gestures.STAGES["held_out_poses"])
    free = free[1:]  # the first is the open hand, all zero
    for pose in held_out:
        lengths = np.linalg.norm(free, axis=1) * np.linalg.norm(pose)
        assert (free @ pose / lengths).max() < 0.95


def test_a_recording_depends_on_seed_user_and_session_alone(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "_MOST_THREADS", 1)
    alone = generated.synthesize(tmp_path / "alone", SMALL)
    for row in metadata(folder):
        name = row["filename"]
        np.testing.assert_array_equal(rows(folder, name)[1], rows(alone, name)[1])
    more = dataclasses.replace(SMALL, sessions=5)
    session = synthetic.sessions(SMALL)[1]
    for a, b in zip(synthetic.record(SMALL, session), synthetic.record(more, session), strict=True):
        np.testing.assert_array_equal(a, b)


def test_seeds_users_and_sessions_differ():
    first = synthetic.sessions(SMALL)[0]
    emg, angles = synthetic.record(SMALL, first)
    for simulation, session in (
        (dataclasses.replace(SMALL, seed=6), first),
        (SMALL, dataclasses.replace(first, user=1)),
        (SMALL, dataclasses.replace(first, session=1)),
    ):
        other_emg, other_angles = synthetic.record(simulation, session)
        assert abs(np.corrcoef(emg.ravel(), other_emg.ravel())[0, 1]) < 0.1
        assert not np.array_equal(angles, other_angles)


def test_failed_labels_are_short_runs_of_zero_rows_and_no_other_row_is_zero():
    simulation = dataclasses.replace(SMALL, seconds=60.0, units=1)
    _, angles = synthetic.record(simulation, synthetic.sessions(simulation)[0])
    failed = (np.abs(angles) <= 1e-8).all(axis=1)
    assert 0.01 < failed.mean() < 0.125  # 2-12 % drawn; overlapping runs shorten it
    edges = np.flatnonzero(np.diff(np.concatenate([[0], failed.astype(int), [0]])))
    assert np.diff(edges)[::2].min() >= 20


def test_the_noise_floor_is_one():
    loud = dataclasses.replace(SMALL, noise_uv=1e5, seconds=20.0)
    emg, _ = synthetic.record(loud, synthetic.sessions(loud)[0])
    # The high-pass at 40 of 500 Hz keeps about 92 % of the power of white noise.
    np.testing.assert_allclose(emg[200:].std(axis=0), np.sqrt(0.92), rtol=0.04)


def test_velocity_is_the_derivative_of_the_angles():
    motion = gestures.random_motion("free", 10.0, np.random.default_rng(0))
    time = np.arange(0, 10, 1e-3)
    angles, velocities = motion.angles_and_velocities(time)
    middle = (angles[2:] - angles[:-2]) / 2e-3
    # error: h²/6 · third derivative (60·1.7 rad/(.25 s)³ at most) = 1.1e-3 rad/s inside a move,
    # h/2 · its jump at the ends of a move = 3.3e-3
    np.testing.assert_allclose(middle, velocities[1:-1], atol=5e-3)
    assert np.abs(velocities).max() > 1


def test_muscles_lead_the_movement_and_holding_costs_effort():
    fist, rest = gestures.STAGES["free"][1], gestures.STAGES["free"][0]
    motion = gestures.Motion(np.stack([rest, fist]), np.array([1.0]), np.array([0.5]))
    drive = gestures.muscle_drive(motion, np.array([0.9, 0.98, 1.25, 3.0]))
    flexors, extensors = slice(0, 8), slice(8, 12)
    assert (drive[1, flexors] > drive[0, flexors]).all()  # 20 ms before the movement starts
    assert (drive[2, flexors] > drive[3, flexors]).all()  # moving costs more than holding
    assert (drive[3, flexors] > drive[0, flexors] + 0.1).all()
    assert (drive[0, extensors] > drive[3, extensors]).all()
    assert drive.min() >= 0
    assert drive.max() <= 1


def test_units_are_silent_below_threshold_and_fire_between_8_and_35_per_second():
    rates = motor_units.firing_rates(np.linspace(0, 1, 400), 30)
    assert not rates[0].any()
    assert (np.diff(rates, axis=0) >= -1e-9).all()
    assert rates[rates > 0].min() >= 8
    assert rates.max() <= 35
    first = (rates > 0).argmax(axis=0)
    assert (np.diff(first) >= 0).all()  # recruited in order of size
    assert (rates[-1] > 0).all()


def test_firing_follows_the_rate_with_a_cv_of_a_fifth():
    seconds, rate = 400, 2000.0
    drive = np.full((seconds * 500, 1), 0.9)
    spikes = motor_units.spike_trains(
        drive, 1, 500.0, int(seconds * rate), rate, np.random.default_rng(0)
    )
    times = spikes.tocoo().row / rate
    intervals = np.diff(np.sort(times))
    expected = motor_units.firing_rates(np.array([0.9]), 1)[0, 0]
    assert len(intervals) > 8000
    np.testing.assert_allclose(1 / intervals.mean(), expected, rtol=0.007)  # 3 SE: 3 · .2/√8000
    np.testing.assert_allclose(intervals.std() / intervals.mean(), 0.2, atol=0.005)  # 3 SE
    # Firings fall between the control steps (4 samples apart) as often as on them.
    share = np.bincount(spikes.tocoo().row % 4, minlength=4) / spikes.sum()
    np.testing.assert_allclose(share, 0.25, atol=0.02)  # 5 SE


@pytest.mark.parametrize("block", [7, 64, 1000])
def test_superposition_is_convolution_whatever_the_block(block):
    rng = np.random.default_rng(0)
    waves = rng.normal(size=(3, 5, 2)).astype(np.float32)
    dense = (rng.uniform(size=(64, 3)) < 0.2).astype(np.float32)
    emg = motor_units.superpose(motor_units.sparse.csr_array(dense), waves, block)
    expected = np.zeros((64, 2))
    for unit in range(3):
        for channel in range(2):
            expected[:, channel] += np.convolve(dense[:, unit], waves[unit, :, channel])[:64]
    np.testing.assert_allclose(emg, expected, atol=1e-5)  # sums of < 15 terms: 15 · 2^-24 · 4


def test_turning_the_band_by_one_electrode_moves_the_channels_by_one():
    wrist = motor_units.random_wrist(gestures.COMPARTMENTS, 2, np.random.default_rng(0))
    straight = motor_units.action_potentials(wrist, 16, 0.0, 2000.0)
    turned = motor_units.action_potentials(wrist, 16, 2 * np.pi / 16, 2000.0)
    scale = np.abs(straight).max()
    np.testing.assert_allclose(np.roll(turned, 1, axis=2), straight, atol=1e-5 * scale)
    nearest = np.round(np.rad2deg(wrist.angles) / 22.5).astype(int) % 16
    np.testing.assert_array_equal(np.ptp(straight, axis=1).argmax(axis=1), nearest)


def test_a_failed_build_leaves_nothing(tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generated.synthesize(tmp_path / "data", SMALL, interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_complete_folder_is_not_built_again_and_another_is_refused(folder):
    generated.synthesize(folder, SMALL, lambda done, total: pytest.fail("built again"))
    with pytest.raises(UserError, match="small exists and is not this"):
        generated.synthesize(folder, dataclasses.replace(SMALL, seed=1))


def test_the_cache_has_one_folder_per_parameters(tmp_path):
    calls = []
    tiny = dataclasses.replace(SMALL, users=1, seconds=1.0)
    first = generated.cached(tmp_path, tiny, lambda done, total: calls.append((done, total)))
    assert calls == [(k, 6) for k in range(1, 7)]
    assert generated.cached(tmp_path, tiny) == first
    other = generated.cached(tmp_path, dataclasses.replace(tiny, noise_uv=3.0))
    assert sorted(tmp_path.iterdir()) == sorted([first, other])


@pytest.mark.parametrize(
    ("name", "value"), [("users", 0), ("sessions", 2), ("seconds", 0.5), ("sample_rate", 200.0)]
)
def test_impossible_simulations_are_refused_by_name_and_value(name, value):
    with pytest.raises(UserError, match=rf"{name}={value}.*use"):
        Simulation(**{name: value})
