"""The emg2pose benchmark's regression_emg2pose: an MLP decoder, published recipe.

    python -m tds_jax.train --config=configs/emg2pose_regression_mlp.py --config.data.path=DIR

For a GPU, not trained here. Predicted on a CPU: 999 MiB on the device; 293 MiB with
--config.optim.accumulate=4, and the same result. Published on the real recordings, one model: 12.57
/ 15.17 / 15.57 degrees for unseen users / stages / both (constant pose: 16.86 / 19.18 / 18.87).
2,952,340 parameters.
"""

from ml_collections import ConfigDict

from configs import emg2pose_tracking


def get_config() -> ConfigDict:
    """Each step reads the features and its last pose; half the window of the LSTM's recipe."""
    config = emg2pose_tracking.get_config()
    config.model.decoder = "mlp"
    config.model.output = "position"
    config.model.initial_pose = "zeros"
    config.data.window = 5_790  # 2 s of supervised samples
    config.data.stride = 5_790
    config.optim.steps = 500 * 5580  # 357,000 windows in 287 h
    config.eval.every = 5580
    config.optim.accumulate = 1
    return config
