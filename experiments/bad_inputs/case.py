"""A case: one command on one broken thing, and what it must say."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "configs" / "emg_hands.py")
# A few steps of the smallest network that is still the real one.
SMALL = {
    "model.notch_hz": (), "model.power_samples": (25, 125), "model.groups": (2,),
    "model.hidden": 8, "data.window": 400,
    "data.eval_window": 800, "data.synthetic_seconds": 5.0, "optim.batch_size": 4, "optim.steps": 2,
    "optim.warmup_steps": 1, "eval.every": 0, "log.plots": False,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
    """One command. prepare: folder -> changes it. args: after the door; {d} is the case's folder.

    says: texts the message must contain. code: expected exit code.
    """

    name: str
    door: str
    args: tuple[str, ...]
    says: tuple[str, ...]
    prepare: Callable[[Path], object] = lambda folder: None
    code: int = 2


def train(name: str, *extra: str, says: tuple[str, ...], **rest: object) -> Case:
    """A case of the train door on {d}/data; the flags in `extra` win."""
    flags = [f"--config.{key}={value}" for key, value in SMALL.items()]
    base = (f"--config={CONFIG}", "--workdir={d}/run", "--config.data.path={d}/data",
            "--config.data.cache_dir={d}/cache")  # fmt: skip
    return Case(name, "train", (*base, *flags, *extra), says, **rest)


def setting(name: str, value: object, *says: str) -> Case:
    """A case of one wrong setting; the message names it and its value."""
    flag = f"--config.{name}={value}"
    return train(f"{name}={value}", flag, says=(f"{name}={value}", *says))


def choice(name: str, value: str, *says: str) -> Case:
    """The same for a word, which the message may quote."""
    flag = f"--config.{name}={value}"
    return train(f"{name}={value}", flag, says=(f"{name}=", value, *says))


def predict(name: str, *args: str, says: tuple[str, ...], **rest: object) -> Case:
    """A case of the predict door on the trained run."""
    return Case(
        f"predict: {name}", "predict", ("--workdir={d}/../trained/run", *args), says, **rest
    )
