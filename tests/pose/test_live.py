"""Laws of live prediction: a played recording is the predicted file, a pipe gives its poses."""

import csv
import json
import os
import socket
import sys
import threading
import time

import h5py
import numpy as np
import pytest
from flax import nnx

from tds_jax.errors import UserError
from tds_jax.pose import leaving, live, prediction
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


MADE = {"run": "a", "step": 3}


def play(task, model, source, target, **options):
    job = live.Play(**{"chunk_ms": 70.0, "realtime": False} | options)
    return job.run(task, model, str(source), str(target), MADE)


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
    with h5py.File(tmp_path / "streamed.hdf5") as file:
        assert dict(file["prediction"].attrs) == MADE
    # The same f32 operations in other pieces.
    np.testing.assert_allclose(
        angles(tmp_path / "streamed.hdf5"), angles(tmp_path / "whole.hdf5"), atol=1e-5
    )
    # 333 rows of 100 Hz in chunks of 7; poses at rows 8, 12 ... 332.
    assert "48 chunks, 82 poses" in line
    assert "p50" in line
    assert "p99" in line


@pytest.mark.parametrize("name", ["out.hdf5", "out.csv"])
def test_what_is_there_is_not_played_over(base, tmp_path, monkeypatch, name):
    task, model = task_and_model(base)
    target = tmp_path / name
    target.write_text("of another day")
    source = "-" if target.suffix == ".csv" else base / "x.hdf5"
    with pytest.raises(UserError, match=rf"{name} is there already; .*with --overwrite$"):
        play(task, model, source, target)
    assert target.read_text() == "of another day"


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


def test_lines_are_headed_by_what_the_joints_are_called(tmp_path):
    """As files of predictions are: by data.joint_names, or emg2pose's names."""
    with leaving.opened(str(tmp_path / "o.csv"), ("thumb", "wrist"), 25.0, MADE) as out:
        out.write(0.04, None, np.array([1.0, -0.5]))
    text = (tmp_path / "o.csv").read_text()
    assert text == "time,thumb,wrist\n0.040000,1.000000,-0.500000\n"


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


def test_emg_in_another_unit_ends_a_stream_with_one_line(base, tmp_path, monkeypatch):
    """After a second of it, or where it ends before."""
    task, model = task_and_model(base)
    for rows in (ROWS["emg"] * 1000, ROWS["emg"][:60] / 1000):
        with pytest.raises(UserError, match=r"--input=-: the spread of its EMG is .*; bring it to"):
            piped(monkeypatch, task, model, tmp_path / "o.csv", [rows.astype("<f4").tobytes()])
        (tmp_path / "o.csv").unlink()
    loud = np.concatenate([ROWS["emg"][:200], 1e4 * ROWS["emg"][200:]]).astype("<f4")
    assert len(piped(monkeypatch, task, model, tmp_path / "o.csv", [loud.tobytes()])) == 82


def test_a_stream_of_lsl_comes_out_as_one_with_the_times_of_its_samples(base):
    """Through a real outlet and inlet; the last samples may be cut off where the sender goes."""
    lsl = pytest.importorskip("pylsl")
    task, model = task_and_model(base)
    emg, first = ROWS["emg"], 5000.0
    source, target = f"tds_jax test emg {os.getpid()}", f"tds_jax test poses {os.getpid()}"
    sender = [lsl.StreamOutlet(lsl.StreamInfo(source, "EMG", 4, 100, "float32", source))]
    found = []

    def answer():
        (info,) = lsl.resolve_byprop("name", target, 1, 20.0)
        inlet = lsl.StreamInlet(info, recover=False)
        inlet.open_stream(timeout=10.0)
        assert sender[0].wait_for_consumers(10.0)
        for start in range(0, len(emg), 37):
            stop = min(start + 37, len(emg))
            for row in range(start, stop):
                sender[0].push_sample(emg[row].tolist(), first + row / 100)
        while len(found) < 82:
            pose, stamp = inlet.pull_sample(timeout=10.0)
            assert pose is not None, len(found)
            found.append((stamp, pose))
        label = inlet.info().desc().child("channels").child("channel").child_value("label")
        found.append((label, inlet.info().desc().child_value("step")))
        sender.clear()

    other = threading.Thread(target=answer)
    other.start()
    line = play(task, model, f"lsl:{source}", f"lsl:{target}")
    other.join()
    assert found.pop() == ("joint_0", "3")
    expected = np.asarray(model(emg[None], None)[0])
    np.testing.assert_allclose([pose for _, pose in found], expected, atol=1e-5)
    at = first + (8 + 4 * np.arange(82)) / 100
    np.testing.assert_allclose([stamp for stamp, _ in found], at, atol=1e-6)
    assert "82 poses" in line


def test_poses_go_out_as_lines_and_datagrams_of_json(tmp_path):
    pose = np.array([0.25, -1.0], np.float32)
    expected = {"time": 0.08, "joint_angles": [0.25, -1.0]}
    with leaving.opened(str(tmp_path / "o.jsonl"), ("a", "b"), 25.0, {}) as out:
        out.write(0.08, None, pose)
    assert json.loads((tmp_path / "o.jsonl").read_text()) == expected
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
        port.bind(("127.0.0.1", 0))
        port.settimeout(5.0)
        target = f"udp:127.0.0.1:{port.getsockname()[1]}"
        with leaving.opened(target, ("a", "b"), 25.0, {}) as out:
            out.write(0.08, None, pose)
        assert json.loads(port.recv(1 << 16)) == expected
    with leaving.opened(target, ("a", "b"), 25.0, {}) as out:
        for _ in range(3):
            out.write(0.08, None, pose)  # nobody listens any more


def test_a_name_with_addresses_of_both_kinds_is_sent_to_at_its_ipv4_one(monkeypatch):
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, port, type: [
            (socket.AF_INET6, type, 17, "", ("::1", port, 0, 0)),
            (socket.AF_INET, type, 17, "", ("127.0.0.1", port)),
        ],
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
        port.bind(("127.0.0.1", 0))
        port.settimeout(5.0)
        target = f"udp:here:{port.getsockname()[1]}"
        with leaving.opened(target, ("a",), 25.0, {}) as out:
            out.write(0.5, None, np.zeros(1, np.float32))
        assert json.loads(port.recv(1 << 16))["time"] == 0.5


def test_streams_that_are_not_there_are_one_line(base, tmp_path, monkeypatch):
    task, model = task_and_model(base)
    for target, text in (
        ("udp:9000", "must be udp:HOST:PORT, such as udp:localhost:9000"),
        (str(tmp_path / "o.h5"), "ends in .h5, but what is written is .csv or .txt or .jsonl"),
    ):
        with pytest.raises(UserError, match=text):
            play(task, model, "-", target)
    with pytest.raises(UserError, match="lsl:poses needs --input=- or lsl:NAME; a recording is"):
        play(task, model, base / "x.hdf5", "lsl:poses")
    monkeypatch.setitem(sys.modules, "pylsl", None)
    with pytest.raises(UserError, match=r"lsl: needs pylsl .*; pip install 'tds_jax\[lsl\]'"):
        play(task, model, "lsl:emg", "-")


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
