"""Pose within one GiB: the default network, micro-batches of 16, four to an update."""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Same trajectory as batch 64 in one piece."""
    config = default.get_config()
    config.optim.accumulate = 4
    config.memory.decoder_chunk = 25
    config.optim.steps = 100
    return config
