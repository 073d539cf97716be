"""The emg2pose benchmark's tracking model (tracking_vemg2pose) and its published recipe.

    python -m tds_jax.train --config=configs/emg2pose_tracking.py --config.data.path=DIR
    python -m tds_jax.import_torch --config=configs/emg2pose_tracking.py --checkpoint=FILE.ckpt \\
        --workdir=runs/tracking          # published weights; then evaluate, predict or train

For a GPU, not trained here but in small (experiments/emg2pose_small.py). Predicted on a CPU: 822
MiB on the device; 473 MiB with --config.optim.accumulate=8, and the same result. Published on the
real recordings, one model: 7.70 / 11.20 / 11.03 degrees for unseen users / stages / both (mean over
users; holding the first pose: 10.48 / 14.86 / 14.29).

Tracking begins at the true pose of the first supervised sample. 5,970,068 parameters in PyTorch,
5,965,972 here (its LSTM has two biases per gate that are only ever summed).
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """TDS encoder to 25 Hz features, a two-layer LSTM of 512 at 50 Hz that outputs velocity."""
    config = default.get_config()

    config.model.conv_kernels = (11, 5, 17, 9)
    config.model.conv_strides = (5, 2, 4, 2)  # 2000 Hz -> 400 -> 200 -> 50 -> 25 Hz
    config.model.groups = (16, 16, 16, 16)
    config.model.widths = (16, 16, 16, 16)
    config.model.tds_kernels = (1, 1, 9, 5)
    config.model.tds_blocks = (0, 0, 2, 2)  # left context 1790 samples
    config.model.norm_order = "relu_norm"
    config.model.conv_bias = True
    config.model.out_features = 64
    config.model.dropout = 0.0
    config.model.decoder = "lstm"
    config.model.hidden = 512
    config.model.layers = 2
    config.model.mlp_hidden = (512, 512)
    config.model.slope = 0.01
    config.model.output = "velocity"
    config.model.output_scale = 0.01  # 1.0 trains position models better: arXiv 2603.08212
    config.model.initial_pose = "given"
    config.model.start_at_mean = False
    config.model.alignment = "reference"  # 'fixed' with the same weights can be streamed

    config.loss.mse_weight = 0.0
    config.loss.mae_weight = 1.0  # per radian
    config.loss.fingertip_weight = 0.01  # per mm

    # 500 epochs at most. The 287 h of its train split are 175,000 windows: 2,740 updates of 64.
    config.optim.batch_size = 64
    config.optim.steps = 500 * 2740
    config.eval.every = 2740
    config.eval.patience = 50
    config.eval.min_delta = 0.0
    config.eval.batch_size = 16
    config.checkpoint.every = 500
    config.log.every = 50
    config.optim.optimizer = "adam"
    config.optim.weight_decay = 0.0
    config.optim.learning_rate = 1e-3
    config.optim.schedule = "constant"
    config.optim.warmup_steps = 0
    config.optim.clip_norm = 1.0
    config.optim.accumulate = 4  # micro-batches of 16

    config.data.window = 11_790  # 5 s of supervised samples
    config.data.stride = 11_790
    config.data.eval_window = 11_790
    config.data.rotation = 1
    config.data.normalize = False  # the recordings come scaled to their noise floor
    return config
