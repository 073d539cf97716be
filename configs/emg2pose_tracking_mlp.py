"""The emg2pose benchmark's tracking_emg2pose: an MLP decoder that begins at the true pose.

    python -m tds_jax.train --config=configs/emg2pose_tracking_mlp.py --config.data.path=DIR

For a GPU, not trained here. Predicted on a CPU: 1000 MiB on the device. Published on the real
recordings, one model: 11.33 / 15.39 / 15.05 degrees for unseen users / stages / both, which is
worse than holding the first pose (10.48 / 14.86 / 14.29): its output scale of 0.01 keeps positions
small (arXiv 2603.08212). 2,952,340 parameters.
"""

from ml_collections import ConfigDict

from configs import emg2pose_regression_mlp


def get_config() -> ConfigDict:
    """The regression MLP, told the first pose."""
    config = emg2pose_regression_mlp.get_config()
    config.model.initial_pose = "given"
    return config
