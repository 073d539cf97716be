"""Networks that are used but not trained: their weights are data, stored with every checkpoint."""

from typing import TypeVar

from flax import nnx

from tds_jax.nn.normalizer import Statistic

M = TypeVar("M", bound=nnx.Module)


def freeze(module: M) -> M:
    """The module itself, every `Param` in it turned into a `Statistic` of the same value.

    The engine then keeps its weights in `rest`: no gradient, no update, no weight decay.
    """
    for _, node in list(nnx.iter_graph(module)):
        if isinstance(node, nnx.Module):
            for name, value in list(vars(node).items()):
                if isinstance(value, nnx.Param):
                    setattr(node, name, Statistic(value[...]))
    return module
