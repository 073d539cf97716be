"""How long does a chunk of a stream take, does memory stay, and what does 'fixed' change?

    python -m experiments.streaming_latency [--config configs/emg2pose_tracking.py] [--chunks 5000]
    python -m experiments.streaming_latency --hours 1
    python -m experiments.streaming_latency --workdir runs/a --recording FILE.hdf5

Streams noise through the config's network (random weights: the time does not depend on them) in
chunks of 20 ms, on one core, as fast as it goes; prints percentiles per chunk, and the time of what
the original does for each: a whole window again. With --hours also the resident memory on the way.
With --workdir instead: how far the poses of alignment 'fixed' are from those of 'reference', and
how far both are from a recording's labels.
"""

import argparse
import os
import runpy
import time
from pathlib import Path

import numpy as np
import psutil
from flax import nnx

from tds_jax import cli, tasks
from tds_jax import config as configuration
from tds_jax.engine import workdir
from tds_jax.engine.blueprint import Blueprint
from tds_jax.pose.labels import valid_rows
from tds_jax.pose.live import Latency
from tds_jax.pose.prediction import given_pose
from tds_jax.pose.recording import FileRecording, finite_emg
from tds_jax.pose.stream import Stream
from tds_jax.pose.table import DATASET, FIELDS

INPUTS = {"num_channels": 16, "num_joints": 20, "sample_rate": 2000.0}
CHUNK, WINDOW = 40, 11_790  # samples
CHUNKS_PER_HOUR = 3600 * 50


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/emg2pose_tracking.py")
    parser.add_argument("--chunks", type=int, default=5000)
    parser.add_argument("--hours", type=float, default=0)
    parser.add_argument("--workdir", type=Path)
    parser.add_argument("--recording")
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])  # before jax counts the cores
    if options.workdir:
        compare_alignments(options.workdir, options.recording)
        return
    values = runpy.run_path(options.config)["get_config"]().to_dict()
    config = configuration.resolve(values, tasks.groups("pose"))
    model = tasks.get(config, INPUTS).init(nnx.Rngs(0))
    measure(model, options.chunks)
    rerun(model)
    if options.hours:
        endure(model, round(options.hours * CHUNKS_PER_HOUR))


def noise(length):
    return np.random.default_rng(0).normal(0, 1, (1, length, 16)).astype(np.float32)


def rest(model):
    """The initial pose, where the model wants one."""
    return np.zeros((1, 20), np.float32) if model.initial_pose == "given" else None


def play(stream, state, chunks, wall, cpu):
    """The state after so many chunks, each timed until its poses are on the host."""
    emg = noise(CHUNK * 100)
    for n in range(chunks):
        start = n % 100 * CHUNK
        began, used = time.perf_counter(), time.process_time()
        state, _ = stream(stream.params, state, emg[:, start : start + CHUNK])
        wall.add(time.perf_counter() - began)
        cpu.add(time.process_time() - used)
    return state


def begin(model):
    """(stream, its state once the receptive field is filled)."""
    stream = Stream(model)
    state = stream.start(stream.params, 1, rest(model))
    return stream, play(stream, state, 200, Latency(), Latency())


def show(wall, cpu):
    """Others on the machine lengthen the wall time, not the processor time."""
    print(f"{wall.chunks} chunks of 20 ms on one core, machine load {os.getloadavg()[0]:.1f}")
    print(f"  wall time:      {wall}\n  processor time: {cpu}")


def measure(model, chunks):
    """Latency per chunk."""
    wall, cpu = Latency(), Latency()
    play(*begin(model), chunks, wall, cpu)
    show(wall, cpu)


def rerun(model):
    """What a chunk costs when the whole window is predicted again."""
    run, times, emg = nnx.jit(lambda model, *x: model(*x)), [], noise(WINDOW)
    initial = [pose for pose in [rest(model)] if pose is not None]
    for _ in range(6):
        began = time.perf_counter()
        np.asarray(run(model, emg, *initial))
        times.append(time.perf_counter() - began)
    print(f"window of {WINDOW} samples again: {np.median(times[1:]) * 1e3:.0f} ms")


def endure(model, chunks):
    """Resident memory over a long stream."""
    stream, state = begin(model)
    wall, cpu, process = Latency(), Latency(), psutil.Process()
    for part in range(7):
        minutes = wall.chunks / CHUNKS_PER_HOUR * 60
        print(f"{minutes:6.1f} min of stream: {process.memory_info().rss / 2**20:.1f} MiB resident")
        if part < 6:
            state = play(stream, state, chunks // 6, wall, cpu)
    show(wall, cpu)


def compare_alignments(folder, recording):
    """Angles of both alignments at every row that both predict."""
    config = cli.resolve(workdir.read_config(folder))
    task = tasks.get(config, workdir.read_inputs(folder))
    model, _ = workdir.load_model(Blueprint(task, config), folder)
    read = FileRecording(task, recording)
    rows = min(read.rows, config.data.window)
    emg = finite_emg(read, 0, rows)[None]
    (labels,) = task.files.rows(recording, config.data.group, DATASET, 0, rows, FIELDS[1:])
    found = {}
    for alignment in ("reference", "fixed"):
        one = model.aligned(alignment)
        initial = [x for x in [given_pose(one, read)] if x is not None]
        poses = np.asarray(one(emg, *initial))[0]
        at = one.left_context + np.arange(len(poses)) * one.step
        found[alignment] = np.stack([np.interp(range(rows), at, p) for p in poses.T], 1)
    seen = np.arange(rows) >= model.aligned("fixed").left_context
    known = seen & valid_rows(labels)
    apart = np.degrees(np.abs(found["fixed"] - found["reference"])[seen])
    print(f"between alignments: mean {apart.mean():.3f} deg, 99 % below "
          f"{np.percentile(apart, 99):.3f} deg, max {apart.max():.3f} deg")  # fmt: skip
    for alignment, poses in found.items():
        error = np.degrees(np.abs(poses - labels)[known]).mean()
        print(f"{alignment:>10}: {error:.3f} deg from the labels")


if __name__ == "__main__":
    main()
