"""Laws of what happens to EMG before the encoder: filters that are causal, exact and as asked."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import signal

from tds_jax.errors import UserError
from tds_jax.pose import statistics
from tds_jax.pose.front import Powers, causal_filter, make_front
from tds_jax.pose.table import SessionTable
from tests.begun import begun
from tests.pose.small import LENGTHS, SPLITS, small_config, small_task, write_recordings

RATE = 250.0
NO_FILTER = ((0.0, 0.0), (), 0.2)
NONE = ("none", (50,), 10)


def front_of(band, notch, seconds, powers, correlated=(), normalize=False):
    return make_front(RATE, band, notch, seconds, (*powers, correlated), normalize)


def response(weights, hz, rate=RATE):
    """|H| at these frequencies of weights whose last one meets the newest sample."""
    time = np.arange(len(weights))[::-1] / rate
    return np.abs(np.exp(-2j * np.pi * np.outer(hz, time)) @ weights)


def through(front, x):
    y = jnp.asarray(x, jnp.float32)[None]
    for layer in front.layers:
        y = layer(y)
    return np.asarray(y[0])


@pytest.mark.parametrize(
    ("band", "notch", "seconds"), [((20.0, 0.0), (60.0,), 0.2), ((1.0, 100.0), (50.0,), 1.0)]
)
def test_a_filter_stops_what_it_names_and_passes_the_rest_as_butterworth_does(band, notch, seconds):
    weights = causal_filter(RATE, *band, notch, round(seconds * RATE))
    # Nulls are those of a projection in f64.
    assert response(weights, [0.0, *notch]).max() < 1e-9
    edges, kind = (band, "band") if all(band) else (band[0], "high")
    sections = signal.butter(2, edges, kind, fs=RATE, output="sos")
    # Away from the notch, whose width is 4 / (pi * seconds): what a ring of exp(-4) leaves.
    hz = np.array([f for f in np.linspace(1, 120, 120) if abs(f - notch[0]) > 16])
    _, ideal = signal.sosfreqz(sections, hz, fs=RATE)
    np.testing.assert_allclose(response(weights, hz), np.abs(ideal), atol=0.04)
    assert response(weights, hz).max() > 0.9


def test_a_filter_delays_by_less_than_half_its_length():
    step = np.r_[np.zeros(200), np.ones(200)]
    weights = causal_filter(RATE, 0.0, 40.0, (), 50)
    found = through(front_of((0.0, 40.0), (), 0.2, NONE), step[:, None])[:, 0]
    half = int(np.argmax(found > 0.5)) + len(weights) - 1 - 200
    assert 0 <= half < 5, "a filter of linear phase would take 25 samples"


def test_a_result_sees_its_left_context_and_nothing_else():
    front = front_of((20.0, 0.0), (60.0,), 0.1, ("covariance", (10, 25), 5))
    x = np.random.default_rng(0).normal(size=(200, 2))
    plain = through(front, x)
    assert len(plain) == (200 - 1 - front.left_context) // front.stride + 1
    n = 4
    newest = n * front.stride + front.left_context
    for moved, sees in ((newest, True), (newest + 1, False), (newest - front.left_context, True),
                        (newest - front.left_context - 1, False)):  # fmt: skip
        other = x.copy()
        other[moved] += 100
        assert (through(front, other)[n] != plain[n]).any() == sees


def test_powers_are_logs_of_rms_and_correlations_of_stretches_with_one_end():
    x = np.random.default_rng(0).normal(size=(40, 3)) * [1, 5, 0.1]
    found = through(front_of(*NO_FILTER, ("covariance", (10, 20), 5)), x)
    assert found.shape == ((40 - 20) // 5 + 1, 2 * (3 + 3))
    for n, row in enumerate(found):
        end, parts = 20 + 5 * n, []
        for length in (10, 20):
            moments = x[end - length : end].T @ x[end - length : end] / length
            rms = np.sqrt(np.diagonal(moments))
            parts += [np.log(rms), (moments / np.outer(rms, rms))[np.triu_indices(3, 1)]]
        # The floor of 1e-6 in power moves the log of 0.1's by 5e-5; f32 the rest.
        np.testing.assert_allclose(row, np.concatenate(parts), atol=2e-4)
    only = through(front_of(*NO_FILTER, ("rms", (10, 20), 5)), x)
    np.testing.assert_allclose(only, found[:, [0, 1, 2, 6, 7, 8]], atol=1e-6)  # f32, same sums
    apart = through(front_of(*NO_FILTER, ("covariance", (10,), 5), (20,)), x)
    np.testing.assert_allclose(apart, found[:, [0, 1, 2, 9, 10, 11]], atol=1e-6)
    silent = through(front_of(*NO_FILTER, ("covariance", (10,), 5)), 0 * x)
    assert np.isfinite(silent).all()


def test_behind_a_highpass_an_offset_is_gone():
    x = np.random.default_rng(0).normal(size=(200, 3))
    for powers in (NONE, ("covariance", (20, 10), 10)):
        front = make_front(200.0, (5.0, 0.0), (), 0.3, (*powers, ()), False)
        # An offset of 3 is 0 up to f32: eps 6e-8 · 3 · 60 weights.
        np.testing.assert_allclose(through(front, x + 3), through(front, x), atol=1e-4)


def test_a_config_gets_the_layers_it_names(tmp_path):
    write_recordings(tmp_path / "data", LENGTHS, SPLITS)
    powers = {"powers": "covariance", "power_samples": (8, 4), "power_stride": 2}
    band = {"highpass_hz": 5.0, "lowpass_hz": 45.0, "notch_hz": (20.0,), "filter_seconds": 0.3}
    asked = {f"model__{name}": value for name, value in (powers | band).items()}
    task = small_task(tmp_path / "data", tmp_path, **asked, model__conv_strides=(1,))
    first, second = task.init(nnx.Rngs(0)).encoder.front
    assert first.weights == tuple(causal_filter(100.0, 5.0, 45.0, (20.0,), 30))
    assert second == Powers("covariance", (8, 4), 2)
    assert task.init(nnx.Rngs(0)).encoder.normalizer is not None


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"model__notch_hz": (60.0,)}, "model.notch_hz has 60 Hz, which recordings of 100 Hz do"),
        ({"model__lowpass_hz": 50.0}, "model.lowpass_hz has 50 Hz, which recordings of 100 Hz do"),
        ({"model__highpass_hz": 1.0}, "model.filter_seconds=0.2 is less than a period of 1 Hz"),
        ({"model__power_samples": (25,)}, "must be multiples of model.power_stride=10"),
        (
            {"model__powers": "covariance", "model__correlation_samples": (25,)},
            "model.correlation_samples=(25,) must be multiples of model.power_stride=10",
        ),
        ({"model__correlation_samples": (20,)}, "for model.powers='covariance' alone; not for"),
        ({"model__notch_hz": (-1.0,)}, "must be above 0 Hz"),
        ({"model__highpass_hz": 9.0, "model__lowpass_hz": 8.0}, "must be above model.highpass_hz"),
        ({"model__name": "neuropose", "model__highpass_hz": 9.0}, "model.highpass_hz=9.0 acts"),
    ],
)
def test_a_filter_that_cannot_be_is_one_line(tmp_path, changes, text):
    write_recordings(tmp_path / "data", LENGTHS, SPLITS)
    with pytest.raises(UserError, match=re.escape(text)):
        small_task(tmp_path / "data", tmp_path, **changes)


POWERS = {"powers": "covariance", "power_samples": (4,), "power_stride": 2}
NORMALIZED = {f"model__{name}": value for name, value in POWERS.items()} | {
    "model__correlation_samples": (8, 20),
    "model__highpass_hz": 5.0,
    "model__conv_strides": (1,),
    "model__power_normalize": True,
}


def test_what_the_encoder_takes_is_standard_over_the_train_split(tmp_path):
    """Offsets and gains differ by channel, a filter comes before the powers, sessions differ."""
    made = write_recordings(tmp_path / "data", LENGTHS, SPLITS)
    task, model = begun(tmp_path / "run", small_config(tmp_path / "data", tmp_path, **NORMALIZED))
    window = task.config.data.window
    train = [rows["emg"] for rows, split in zip(made, SPLITS, strict=True) if split == "train"]
    tiles = [emg[a : a + window] for emg in train for a in range(0, len(emg) - window + 1, window)]
    seen = np.concatenate(
        [np.asarray(model.encoder.seen(model.normalizer(tile[None])))[0] for tile in tiles]
    )
    # f32 of some hundred frames: eps 6e-8 * 300, times the log's few units.
    np.testing.assert_allclose(seen.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(seen.std(axis=0), 1, atol=1e-3)


def test_powers_are_measured_on_so_many_windows_at_most_spread_over_the_sessions(
    tmp_path, monkeypatch
):
    write_recordings(tmp_path / "data", LENGTHS, SPLITS)
    task, read = small_task(tmp_path / "data", tmp_path, **NORMALIZED, data__normalize=False), []
    emg = SessionTable.emg

    def counted(self, files, session, start, stop):
        read.append((session, start, stop - start))
        return emg(self, files, session, start, stop)

    monkeypatch.setattr(SessionTable, "emg", counted)
    monkeypatch.setattr(statistics, "MOST_WINDOWS", 3)
    task.fit_statistics()
    last = (290 // 60 - 1) * 60
    assert [read[0], read[-1], len(read)] == [(0, 0, 60), (2, last, 60), 3]


def test_the_first_convolution_reads_long_correlations_of_its_newest_frame_alone(tmp_path):
    write_recordings(tmp_path / "data", LENGTHS, SPLITS)
    changes = NORMALIZED | {"model__conv_kernels": (3,)}
    stage = small_task(tmp_path / "data", tmp_path, **changes).init(nnx.Rngs(0)).encoder.stage_0
    strengths = stage.conv.kernel.shape[1]
    x = np.random.default_rng(0).normal(size=(1, 3, strengths + stage.newest.kernel.shape[0]))
    plain = np.asarray(stage.front(jnp.asarray(x, jnp.float32)))
    for frame, column, reads in ((0, 0, True), (1, strengths, False), (2, strengths, True)):
        other = x.copy()
        other[0, frame, column:] += 1
        assert (np.asarray(stage.front(jnp.asarray(other, jnp.float32))) != plain).any() == reads
