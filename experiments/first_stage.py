"""Does the first stage of an encoder hand on how strong the EMG is?

    python -m experiments.first_stage

Of generated recordings of freedoms, 2 users, 30 s each: R² with which a ridge reads the log-RMS of
the electrodes over 50 ms, their mean (how strong the EMG is as a whole) and each about that mean
(its pattern), from the means over the same 50 ms of what an untrained first stage gives. Half of
the seconds to fit, the other half to test.
"""

import importlib

import jax.numpy as jnp
import numpy as np
from flax import nnx

from tds_jax.pose import synthetic
from tds_jax.pose.tds import TDSStage

STRETCH, RATE = 100, 2000
SECOND = RATE // STRETCH  # stretches
CASES = {
    "norm, ReLU": {},
    "ReLU, norm": {"norm_order": "relu_norm"},
    "log of power over 20 frames": {"log_power_frames": 20},
}


def recorded():
    """(T, C) EMG, one recording after the other, each electrode of mean 0 and spread 1."""
    made = synthetic.Simulation(motion="freedoms", users=2, seconds=30.0)
    chosen = [one for one in synthetic.sessions(made) if one.session == 0 and one.user < made.users]
    emg = np.concatenate([synthetic.record(made, one)[0] for one in chosen])
    return (emg - emg.mean(axis=0)) / emg.std(axis=0)


def first_stage(model, channels, **changes):
    """The first stage that the settings ask for, untrained."""
    settings = {"norm_order": model.norm_order, "conv_bias": False, "log_power_frames": 0}
    return TDSStage(
        channels,
        model.groups[0],
        model.widths[0],
        model.conv_kernels[0],
        model.conv_strides[0],
        1,
        0,
        dropout=0.0,
        make_block=lambda *_: None,
        dtype=jnp.float32,
        rngs=nnx.Rngs(0),
        **settings | changes,
    )


def means(rows, frames):
    """(N, C): means over `frames` rows each."""
    count = len(rows) // frames
    return rows[: count * frames].reshape(count, frames, -1).mean(axis=1)


def readable(x, y):
    """R² of the ridge, on the seconds of odd number."""
    test = np.arange(len(x)) // SECOND % 2 == 1
    x = np.c_[x, np.ones(len(x))]
    gram = x[~test].T @ x[~test] + 1e-2 * np.eye(x.shape[1])
    error = x[test] @ np.linalg.solve(gram, x[~test].T @ y[~test]) - y[test]
    return 1 - np.square(error).sum() / np.square(y[test] - y[test].mean(axis=0)).sum()


def main():
    emg = recorded()
    logs = 0.5 * np.log(means(emg**2, STRETCH) + 1e-3)
    whole = logs.mean(axis=1, keepdims=True)
    for name in ("quick_demo", "default"):
        model = importlib.import_module(f"configs.{name}").get_config().model
        for case, changes in CASES.items():
            stage = first_stage(model, emg.shape[1], **changes)
            found = np.asarray(stage.front(jnp.asarray(emg[None], jnp.float32)))[0]
            x = means(found, STRETCH // model.conv_strides[0])
            count = min(len(x), len(logs))
            strength = readable(x[:count], whole[:count])
            pattern = readable(x[:count], (logs - whole)[:count])
            print(f"{name:10} {case:28} strength {strength:.3f}  pattern {pattern:.3f}", flush=True)


if __name__ == "__main__":
    main()
