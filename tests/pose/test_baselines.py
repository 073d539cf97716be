"""Laws of the baselines: exactness, streaming, masks, causality; and how hard the data are."""

import numpy as np
import pytest

from tds_jax.errors import UserError
from tds_jax.pose import baselines, synthetic
from tds_jax.pose.linear import MOST_PAIRED, LinearFit, Reach, design, log_rms
from tds_jax.pose.read_out import ReadOut, ReadOutFit

RATE, BIN = 1000.0, 20


def chunks(rng, sizes=(900, 1300, 2000), channels=2, joints=3):
    """Sessions whose angles are linear in log-RMS, with noisy labels at invalid rows."""
    weights = rng.normal(size=(channels, joints))
    out = []
    for size in sizes:
        bins = size // BIN
        loudness = np.exp(rng.normal(size=(bins, channels)))
        emg = np.repeat(loudness, BIN, axis=0) * np.where(np.arange(bins * BIN) % 2, 1, -1)[:, None]
        angles = np.repeat(np.log(loudness) @ weights + 0.5, BIN, axis=0)
        valid = rng.uniform(size=len(emg)) < 0.8
        angles[~valid] = np.nan
        out.append((emg.astype(np.float32), angles.astype(np.float32), valid))
    return out


def fitted(parts, val=(), histories=(0.4,), stretches=((),), penalties=(1e-3,)):
    """Of one history, no stretches and one penalty where nothing else is asked."""
    channels, joints = (array.shape[1] for array in parts[0][:2])
    tried = {"histories": histories, "stretches": stretches, "penalties": penalties}
    one = LinearFit(channels, joints, RATE, **tried)
    baselines.fit(parts, one.train)
    baselines.fit(val, one.val)
    return one


def linear(parts, val=(), **tried):
    return fitted(parts, val, **tried).result()


def test_mean_and_median_are_those_of_the_valid_rows_of_all_chunks():
    parts = chunks(np.random.default_rng(0))
    mean, median = baselines.ConstantMean(3), baselines.ConstantMedian(3)
    baselines.fit(parts, mean, median)
    labels = np.concatenate([angles[valid] for _, angles, valid in parts]).astype(np.float64)
    # summed in f64, stored in f32: half an ulp is 6e-8
    np.testing.assert_allclose(mean.result(), labels.mean(axis=0), rtol=1e-7)
    np.testing.assert_allclose(median.result(), np.median(labels, axis=0), atol=1e-3)


def test_median_of_extreme_angles_stays_within_pi():
    median = baselines.ConstantMedian(2)
    angles = np.array([[9.0, -9.0]] * 3, np.float32)
    median.update(np.zeros((3, 1)), angles, np.ones(3, bool))
    np.testing.assert_allclose(median.result(), [np.pi, -np.pi], atol=1e-3)


def test_median_of_labels_in_another_unit_is_within_a_bin_of_their_range():
    angles = np.random.default_rng(0).uniform(-40, 90, (5001, 2)).astype(np.float32)
    median = baselines.ConstantMedian(2, -40.0, 90.0)
    median.update(np.zeros((5001, 1)), angles, np.ones(5001, bool))
    np.testing.assert_allclose(median.result(), np.median(angles, axis=0), atol=130 / 6284)


def test_linear_finds_a_law_that_is_linear_in_log_rms():
    parts = chunks(np.random.default_rng(0))
    model = linear(parts, parts, penalties=(1e-9,))
    for emg, angles, valid in parts:
        ends = np.arange(BIN - 1, len(emg), BIN)
        kept = valid[ends]
        error = model.predict_bins(emg)[kept] - angles[ends][kept]
        assert np.abs(error).max() < 1e-5  # f32 labels and EMG of size ~5: 5 · 2^-23 ≈ 6e-7


def test_linear_equals_least_squares_with_the_penalty_as_extra_rows():
    rng = np.random.default_rng(1)
    emg, valid = rng.normal(size=(4000, 2)), np.ones(4000, bool)
    angles = rng.normal(size=(4000, 3))
    model = linear(*2 * [[(emg, angles, valid)]], histories=(0.06,), penalties=(0.5,))
    features = log_rms(emg, BIN)
    rows = np.stack([features[n - 2 : n + 1].ravel() for n in range(2, len(features))])
    target = angles[BIN - 1 :: BIN][2:]
    centred = rows - rows.mean(axis=0)
    strength = 0.5 * len(rows) * centred.var(axis=0)
    padded = np.concatenate([centred, np.diag(np.sqrt(strength))])
    zeros = np.zeros((rows.shape[1], 3))
    expected = np.linalg.lstsq(padded, np.concatenate([target - target.mean(axis=0), zeros]))[0]
    # normal equations in f64 lose the square of the conditioning (< 1e3): 1e6 · 1e-16
    np.testing.assert_allclose(model.weights, expected, atol=1e-9)


