"""Settings of the fourth domain: the engine's, and its own few."""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """A minute's worth of sines."""
    config = base.get_config()
    config.task = "signal"
    config.model = ConfigDict({"hidden": 32})
    config.data = ConfigDict(
        {
            "path": "", "length": 64,
            "workers": 0, "threads": 0, "prefetch": 2, "persistent_workers": True,
        }
    )  # fmt: skip
    config.loss = ConfigDict()
    config.optim.steps = 120
    config.optim.accumulate = 2
    config.optim.warmup_steps = 10
    config.optim.learning_rate = 5e-3
    return config
