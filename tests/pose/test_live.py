"""Laws of live prediction: a played recording is the predicted file, a pipe gives its poses."""

import csv
import os
import threading
import time

import h5py
import numpy as np
import pytest
from flax import nnx

from tds_jax.errors import UserError
from tds_jax.pose import live, prediction
from tds_jax.pose.recording import FileRecording
from tests.data.sessions import make_rows, write_rows
from tests.pose.small import LENGTHS, SPLITS, small_task, write_recordings

ROWS = make_rows(333, seed=7)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    made = tmp_path_factory.mktemp("live")
    write_recordings(made / "data", LENGTHS, SPLITS)
    write_rows(made / "x.hdf5", ROWS)
    return made


def task_and_model(base, **changes):
    task = small_task(base / "data", base, **changes)
    return task, task.init(nnx.Rngs(1))


def play(task, model, source, target, **options):
    job = live.Play(**{"chunk_ms": 70.0, "realtime": False} | options)
    return job.run(task, model, str(source), str(target))


def angles(path):
    with h5py.File(path) as file:
        return file["prediction/joint_angles"][:]


@pytest.mark.parametrize("initial", ["zeros", "given"])
@pytest.mark.parametrize("alignment", ["fixed", "reference"])
def test_a_played_recording_is_its_prediction_in_alignment_fixed(
    base, tmp_path, initial, alignment
):
    changes = {"model__initial_pose": initial, "model__output": "velocity"}
    task, model = task_and_model(base, **changes, model__alignment=alignment)
    line = play(task, model, base / "x.hdf5", tmp_path / "streamed.hdf5")
    prediction.predict(task, model.aligned("fixed"), base / "x.hdf5", tmp_path / "whole.hdf5")
    # The same f32 operations in other pieces.
    np.testing.assert_allclose(
        angles(tmp_path / "streamed.hdf5"), angles(tmp_path / "whole.hdf5"), atol=1e-5
    )
    # 333 rows of 100 Hz in chunks of 7; poses at rows 8, 12 ... 332.
    assert "48 chunks, 82 poses" in line
    assert "p50" in line
    assert "p99" in line


def test_a_recording_plays_at_its_own_rate(base, tmp_path):
    write_rows(tmp_path / "short.hdf5", make_rows(100))
    task, model = task_and_model(base)
    took = {}
    for paced in (True, False):
        seconds = []
        run = live.Player(task, live.Stream(model), 10, paced)
        began = time.perf_counter()
        for _ in run(FileRecording(task, str(tmp_path / "short.hdf5"))):
            seconds.append(time.perf_counter() - began)
        took[paced] = seconds[-1] - seconds[0]
    # Its first pose comes with the chunk that ends at 0.1 s, its last with the one at 1.0 s.
    assert took[True] > 0.85 > took[False]


def piped(monkeypatch, task, model, target, pieces, initial_pose=()):
    """The lines written while a process at the other end of the pipe writes pieces of bytes."""
    out, into = os.pipe()

    def feed():
        with os.fdopen(into, "wb", buffering=0) as file:
            for piece in pieces:
                file.write(piece)

    writer = threading.Thread(target=feed)
    with os.fdopen(out, "rb") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        writer.start()
        play(task, model, "-", target, initial_pose=initial_pose)
        writer.join()
    with target.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("initial", ["zeros", "given"])
def test_a_pipe_gives_a_line_per_pose_wherever_its_bytes_are_cut(
    base, tmp_path, monkeypatch, initial
):
    task, model = task_and_model(base, model__initial_pose=initial)
    pose = (0.5, -0.5, 1.0) if initial == "given" else ()
    data = ROWS["emg"].astype("<f4").tobytes() + b"abc"
    pieces = [data[start : start + 37] for start in range(0, len(data), 37)]
    lines = piped(monkeypatch, task, model, tmp_path / "o.csv", pieces, pose)
    expected = np.asarray(model(ROWS["emg"][None], np.array([pose]) if pose else None)[0])
    found = np.array([[float(line[f"joint_{n}"]) for n in range(3)] for line in lines])
    np.testing.assert_allclose(found, expected, atol=1e-5)  # written with six digits
    times = [float(line["time"]) for line in lines]
    np.testing.assert_allclose(times, (8 + 4 * np.arange(len(lines))) / 100, atol=1e-6)


WRONG = {
    "no pose": ({"model__initial_pose": "given"}, "-", (), "initial_pose is missing: .* give 3"),
    "short pose": ({"model__initial_pose": "given"}, "-", (1.0,), "has 1 angles, the model has 3"),
    "nan pose": ({"model__initial_pose": "given"}, "-", (1.0, float("nan"), 0.0), "finite"),
    "needless pose": ({}, "-", (1.0,) * 3, "initial_pose='zeros' and starts by itself; leave"),
    "folder": ({}, ".", (), "is a folder; --stream plays one recording, name a file"),
    "windowed": ({"model__reference_rate": True}, "-", (), "reference_rate=True .* cannot be"),
}


@pytest.mark.parametrize(("changes", "source", "pose", "text"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_streamed_is_one_line_and_leaves_nothing(
    base, tmp_path, changes, source, pose, text
):
    task, model = task_and_model(base, **changes)
    with pytest.raises(UserError, match=text) as error:
        play(task, model, source, tmp_path / "o", initial_pose=pose)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_percentiles_are_those_of_the_sorted_list():
    latency = live.Latency()
    seconds = np.random.default_rng(0).gamma(2, 1e-3, 5000)
    for one in seconds:
        latency.add(one)
    for share in (0.5, 0.99):
        exact = np.sort(seconds)[int(share * 5000) - 1]
        assert exact <= latency.percentile(share) <= exact + 2 * live.BIN_SECONDS
    assert latency.longest == seconds.max()
    latency.add(7.0)
    assert latency.percentile(1.0) == pytest.approx(1.0)