def test_linear_is_causal_at_its_bins():
    rng = np.random.default_rng(2)
    model = linear(chunks(rng))
    emg = rng.normal(size=(800, 2))
    changed = emg.copy()
    changed[400:] *= 3
    before, after = model.predict_bins(emg), model.predict_bins(changed)
    np.testing.assert_array_equal(before[:20], after[:20])
    assert not np.allclose(before[20], after[20])


def test_linear_at_samples_passes_through_its_bins_and_has_every_row():
    rng = np.random.default_rng(3)
    model = linear(chunks(rng))
    emg = rng.normal(size=(811, 2))
    full = model.predict(emg)
    assert full.shape == (811, 3)
    bins = model.predict_bins(emg)
    np.testing.assert_allclose(full[BIN - 1 :: BIN], bins, atol=1e-5)  # f32 of values < 20
    np.testing.assert_array_equal(full[-1], full[799])
    assert model.predict(emg[:5]).shape == (5, 3)


def test_linear_does_not_depend_on_the_unit_of_the_emg():
    parts = chunks(np.random.default_rng(4))
    scaled = [(emg * 1000, angles, valid) for emg, angles, valid in parts]
    a = linear(parts).predict_bins(parts[0][0])
    b = linear(scaled).predict_bins(scaled[0][0])
    np.testing.assert_allclose(a, b, atol=1e-4)  # scaling in f32: 1e-7 of features of size 7


def test_linear_does_not_depend_on_an_offset_of_the_emg():
    """Raw ADC counts; each channel has its own offset, far above its signal, and it may drift."""
    parts = chunks(np.random.default_rng(4))
    offsets = np.array([2**15, -300.0])
    moved = [(emg.astype(np.float64) + offsets, angles, valid) for emg, angles, valid in parts]
    a = linear(parts).predict_bins(parts[0][0])
    b = linear(moved).predict_bins(moved[0][0])
    # f64 sums of 400 values of 2^15 leave 1e-9 of a signal of 1 as offset
    np.testing.assert_allclose(a, b, atol=1e-6)
    loudness = np.abs(parts[0][0][::BIN]).astype(np.float64)
    np.testing.assert_allclose(log_rms(moved[0][0], BIN), np.log(loudness), atol=1e-6)


def test_samples_that_were_not_recorded_are_no_silence():
    emg = np.random.default_rng(1).normal(size=(1000, 2)) * [1, 5]
    gaps = emg.copy()
    gaps[110:130] = np.nan  # half of two bins
    gaps[500:560] = np.inf  # all of three
    whole, found = log_rms(emg, BIN), log_rms(gaps, BIN)
    halves = [
        np.sqrt(np.square(emg[part]).mean(axis=0)) for part in (slice(100, 110), slice(130, 140))
    ]
    # the offset of 0.1 s of noise is up to a third of it: 5 % of its power
    np.testing.assert_allclose(np.exp(found[5:7]), halves, rtol=0.1)
    np.testing.assert_array_equal(found[25:28], found[[24, 24, 24]])
    later = np.abs(found - whole)[[*range(5), *range(28, 50)]]
    assert later.max() < 0.1
    gaps[:40] = np.nan
    begun = log_rms(gaps, BIN)
    np.testing.assert_array_equal(begun[:2], begun[[2, 2]])


def test_linear_survives_a_dead_channel():
    parts = chunks(np.random.default_rng(5))
    dead = [(emg * np.array([1, 0], np.float32), angles, valid) for emg, angles, valid in parts]
    assert np.isfinite(linear(dead).predict(dead[0][0])).all()


@pytest.mark.parametrize(
    "one",
    [
        baselines.ConstantMean(3),
        baselines.ConstantMedian(3),
        LinearFit(2, 3, RATE),
    ],
)
def test_no_valid_row_is_an_error_of_the_users_data(one):
    for emg, angles, valid in chunks(np.random.default_rng(6)):
        getattr(one, "train", one).update(emg, angles, np.zeros_like(valid))
    with pytest.raises(UserError, match="0 valid label rows"):
        one.result()


def late(rng, lag, size=4000):
    """A session whose angles are the log-RMS `lag` bins ago."""
    bins = size // BIN
    loudness = np.exp(rng.normal(size=(bins, 1)))
    emg = np.repeat(loudness, BIN, axis=0) * np.where(np.arange(size) % 2, 1, -1)[:, None]
    angles = np.repeat(np.roll(np.log(loudness), lag, axis=0), BIN, axis=0)
    valid = np.arange(size) >= lag * BIN
    return emg.astype(np.float32), angles.astype(np.float32), valid


