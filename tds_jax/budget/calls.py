"""Whether one call of the compiled step makes a whole update, or one micro-batch of it."""

from tds_jax import config as configuration
from tds_jax.budget.needs import Build, tree_bytes
from tds_jax.budget.targets import Target
from tds_jax.config import AUTO, Config
from tds_jax.engine.feed import DEVICE_PREFETCH

# Of the device's memory, what inputs may take that could wait on the host instead.
SHARE = 1 / 16


def decided(build: Build, config: Config, target: Target, budget: int) -> Config:
    """The config with `memory.call` decided where it is 'auto', for a device of so many bytes.

    A card waits where its host calls often, and holds the inputs of a whole batch easily: 'update'
    if they and those that wait for it take no more than SHARE of its bytes. On CPU a call costs
    next to nothing, and inputs are memory: 'micro_batch'.
    """
    if config.memory.call != AUTO:
        return config
    whole = configuration.replace(config, {"memory.call": "update"})
    inputs = tree_bytes(build(whole).call_spec) // target.mesh(config.optim.micro_batch).size
    easily = (1 + DEVICE_PREFETCH) * inputs <= SHARE * budget
    one = target.on_host or not easily
    return configuration.replace(config, {"memory.call": "micro_batch" if one else "update"})
