"""The emg2pose benchmark's regression model (regression_vemg2pose) and its published recipe.

    python -m tds_jax.train --config=configs/emg2pose_regression.py --config.data.path=DIR

For a GPU, not trained here but in small (experiments/emg2pose_small.py). Predicted on a CPU: 823
MiB on the device. Published on the real recordings, one model: 12.24 / 15.22 / 15.63 degrees for
unseen users / stages / both (constant pose: 16.86 / 19.18 / 18.87).

No true pose is given: it begins at zeros, outputs positions for 0.25 s and velocities afterwards.
5,980,328 parameters in PyTorch, 5,976,232 here (one LSTM bias instead of two that are summed).
"""

from ml_collections import ConfigDict

from configs import emg2pose_tracking


def get_config() -> ConfigDict:
    """The tracking network with twice the outputs; its gradients are not clipped."""
    config = emg2pose_tracking.get_config()
    config.model.output = "hybrid"
    config.model.initial_pose = "zeros"
    config.optim.clip_norm = 0.0
    return config
