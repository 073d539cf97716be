"""Pose from surface EMG, the middle-sized preset; every pose setting with its unit.

    python -m tds_jax.train --config=configs/default.py [--config.data.path=DIR]

2 CPU cores, 4.7 minutes of CPU time; predicted 434 MiB on the device, measured 1.15 GiB on the
host. Generated recordings of 13 poses, unseen sessions of seen users: R2 0.898 ± 0.004, MAE 0.063 ±
0.002 rad (`linear` 0.793). Of freedoms of eight users, as of configs/powers.py: R2 0.556 ± 0.011,
behind `linear` (0.65 ± 0.04). configs/low_memory.py is the same model and trajectory but for
rounding, in a quarter of the memory.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """TDS encoder (500 Hz features) and a two-layer LSTM decoder at 50 Hz."""
    config = base.get_config()
    config.task = "pose"

    config.model = ConfigDict()
    config.model.name = "tds"  # 'tds' | 'neuropose' (see configs/neuropose.py)
    # Causal filters of the EMG, part of the model: windows, whole files and streams get the same.
    # Hz; slower parts are taken off, 0 = none: 1 for an offset and its drift, 20 for motion.
    config.model.highpass_hz = 0.0
    config.model.lowpass_hz = 0.0  # Hz; faster parts are taken off, 0 = none
    config.model.notch_hz = ()  # Hz, of the hum of the mains: (50.0,) or (60.0,)
    # Of EMG that these filters see, and a window needs besides; a period of the lowest, or more.
    config.model.filter_seconds = 0.2
    # In the waveform's place: 'none' | 'rms' = the log of each electrode's RMS | 'covariance' =
    # that and the correlation of every pair of electrodes (C + C (C - 1) / 2 numbers).
    config.model.powers = "none"
    config.model.power_samples = (50,)  # lengths of the stretches, multiples of power_stride
    # Stretches of correlations alone, which the first convolution reads of its newest frame, not of
    # each; () = those of power_samples, read like the powers.
    config.model.correlation_samples = ()
    config.model.power_stride = 10  # samples from one such power to the next, before conv_strides
    config.model.power_normalize = True  # each by its mean and spread over the train split
    # One entry per TDS stage. Input of 2000 Hz -> 1000 Hz -> 500 Hz.
    config.model.conv_kernels = (5, 5)
    config.model.conv_strides = (2, 2)  # samples per frame, multiplied over the stages
    config.model.groups = (8, 8)  # channels = groups * widths
    config.model.widths = (4, 8)  # columns, which convolutions treat alike
    config.model.tds_kernels = (21, 11)  # along time
    config.model.tds_blocks = (2, 2)  # per stage
    # 'tds' | 'conformer' (attention and a convolution per channel; groups are heads, widths their
    # channels, tds_kernels and tds_blocks those of its blocks).
    config.model.encoder = "tds"
    # Frames before its own that a frame of a 'conformer' block sees: each block adds them to what a
    # window needs before its first pose, and a stream keeps their keys and values.
    config.model.attention_frames = 25
    config.model.expansion = 2  # channels inside a 'conformer' feed-forward / outside
    config.model.norm_order = "norm_relu"  # after each strided convolution; or 'relu_norm'
    config.model.conv_bias = False  # of the strided convolutions
    # Of the first stage: 0 = as norm_order says, which takes off how strong the EMG is as a whole |
    # n = the log of each channel's power over n of its frames in the place of norm and ReLU.
    config.model.log_power_frames = 0
    config.model.out_features = 0  # a last linear layer per frame; 0 = none
    config.model.dropout = 0.1  # after strided convolutions and between layers of the decoder
    # Numbers that tell users apart, made of a calibration recording (no labels, no gradient steps),
    # which scale and shift the encoder's features; 0 = none. predict --calibrate=FILE.
    config.model.user_embedding = 0
    config.model.decoder = "lstm"  # 'lstm' | 'mlp'
    config.model.hidden = 128  # units of a layer of the decoder's LSTM
    config.model.layers = 2  # of the LSTM
    config.model.mlp_hidden = (256, 128)  # units of the layers of an 'mlp' decoder
    config.model.slope = 0.1  # of the LeakyReLU before the read-out
    # 'scan' | 'fused' (one kernel for all steps of an 'lstm' on a CUDA card; hidden a multiple of
    # 16 up to 256) | 'auto' (the faster one where it was measured: nowhere yet, so 'scan').
    config.model.decoder_kernel = "auto"
    config.model.rollout_freq = 50.0  # decoder steps per second
    config.model.output = "position"  # 'position' | 'velocity' | 'hybrid'
    config.model.output_scale = 1.0  # what leaves the decoder is multiplied by it
    # 'zeros' | 'learned' | 'given' (tracking: the label) | 'mixed' (in training the label for
    # tracking_share of the examples and the learned pose for the others).
    config.model.initial_pose = "zeros"
    # A new run with output 'position' begins about the mean pose of the train split. False: about
    # zero; two LSTM layers and a rate of 4e-3 then go to that pose, and of motion that is hard to
    # read stay there for hundreds of updates.
    config.model.start_at_mean = True
    config.model.tracking_share = 0.875  # of 'mixed'; 7 to 1 as in arXiv 2603.08212
    # 'fixed': step n is the pose at sample left_context + n * step; causal, can be streamed.
    # 'reference': as emg2pose computes; frames and poses are spread over the whole window.
    config.model.alignment = "fixed"
    config.model.reference_rate = False  # True repeats a decoding defect of the original
    # What leaves the decoder outside training: 'none' | 'speed_adaptive' (causal, `pose.filters`;
    # Hadidi et al., arXiv 2603.08212, smooth so). quick_demo on unseen sessions: jerk / 3, mean
    # speed 41.9 -> 29.3 deg/s (labels: 27.8), for 3.60 instead of 3.56 deg of error; gain 0 at 4 Hz
    # is as smooth and costs 3.76 (experiments/output_filter.py).
    config.model.output_filter = "none"
    config.model.filter_cutoff = 2.0  # Hz at rest
    config.model.filter_gain = 4.0  # Hz more per rad/s of the joint
    config.model.filter_speed_cutoff = 2.0  # Hz, of the speed itself

    config.optim.steps = 400
    config.optim.learning_rate = 4e-3
    config.optim.warmup_steps = 20
    config.eval.every = 50
    config.eval.patience = 5
    # Your copy of a UmeTrack hand model (JSON), for distances in mm; '' = our own hand of 190 mm.
    config.eval.hand_model = ""
    # Metrics of one's own, ('package.module:function',), see docs/own_parts.md.
    config.eval.own = ()

    # Steps of the decoder redone together going backward; 0 keeps all of them. 32 of 1000 steps:
    # its activations ÷18, +41 to +64 % of its time; for long windows.
    config.memory.decoder_chunk = 0

    config.loss = ConfigDict()
    config.loss.mse_weight = 1.0  # of squared errors, rad²
    config.loss.mae_weight = 0.5  # of absolute errors, rad
    # Per mm of the mean fingertip distance (emg2pose: 0.01); needs 20 joints in its order.
    config.loss.fingertip_weight = 0.0
    # False: compare at the decoder's steps (labels carry nothing above 15 Hz).
    # True: at every sample of the recording; 40 x the label bytes at 2 kHz.
    config.loss.every_sample = False
    # A loss of one's own, 'package.module:function', added to the others; '' = none.
    config.loss.own = ""

    config.data = ConfigDict()
    config.data.path = ""  # folder of sessions; '' = generated ones, built once
    # Data of one's own instead of files, 'package.module:Name', see docs/own_parts.md; '' = none.
    config.data.source = ""
    # HDF5 group that holds `timeseries`; or where arrays of other names lie, of emg, joint_angles,
    # time, joint_angles_time and sample_rate: 'emg=signals/semg, joint_angles=kin/q, time=t'
    config.data.group = "emg2pose"
    config.data.cache_dir = ""  # generated data and indexes; '' = the user's cache folder
    config.data.window = 2000  # samples, left context included: 1 s at 2 kHz
    config.data.stride = 1000  # samples between the starts of training windows
    config.data.eval_window = 16000  # 8 s: the start-up of the decoder weighs less
    config.data.jitter = True  # random phase of each training window
    config.data.rotation = 0  # training windows are rolled by up to so many electrodes; 0 = off
    # Training windows as other sessions might be, in units of each electrode's spread; 0 = off.
    config.data.noise = 0.0  # standard deviation of white noise
    config.data.gain_spread = 0.0  # of the log of a gain per electrode and window: 0.3 = ±35 %
    config.data.channel_drop = 0.0  # probability that an electrode is silent for a window
    # Of EMG that tells whose a window is: of another session of the user, for user_embedding.
    config.data.calibration_seconds = 30.0
    # Rows whose label failed, in training windows (evaluation always masks, over the same rows):
    # 'mask' = weight 0, nothing is lost | 'blocks' = windows inside runs of valid rows only |
    # 'reference' = as emg2pose cuts such runs, which loses the last 2 samples of each.
    config.data.failures = "mask"
    # Names as in metadata.csv or the files' attributes; () = all. Other sessions are left out.
    config.data.users = ()
    config.data.stages = ()  # as users
    config.data.sides = ()  # as users
    # Share of the train sessions used: the first of an order that `seed` fixes, so that a smaller
    # share is a part of a larger one.
    config.data.subsample = 1.0
    # Columns of the files' EMG, in the order the model gets them; () = all. (0, 2, …, 14): every
    # second electrode of 16. predict and evaluate apply the same to their files.
    config.data.channels = ()
    # What reports, figures and predictions call the joint angles, in the order of the files; () =
    # emg2pose's names for 20, joint_0, joint_1 … for others. Those named after a finger are its;
    # landmarks are of emg2pose's 20 in its order, not of 20 others.
    config.data.joint_names = ()
    # Joints, by these names, whose angles change sign for left hands, labels and predictions alike.
    # emg2pose is said to flip signs of left hands; which ones, and whether its files have it done
    # already, our sources do not say: none.
    config.data.flip_left = ()
    # Of the labels: 'auto' = by the files' attribute angle_unit, else radians, and files that reach
    # beyond 2 pi are refused | 'rad' = as they are | 'deg' = all are degrees, converted.
    config.data.angle_unit = "auto"
    # Without a metadata.csv: 'session' | 'user' = all of a user's sessions in one split | 'time' =
    # each recording in parts, a second apart. Of fewer than three sessions always 'time'.
    config.data.split_by = "session"
    config.data.split_ratio = (0.7, 0.15, 0.15)  # train, val, test, when there is no metadata.csv
    # Cross-validation: '2/5' = the second of five parts, of users with split_by 'user' or else of
    # sessions, is test, the next val | 'user=NAME' = that user is | '' = none. Wins over
    # metadata.csv. train --folds=5 and --leave_one_user_out go through all.
    config.data.fold = ""
    config.data.normalize = True  # per channel, from the train split
    config.data.max_samples_for_normalize = 0  # rows; 0 = all
    config.data.max_bad_sessions = 10  # unreadable sessions skipped with a warning before giving up
    config.data.workers = 0  # reading processes (~50 MiB each); 0 = threads of this one
    config.data.threads = 2  # that read, where there are no workers
    config.data.prefetch = 4  # batches read ahead
    config.data.persistent_workers = True  # False: stopped during evaluation, ~2 s to restart
    # Per open file of chunked data: at most max_open_files times this, in every reading process.
    config.data.chunk_cache_bytes = 4 * 2**20
    config.data.chunk_cache_preemption = 0.75  # 1 = forget fully read chunks first
    config.data.max_open_files = 16  # per reading process
    # Generated hands move between 13 'poses', or have 'freedoms', each of which moves by itself.
    config.data.synthetic_motion = "poses"
    config.data.synthetic_users = 3  # generated data: users seen in training
    config.data.synthetic_unseen = 1  # users seen in testing only
    config.data.synthetic_sessions = 7  # per user; one is val, one is test
    config.data.synthetic_seconds = 40.0  # per session
    config.data.synthetic_seed = 0  # the same gives the same bytes
    return config
