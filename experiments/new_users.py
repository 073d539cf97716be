"""Does a recording without labels help a model meet generated users that it has not seen?

    python -m experiments.new_users [--seed 0] [--users 8] [--together] [--workdir=DIR]

Recordings of freedoms, 30 s each: of every user to learn from three of free movement, of five more
users one free and one of the held-out stage. `before`: the small form of `powers`. `film`: with
model.user_embedding, learnt on the frozen model, of the average user; `calibrated`: of the unseen
user's other recording. --together: encoder, decoder and embedding learnt at once, too. Degrees,
each user alike; the gain is over `before`, its interval by drawing users. Updates are counted
beforehand and no checkpoint is chosen.
"""

import argparse
import csv
from pathlib import Path

import h5py
import numpy as np

import tds_jax
from experiments.new_wearing import answered
from tds_jax.pose import synthetic
from tds_jax.progress import silent

UNSEEN = 5
SMALL = {
    "optim.batch_size": 32,
    "optim.steps": 500,
    "data.gain_spread": 0.1,
    "eval.every": 0,
    "model.user_embedding": 8,
    "data.calibration_seconds": 30.0,
}
FINE = {"optim.steps": 200, "optim.learning_rate": 1e-3}
DRAWS = 10_000


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--together", action="store_true")
    parser.add_argument("--workdir", type=Path, default=Path("runs/new_users"))
    options = parser.parse_args()
    made = synthetic.Simulation(
        motion="freedoms",
        users=options.users,
        unseen=UNSEEN,
        sessions=3,
        seconds=30.0,
        seed=options.seed,
    )
    folder = options.workdir / "recordings"
    if not folder.exists():
        made.run(folder, silent)
        only_to_learn_from(folder, made)
    for stage, methods in measured(options, folder, made).items():
        for method, found in methods.items():
            gain = np.subtract(methods["before"], found)
            low, high = interval(gain)
            each = " ".join(f"{one:.1f}" for one in found)
            print(
                f"{stage:12} {method:20} {np.mean(found):5.2f} deg ({each}), "
                f"better by {gain.mean():.2f} ({low:.2f}..{high:.2f})"
            )


def only_to_learn_from(folder, made):
    """Moves all that is not free movement of seen users out, so that a run evaluates none of it."""
    names = {s.name: s for s in synthetic.sessions(made)}
    with (folder / "metadata.csv").open() as file:
        rows = list(csv.DictReader(file))
    kept = []
    for row in rows:
        session = names[row["filename"]]
        if session.user < made.users and session.stage == made.movement.free:
            # A run asks for a val, which nothing here is chosen by.
            val = (session.user, session.session) == (0, 0)
            kept.append(row | {"split": "val" if val else "train"})
        else:
            (folder / f"{session.name}.hdf5").rename(folder.parent / f"{session.name}.hdf5")
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(kept)


def measured(options, folder, made):
    """Stage -> method -> degrees of each unseen user."""
    settings, place = SMALL | {"seed": options.seed}, options.workdir
    before = tds_jax.train("powers", folder, place / "before", frozen=("film",), **settings)
    film = tds_jax.train(
        "powers", folder, place / "film", init_from=place / "before",
        frozen=("encoder", "decoder"), **settings | FINE,
    )  # fmt: skip
    runs = {"before": before, "film": film}
    if options.together:
        runs["together"] = tds_jax.train("powers", folder, place / "together", **settings)
    found = {}
    for user in range(made.users, made.users + made.unseen):
        pair = [one.name for one in synthetic.sessions(made) if one.user == user]
        for name, other in (pair, pair[::-1]):
            emg = recorded(place / f"{other}.hdf5")
            own = {
                f"{method}, calibrated": run.calibrate(emg, rate_hz=made.sample_rate)
                for method, run in runs.items()
                if run is not before
            }
            errors = found.setdefault(name.split("_", 2)[2], {})
            for method, run in (runs | own).items():
                degrees = float(np.rad2deg(answered(run, place, [name])))
                errors.setdefault(method, []).append(degrees)
    return found


def recorded(path):
    """EMG (T, C) of a recording."""
    with h5py.File(path) as stored:
        return stored["emg2pose/timeseries"]["emg"]


def interval(gain):
    """95 % of the mean gain of users drawn with replacement."""
    drawn = np.random.default_rng(0).integers(len(gain), size=(DRAWS, len(gain)))
    return np.percentile(gain[drawn].mean(axis=1), [2.5, 97.5])


if __name__ == "__main__":
    main()
