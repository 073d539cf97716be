"""Laws of the generated recordings: physics, file format, splits, reproducibility."""

import csv
import dataclasses

import h5py
import numpy as np
import pytest
from scipy.cluster import vq

from tds_jax.data import generated
from tds_jax.data.hdf5_write import write_session
from tds_jax.errors import UserError
from tds_jax.pose import freedoms, gestures, motor_units, muscles, synthetic
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


MOTIONS = ("poses", "freedoms")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return generated.synthesize(tmp_path_factory.mktemp("data") / "small", SMALL)


def test_each_motion_gives_recordings_of_its_own():
    found = []
    for motion in MOTIONS:
        simulation = dataclasses.replace(SMALL, motion=motion)
        session = synthetic.sessions(simulation)[-1]
        assert session.stage == {"poses": "held_out_poses", "freedoms": "fast_fingers"}[motion]
        found.append(synthetic.record(simulation, session))
        for a, b in zip(found[-1], synthetic.record(simulation, session), strict=True):
            np.testing.assert_array_equal(a, b)
    assert abs(np.corrcoef(found[0][0].ravel(), found[1][0].ravel())[0, 1]) < 0.1


def test_a_band_turns_from_session_to_session_as_far_as_its_motion_says():
    """Below 0 the motion's own, of poses 5 degrees."""
    session = synthetic.sessions(SMALL)[0]
    own, five, two = (
        synthetic.record(dataclasses.replace(SMALL, session_rotation_deg=turn), session)[0]
        for turn in (-1.0, 5.0, 2.0)
    )
    np.testing.assert_array_equal(own, five)
    assert not np.array_equal(own, two)


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


def test_as_many_users_as_asked_for_are_in_testing_only():
    one, three = (synthetic.sessions(dataclasses.replace(SMALL, unseen=n)) for n in (1, 3))
    assert three[: len(one)] == one, "those there are stay as they are"
    assert [(s.user, s.generalization) for s in three[-6:]] == [
        (user, kind) for user in (2, 3, 4) for kind in ("user", "user_stage")
    ]
    assert {s.split for s in three if s.user >= 2} == {"test"}


LABELS = 20.0  # per second, of motions alone


@pytest.fixture(scope="module")
def labels():
    """(N, 20) of a few free sessions to learn from, of another one, and of a held-out stage."""
    time = np.arange(0, 60, 1 / LABELS)
    stages = (*(5 * ["free"]), "fast_fingers")
    motions = [freedoms.random_motion(stage, 60.0, np.random.default_rng(k))
               for k, stage in enumerate(stages)]  # fmt: skip
    each = [motion.angles_and_velocities(time)[0] for motion in motions]
    return np.concatenate(each[:4]), *each[4:]


def r2(target, found):
    return 1 - np.square(target - found).sum() / np.square(target - target.mean(axis=0)).sum()


def test_thirteen_poses_known_without_error_do_not_give_the_angles(labels):
    """Of the nearest of 13 poses of the train split at every moment: R² below .6."""
    train, *others = labels
    poses, _ = vq.kmeans2(train, 13, minit="++", seed=0)
    for target in others:
        nearest = np.linalg.norm(target[:, None] - poses, axis=2).argmin(axis=1)
        assert 0.2 < r2(target, poses[nearest]) < 0.6


def test_five_components_hold_less_than_four_fifths_of_the_angles(labels):
    variances = np.linalg.svd(labels[0] - labels[0].mean(axis=0), compute_uv=False) ** 2
    assert variances[:5].sum() < 0.8 * variances.sum()
    assert variances[14] > 1e-3 * variances.sum()  # 3 of the thumb and 3 of each finger


def correlations(stage):
    """(F, F) of the freedoms in ten minutes of a stage, 0 with themselves."""
    controls, _ = freedoms.random_motion(stage, 600.0, np.random.default_rng(0)).controls(
        np.arange(0, 600, 0.1)
    )
    assert (np.ptp(controls, axis=0) > 1.9).all()
    return np.corrcoef(controls.T) - np.eye(len(freedoms.NAMES))


def test_freedoms_move_by_themselves_but_for_the_curls_of_a_hand_that_closes():
    curls = [freedoms.NAMES.index(name) for name in freedoms.CURLS]
    free, held_out = correlations("free"), correlations("fast_fingers")
    among = np.ix_(curls, curls)
    assert free[among][np.triu_indices(5, 1)].min() > 0.2
    assert free[among].max() < 0.5
    free[among] = 0
    # some 700 moves of each: correlations of chance have an SD of 1/√700 = .04
    assert max(np.abs(free).max(), np.abs(held_out).max()) < 0.2