def test_linear_has_the_history_and_the_penalty_that_suit_val():
    rng = np.random.default_rng(11)
    train, val = late(rng, 7), late(rng, 7)
    options = {"histories": (0.06, 0.2, 0.4), "penalties": (1e-6, 1.0)}
    found = linear([train], [val], **options)
    assert found.history == 10, "8 bins are needed, and others only bring noise"
    error = found.predict_bins(val[0])[20:, 0] - val[1][BIN - 1 :: BIN][20:, 0]
    assert np.abs(error).max() < 1e-3  # the small penalty was taken: of 1 it would be 0.5
    unrelated = late(rng, 30)
    assert np.abs(linear([train], [unrelated], **options).weights).max() < 0.6, "of penalty 1"
    assert linear([train], **options).history == 20, "without val: 0.4 s"


def test_what_is_left_on_val_is_told_from_sums_as_from_its_rows():
    rng = np.random.default_rng(12)
    train, val = chunks(rng), chunks(rng, (1500,))
    one = fitted(train, val, histories=(0.1, 0.2), stretches=((), (0.06,), (0.06, 0.14)))
    for reach in (Reach(5, ()), Reach(10, ()), Reach(5, (3,)), Reach(10, (3, 7))):
        model = one._fitted(reach, 1e-2)
        emg, angles, valid = val[0]
        ends = np.arange(BIN - 1, len(emg), BIN)
        rows = valid[ends] & (np.arange(len(ends)) >= 9)
        error = model.predict_bins(emg)[rows] - angles[ends][rows]
        # sums of squares of some 100 in f64
        assert one._error_on_val(model) == pytest.approx(np.square(error).sum(), abs=1e-9)


