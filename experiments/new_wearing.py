"""Does a minute from a new wearing of the band help a model of earlier ones?

    python -m experiments.new_wearing --data=DIR [--config=emg_hands] [--workdir=runs/new_wearing]

DIR: recordings with a metadata.csv whose column `session` says in which wearing each was made. Each
wearing with two recordings or more is left out in turn: a model of all others (before) meets its
later recordings; then it goes on from its parameters on the first one alone (fine-tuned), beside a
model of that one recording (alone). Without labels and
gradients: with model.user_embedding, learnt on the frozen model with wearings as users, of the
average wearing (film) and of the first recording's EMG (calibrated). Updates are counted
beforehand: no checkpoint is chosen, nothing is tuned on what is tested.
"""

import argparse
import csv
import shutil
from collections import defaultdict
from pathlib import Path

import h5py
import numpy as np

import tds_jax

FINE = {"optim.steps": 60, "optim.learning_rate": 1e-3}
FILM = {"model.user_embedding": 4, "data.calibration_seconds": 30.0}
RUNS = {
    "fine-tuned": ({"frozen": ("film",)}, FINE, True),
    "alone": ({}, {"optim.steps": 100}, False),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", default="emg_hands")
    parser.add_argument("--workdir", type=Path, default=Path("runs/new_wearing"))
    options = parser.parse_args()
    wearings, found = read(options.data), defaultdict(list)
    for name in (name for name, files in wearings.items() if len(files) > 1):
        errors = adapted(options, wearings, name)
        print(name, {method: f"{error:.3f}" for method, error in errors.items()}, flush=True)
        for method, error in errors.items():
            found[method].append(error)
    for method, errors in found.items():
        gain = np.subtract(found["before"], errors)
        print(
            f"{method:12} {np.mean(errors):.3f} ± {np.std(errors, ddof=1):.3f} rad, "
            f"better than before by {gain.mean():.3f} ± {gain.std(ddof=1):.3f}"
        )


def read(folder):
    """Wearing -> its files, in the order of the table."""
    found = defaultdict(list)
    with (folder / "metadata.csv").open() as file:
        for row in csv.DictReader(file):
            found[row["session"]].append(row["filename"])
    return found


def adapted(options, wearings, left_out):
    """Method -> MAE in radians on the wearing's later recordings."""
    place = options.workdir / left_out
    first, *later = wearings[left_out]
    others = [file for name, files in wearings.items() if name != left_out for file in files]
    # No checkpoint is chosen: what stands for val is not looked at.
    splits = {"train": others, "val": others[:1], "test": later}
    old = copied(options.data, place / "others", splits)
    splits = {"train": [first], "val": [first], "test": later}
    new = copied(options.data, place / "new", splits)
    unwatched = {"eval.every": 0}
    base = tds_jax.train(
        options.config, old, place / "before", frozen=("film",), **unwatched, **FILM
    )
    errors = {"before": answered(base, options.data, later)}
    film = tds_jax.train(
        options.config, old, place / "film", init_from=place / "before",
        frozen=("encoder", "decoder"), **unwatched, **FILM, **FINE,
    )  # fmt: skip
    own = film.calibrate(options.data / f"{first}.hdf5")
    errors |= {
        "film": answered(film, options.data, later),
        "calibrated": answered(own, options.data, later),
    }
    for method, (how, changes, goes_on) in RUNS.items():
        start = {"init_from": place / "before"} | FILM if goes_on else {}
        run = tds_jax.train(
            options.config, new, place / method, **start, **how, **unwatched, **changes
        )
        errors[method] = answered(run, options.data, later)
    return errors


def answered(run, folder, files):
    """MAE in radians of `predict`, where it has poses and the files have labels."""
    errors = []
    for file in files:
        with h5py.File(folder / f"{file}.hdf5") as stored:
            rows = stored["emg2pose/timeseries"][()]
            rate = float(stored["emg2pose"].attrs["sample_rate"])
        poses, labels = run.predict(rows["emg"], rate_hz=rate), rows["joint_angles"]
        counts = np.isfinite(poses).all(axis=1) & (np.abs(labels) > 1e-8).any(axis=1)
        errors.append(np.abs(poses - labels)[counts].mean(axis=1))
    return float(np.concatenate(errors).mean())


def copied(source, folder, splits):
    """The folder, with these files and a metadata.csv of their splits."""
    folder.mkdir(parents=True, exist_ok=True)
    wearing = {name: w for w, names in read(source).items() for name in names}
    lines = ["filename,user,split"]
    for split, files in splits.items():
        for file in files:
            name = f"{file}_{split}"
            shutil.copy(source / f"{file}.hdf5", folder / f"{name}.hdf5")
            lines.append(f"{name},{wearing[file]},{split}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


if __name__ == "__main__":
    main()
