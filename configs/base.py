"""Settings of the engine, the same for every task. Each is written here once, with its cost.

Override on the command line: --config.optim.batch_size=8. Tasks add `model`, `data` and `loss`.

How to read what the other configs claim. Minutes: user and system time on two busy cores,
generating data and compiling included. On the device: what `train` says a step needs, by its
compiler. On the host: all processes from start to the end of the evaluation, as `train` says at its
end. Errors: of the test split, mean ± standard deviation over seeds 0, 1, 2.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The engine's groups."""
    config = ConfigDict()
    config.seed = 0

    config.optim = ConfigDict()
    config.optim.batch_size = 64  # effective batch: examples per update; never changes meaning
    # Micro-batches per update. Activations shrink by this factor, the result does not change;
    # costs one optimizer pass and one parameter-sized buffer per micro-batch.
    config.optim.accumulate = 1
    config.optim.steps = 1000  # updates
    config.optim.optimizer = "adamw"  # 'adamw' | 'adam' (L2 decay) | 'sgd'
    config.optim.learning_rate = 1e-3  # the highest; 'constant': all of them
    config.optim.schedule = "warmup_cosine"  # 'constant' | 'warmup_cosine'
    config.optim.warmup_steps = 50  # updates over which the rate rises from 0
    config.optim.end_factor = 0.0  # last learning rate / peak
    config.optim.weight_decay = 0.01  # not on norms and biases
    config.optim.clip_norm = 1.0  # global norm of the mean gradient; 0 = off
    # Evaluate and use a moving average of the parameters over about 1 / (1 - ema_decay) updates
    # (0.999: 1000; fewer while young); costs their size once more. 0 = off.
    config.optim.ema_decay = 0.0
    # A workdir whose parameters a new run begins with; '' = at random. Its model must be the same;
    # what is measured on data (normalisation) is measured anew.
    config.optim.init_from = ""
    # Parameters that stay as they are, by patterns of their paths: ('encoder',) or ('*/bias',).
    # They need neither moments nor gradients. Running means of BatchNorm are no parameters.
    config.optim.frozen = ()

    config.memory = ConfigDict()
    # '' = train as the settings below say. A size ('1GiB') or 'auto' (what the device has): the
    # cheapest of micro-batch x recomputation that fits is found before training. The
    # effective batch, and with it the result, stays. On CPU these bytes are part of the host's.
    config.memory.budget = ""
    config.memory.host_budget = ""  # the same for the process and its workers in host memory
    config.memory.allow_bfloat16 = False  # True: a budget may also choose dtype='bfloat16'
    # What one call of the compiled program does. 'micro_batch': one of them; the host calls again
    # for the next. 'update': all of an update's, one after the other, and the optimizer once; takes
    # the inputs of a whole batch, and a signal waits for the update's end. 'auto': 'update' on a
    # card whose memory holds those inputs easily, for a card waits where a host calls often.
    config.memory.call = "auto"
    # What several devices hold of parameters, moments and sums of gradients. 'none': all of it,
    # each. 'fsdp': each its part; costs fetching the others' parts at every call. Same result.
    config.memory.shard = "none"
    # What the backward pass keeps. 'none': everything. 'names': block outputs. 'dots': results of
    # products and convolutions. 'full': nothing, at the price of one more forward pass. XLA undoes
    # it on CPU.
    config.memory.remat = "none"
    # 'bfloat16' halves activations (rms error ~1e-3); parameters, carries and losses stay f32.
    config.memory.dtype = "float32"
    config.memory.matmul_precision = "default"  # 'highest' = true f32 on GPU and TPU, slower
    config.memory.preallocate = True  # take the GPU's memory at once; False to share the card
    config.memory.fraction = 0.0  # share of the card this process may take; 0 = XLA's own (0.75)
    # Where compiled programs are kept for the next start, a few MB each: 'auto' = in .compiled
    # beside the workdir, 'off', or a folder.
    config.memory.compile_cache = "auto"
    # What repeats bit for bit on a card; on CPU everything does. 'card': runs of one seed on cards
    # of a kind: sums in one order, and no kernel chosen by timing it, which saves that time, too.
    # 'run': a run that was killed, while its compiled programs are kept; kernels are chosen by
    # timing them. 'off': neither. Their prices are not measured yet: experiments/card.py does.
    config.memory.deterministic = "card"

    config.eval = ConfigDict()
    config.eval.every = 100  # steps between looks at `val`; 0 = never
    config.eval.batch_size = 4  # examples at once; they may be longer than training's
    config.eval.metric = "loss"  # the value on `val` that decides which checkpoint is best
    config.eval.mode = "min"  # 'min' | 'max'
    config.eval.min_delta = 1e-4  # smaller improvements do not count
    config.eval.patience = 0  # evaluations without improvement before stopping; 0 = never stop

    config.checkpoint = ConfigDict()
    config.checkpoint.every = 100  # steps; also after every evaluation; 0 = only then
    config.checkpoint.keep = 2  # latest ones kept, beside the best

    config.log = ConfigDict()
    config.log.every = 10  # steps per line of metrics.jsonl
    # ('tensorboard', 'wandb', 'mlflow'), each an extra of its name. Nothing is sent: W&B is offline
    # unless WANDB_MODE is set, MLflow in the workdir unless MLFLOW_TRACKING_URI is.
    config.log.to = ()
    config.log.plots = True  # learning curves after every evaluation
    # Updates that are traced, from the second of this start on, into the workdir's profile/, for
    # xprof or Perfetto; 0 = none. Tracing slows these updates down and changes nothing else.
    config.log.profile = 0
    return config