def alike(rng, bins=200):
    """(emg, angles, valid): two electrodes always as loud, the angle how alike they are."""
    angle = np.repeat(rng.uniform(-0.9, 0.9, bins // 10), 10)
    shared, own = rng.normal(size=(2, bins * BIN))
    angles = np.repeat(angle, BIN)[:, None]
    second = angles[:, 0] * shared + np.sqrt(1 - angles[:, 0] ** 2) * own
    return np.stack([shared, second], axis=1), angles, np.ones(len(angles), bool)


def test_linear_reads_from_correlations_what_no_loudness_tells():
    rng = np.random.default_rng(13)
    train, val, test = ([alike(rng)] for _ in range(3))

    def explained(stretches):
        found = linear(train, val, stretches=stretches, histories=(0.06,), penalties=(1e-2,))
        (emg, angles, _), ends = test[0], slice(BIN - 1, None, BIN)
        left = np.square(found.predict_bins(emg) - angles[ends]).mean()
        return 1 - left / angles[ends].var(), found

    (loudness, _), (both, found) = (explained(one) for one in (((),), ((), (0.1,))))
    assert found.stretches == (5,), "chosen on val"
    assert loudness < 0.1 < 0.6 < both


def test_a_stretch_is_numpys_rms_and_correlations_of_its_samples():
    emg = np.random.default_rng(14).normal(size=(1200, 3)) @ np.array(
        [[1, 1, 0], [0, 1, 0], [0, 1, 2]]
    )
    found = design(emg, BIN, Reach(2, (4, 30)))
    assert found.shape == (60, Reach(2, (4, 30)).features(3))
    # Offsets are of the last 0.4 s, so of other samples than the stretch's: 1 / sqrt(400) of it.
    for at, first, length in ((40, 0, 4), (40, 6, 30), (9, 6, 10)):
        part = emg[(at + 1 - length) * BIN : (at + 1) * BIN]
        loud, pairs = found[at, first : first + 3], found[at, first + 3 : first + 6]
        np.testing.assert_allclose(loud, np.log(part.std(axis=0)), atol=0.03)
        expected = np.corrcoef(part.T)[np.triu_indices(3, 1)]
        np.testing.assert_allclose(pairs, expected, atol=0.03)
    np.testing.assert_array_equal(found[:, 15:], log_rms(emg, BIN))


def test_pairs_of_very_many_electrodes_are_left_out():
    small, large = (LinearFit(n, 1, RATE) for n in (4, MOST_PAIRED + 1))
    assert len(small.train.gram) == 4 * 40 + 3 * 10 + 1
    assert len(large.train.gram) == (MOST_PAIRED + 1) * 40 + 1


def test_linear_median_is_the_median_label_where_the_ridge_says_so():
    """Of two labels with nothing between, which a ridge answers with means."""
    rng = np.random.default_rng(15)
    emg = np.repeat(np.exp(rng.normal(size=(1500, 1))), BIN, axis=0)
    emg *= np.where(np.arange(len(emg)) % 2, 1, -1)[:, None]
    loud = np.log(np.abs(emg))
    angles = np.where(loud + rng.normal(size=loud.shape) > 0.4, 1.3, 0.1)
    chunk = emg, angles, rng.uniform(size=len(emg)) < 0.9
    fit = fitted([chunk], [chunk], histories=(0.02,))
    ridge = fit.result()
    one = ReadOutFit(ridge, *fit.spread(ridge), -np.pi, np.pi)
    baselines.fit([chunk], one)
    read_out = one.result()
    ends = np.arange(BIN - 1, len(emg), BIN)
    ends = ends[chunk[2][ends]]
    said, label = ridge.predict_bins(emg)[ends // BIN], angles[ends]
    mean, spread = fit.spread(ridge)
    np.testing.assert_allclose([mean[0], spread[0]], [said.mean(), said.std()], rtol=1e-6)
    cell = np.diff(read_out.said[0])[0]
    for at, median in zip(read_out.said[0], read_out.median[0], strict=True):
        near = label[np.abs(said - at) < cell / 2]
        if len(near) >= 20 and abs(near.mean() - 0.7) > 0.06:  # no tie
            assert median == pytest.approx(np.median(near), abs=2 * np.pi / 1024)
    median_error = np.abs(read_out(said) - label).mean()
    assert median_error < 0.9 * np.abs(said - label).mean()
    np.testing.assert_allclose(read_out(np.array([[-9.0], [9.0]]))[:, 0], [0.1, 1.3], atol=4e-3)


def test_a_joint_that_never_moves_is_read_out_as_it_is():
    emg, angles, valid = chunks(np.random.default_rng(16))[0]
    chunk = emg, np.full_like(angles, 0.25), valid
    fit = fitted([chunk])
    one = ReadOutFit(fit.result(), *fit.spread(fit.result()), -np.pi, np.pi)
    baselines.fit([chunk], one)
    np.testing.assert_allclose(one.result()(np.full((2, 3), 0.25)), 0.25, atol=4e-3)


@pytest.mark.long
def test_linear_reads_the_default_generated_data_but_leaves_room():
    """R² on unseen sessions of seen users between .3 and .7 with the defaults."""
    simulation = synthetic.Simulation()
    table = synthetic.sessions(simulation)
    one = LinearFit(16, 20, simulation.sample_rate)
    for session in (s for s in table if s.split != "test"):
        emg, angles = synthetic.record(simulation, session)
        getattr(one, session.split).update(emg, angles, angles.any(axis=1))
    model = one.result()
    predicted, target = [], []
    for session in (s for s in table if (s.split, s.generalization) == ("test", "session")):
        emg, angles = synthetic.record(simulation, session)
        valid = angles.any(axis=1)
        predicted.append(model.predict(emg)[valid])
        target.append(angles[valid])
    y = np.concatenate(target).astype(np.float64)
    squares = np.square(y - np.concatenate(predicted)).sum()
    assert 0.3 < 1 - squares / np.square(y - y.mean(axis=0)).sum() < 0.7


def test_fitted_baselines_come_back_from_their_file(tmp_path):
    parts = chunks(np.random.default_rng(8))
    mean, median = baselines.ConstantMean(3), baselines.ConstantMedian(3)
    baselines.fit(parts, mean, median)
    read_out = ReadOut(np.arange(6.0).reshape(3, 2), np.ones((3, 2)))
    ridge = linear(parts, parts, stretches=((0.1, 0.2),))
    kept = baselines.Fitted("abc", "def", mean.result(), median.result(), ridge, read_out)
    path = tmp_path / "baselines.npz"
    assert baselines.Fitted.read(path) is None
    kept.write(path)
    again = baselines.Fitted.read(path)
    assert list(tmp_path.iterdir()) == [path]
    assert again.digest == "abc"
    for a, b in ((kept.mean, again.mean), (kept.median, again.median)):
        np.testing.assert_array_equal(a, b)
    said = kept.linear.predict(parts[0][0])
    np.testing.assert_array_equal(said, again.linear.predict(parts[0][0]))
    np.testing.assert_array_equal(kept.read_out(said), again.read_out(said))
    with np.load(path) as arrays:
        older = {name: value for name, value in arrays.items() if name != "form"}
    np.savez(path, **older)
    assert baselines.Fitted.read(path) is None, "of a version whose linear was another"


@pytest.mark.parametrize("cut", [0, 100, 1500])
def test_a_broken_file_of_baselines_is_one_line(tmp_path, cut):
    path = tmp_path / "baselines.npz"
    ridge, read_out = linear(chunks(np.random.default_rng(9))), ReadOut(np.ones(3), np.ones(3))
    baselines.Fitted("abc", "def", np.zeros(3), np.zeros(3), ridge, read_out).write(path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"cannot be read .*; delete it to fit anew") as error:
        baselines.Fitted.read(path)
    assert "\n" not in str(error.value)