def test_the_held_out_stage_is_another_movement():
    """Faster and stiffer, each beyond what free sessions vary by."""
    time, found = np.arange(0, 60, 0.02), {}
    for stage in freedoms.STAGES:
        for seed in range(4):
            motion = freedoms.random_motion(stage, 60.0, np.random.default_rng(seed))
            speed = np.abs(motion.controls(time)[1]).mean()
            found.setdefault(stage, []).append((speed, motion.stiffness.at(time)[0].mean()))
    free, held_out = np.array(found["free"]), np.array(found["fast_fingers"])
    assert (held_out.min(axis=0) > free.max(axis=0)).all()


@pytest.mark.parametrize("name", freedoms.NAMES)
def test_every_freedom_leaves_its_trace_in_the_emg(name):
    """Moved alone to either end, it changes the expected power of a channel by a fifth at least."""
    ends = np.zeros((3, len(freedoms.NAMES)))
    ends[1:, freedoms.NAMES.index(name)] = (-1, 1)
    drive = np.stack([muscles.muscle_drive(still(end), np.zeros(1))[0] for end in ends])
    wrist = motor_units.random_wrist(
        muscles.COMPARTMENTS, 10, (0.5, 2.5), 4.0, np.random.default_rng(0)
    )
    waves = motor_units.action_potentials(wrist, 16, 0.0, 1000.0)
    energy = np.square(waves).sum(axis=1) / 1000.0  # µV² of a firing per second
    rates = [motor_units.firing_rates(drive[:, m], 10) for m in range(drive.shape[1])]
    power = np.concatenate(rates, axis=1) @ energy + SMALL.noise_uv**2
    assert (np.abs(np.log(power[1:] / power[0])).max(axis=1) > np.log(1.2)).all()


def still(controls):
    """A motion that holds the freedoms where they are."""
    moves = [freedoms.Moves(np.array([at, at]), np.array([9.0]), np.array([1.0]))
             for at in (*controls, 0.0)]  # fmt: skip
    return freedoms.Motion(tuple(moves[:-1]), moves[-1])


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


@pytest.mark.parametrize("how", [gestures, freedoms])
def test_velocity_is_the_derivative_of_the_angles(how):
    motion = how.random_motion("free", 10.0, np.random.default_rng(0))
    time = np.arange(0, 10, 1e-3)
    angles, velocities = motion.angles_and_velocities(time)
    middle = (angles[2:] - angles[:-2]) / 2e-3
    # error: h²/6 · third derivative (60·1.7 rad/(.25 s)³ at most) = 1.1e-3 rad/s inside a move,
    # h/2 · its jump at the ends of a move = 3.3e-3
    np.testing.assert_allclose(middle, velocities[1:-1], atol=5e-3)
    assert np.abs(velocities).max() > 1


def test_no_held_out_pose_is_a_scaled_free_pose():
    free, held_out = np.stack(gestures.STAGES["free"]), np.stack(gestures.STAGES["held_out_poses"])
    free = free[1:]  # the first is the open hand, all zero
    for pose in held_out:
        lengths = np.linalg.norm(free, axis=1) * np.linalg.norm(pose)
        assert (free @ pose / lengths).max() < 0.95


def test_muscles_lead_a_move_between_poses_and_holding_costs_effort():
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


def test_muscles_lead_a_freedom_and_holding_costs_effort():
    """The index curls from straight to bent between 1 and 1.5 s; all else rests."""
    index = freedoms.NAMES.index("index_curl")
    motion = still(np.zeros(len(freedoms.NAMES)))
    moves = list(motion.freedoms)
    moves[index] = freedoms.Moves(np.array([-1.0, 1.0]), np.array([1.0]), np.array([0.5]))
    motion = dataclasses.replace(motion, freedoms=tuple(moves))
    drive = muscles.muscle_drive(motion, np.array([0.9, 0.98, 1.25, 3.0]))
    pulls = np.array([c.pulls.get("index_curl", 0) for c in muscles.COMPARTMENTS])
    flexor, extensor = pulls.argmax(), pulls.argmin()
    assert drive[1, flexor] > drive[0, flexor]  # 20 ms before the movement starts
    assert drive[2, flexor] > 0.5 * drive[3, flexor] + 0.1  # moving costs more than holding
    assert drive[3, flexor] > drive[0, flexor] + 0.1
    assert drive[0, extensor] > drive[3, extensor] + 0.1
    np.testing.assert_array_equal(drive[0, pulls == 0], drive[2, pulls == 0])
    assert drive.min() >= 0
    assert drive.max() <= 1
    stiff = dataclasses.replace(motion, stiffness=still([0.1]).freedoms[0])
    np.testing.assert_allclose(muscles.muscle_drive(stiff, np.zeros(1)) - drive[:1], 0.1)


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
    wrist = motor_units.random_wrist(
        muscles.COMPARTMENTS, 2, (1.0, 4.0), 6.0, np.random.default_rng(0)
    )
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
