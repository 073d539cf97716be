"""Does a recording without labels help a model meet generated users that it has not seen?

    python -m experiments.new_users [--seed 0] [--users 8] [--workdir=runs/new_users]

Recordings of freedoms, 5 users in testing only. `before`: the small form of `powers`. `film`: with
model.user_embedding, learnt on the frozen model, of the average user; `calibrated`: of the unseen
user's other recording, 30 s of it. `together`: encoder, decoder and embedding learnt at once, of
the average user and calibrated. Each unseen user's free recording is calibrated by the one of the
held-out stage, and the other way round. Degrees, each user alike; the gain is over `before`, its
interval by drawing users. Updates are counted beforehand and no checkpoint is chosen.
"""

import argparse
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
}
FILM = {"model.user_embedding": 8, "data.calibration_seconds": 30.0}
FINE = {"optim.steps": 200, "optim.learning_rate": 1e-3}
DRAWS = 10_000


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--workdir", type=Path, default=Path("runs/new_users"))
    options = parser.parse_args()
    folder = options.workdir / "recordings"
    made = synthetic.Simulation(
        motion="freedoms", users=options.users, unseen=UNSEEN, sessions=4, seed=options.seed
    )
    if not folder.exists():
        made.run(folder, silent)
    errors = measured(options, folder, made)
    for stage, methods in errors.items():
        for method, found in methods.items():
            gain = np.subtract(methods["before"], found)
            low, high = interval(gain)
            print(
                f"{stage:12} {method:21} {np.mean(found):5.2f} deg "
                f"{[round(float(one), 1) for one in found]}, "
                f"better by {gain.mean():.2f} ({low:.2f}..{high:.2f})"
            )


def measured(options, folder, made):
    """Stage -> method -> degrees of each unseen user."""
    settings = SMALL | {"seed": options.seed} | FILM
    base = tds_jax.train("powers", folder, options.workdir / "before", frozen=("film",), **settings)
    film = tds_jax.train(
        "powers", folder, options.workdir / "film", init_from=options.workdir / "before",
        frozen=("encoder", "decoder"), **settings | FINE,
    )  # fmt: skip
    together = tds_jax.train("powers", folder, options.workdir / "together", **settings)
    stages = {made.movement.free: 0, made.movement.held_out: 1}
    users = range(made.users, made.users + made.unseen)
    found = {}
    for stage, session in stages.items():
        other = next(name for name in stages if name != stage)
        errors = found.setdefault(stage, {})
        for user in users:
            name = f"user{user:02d}_session{session:02d}_{stage}"
            heard = emg_of(folder / f"user{user:02d}_session{1 - session:02d}_{other}.hdf5")
            for method, run in {
                "before": base,
                "film": film,
                "film, calibrated": film.calibrate(heard, rate_hz=made.sample_rate),
                "together": together,
                "together, calibrated": together.calibrate(heard, rate_hz=made.sample_rate),
            }.items():
                errors.setdefault(method, []).append(np.rad2deg(answered(run, folder, [name])))
    return found


def emg_of(path):
    """The first 30 s of a recording, (T, C)."""
    with h5py.File(path) as stored:
        rate = float(stored["emg2pose"].attrs["sample_rate"])
        return stored["emg2pose/timeseries"]["emg"][: round(30 * rate)]


def interval(gain):
    """95 % of the mean gain of users drawn with replacement."""
    drawn = np.random.default_rng(0).integers(len(gain), size=(DRAWS, len(gain)))
    return np.percentile(gain[drawn].mean(axis=1), [2.5, 97.5])


if __name__ == "__main__":
    main()
