"""A pose model beside its baselines, pooled and by group; O(sessions x joints) memory."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tds_jax.data.pipeline import Loader
from tds_jax.engine import metrics
from tds_jax.engine.metrics import Regression
from tds_jax.engine.report import ALL, MODEL, Report, Row
from tds_jax.engine.step import Batch
from tds_jax.pose import baselines, figures
from tds_jax.pose.joints import fingers, joint_names
from tds_jax.pose.windows import PoseWindows, session_blocks

if TYPE_CHECKING:
    from tds_jax.pose.task import PoseTask

DEGREES = 180 / np.pi
HEADLINE = ("mae_deg", "mae_rad", "rmse_rad", "mse", "r2")
# Sessions of seen users and stages carry the headline; other generalizations stand beside it.
SEEN = ("none", "session", "")
GROUPS = ("generalization", "user", "stage", "side")
SHOWN_GROUPS = ("generalization", "finger")
# Rows per read while the baselines stream over the train split: 30 s at 2 kHz.
BASELINE_ROWS = 60_000

States = dict[int, Regression]


@dataclasses.dataclass(frozen=True)
class Fitted:
    """Baselines fitted to the train split: constant poses (J,), and the log-RMS ridge."""

    constants: dict[str, np.ndarray]
    ridge: baselines.LogRmsRidge


def fit_baselines(task: "PoseTask") -> Fitted:
    """One streaming pass over the train split."""
    table = task.table.select("train")
    mean, median = baselines.ConstantMean(table.joints), baselines.ConstantMedian(table.joints)
    ridge = baselines.LogRmsRidgeFit(table.channels, table.joints, table.rate_hz)
    chunks = (
        (block.emg, block.joint_angles, block.valid)
        for session in range(len(table))
        for block in session_blocks(table, task.files, session, BASELINE_ROWS)
    )
    baselines.fit(chunks, mean, median, ridge)
    constants = {
        "constant": mean.result(),
        "constant_median": median.result(),
        "zero": np.zeros(table.joints, np.float32),
    }
    return Fitted(constants, ridge.result())


def evaluate(task: "PoseTask", model: nnx.Module, split: str, plots: Path | None) -> Report:
    """Report of model and baselines on a split; with `plots`, figures go there.

    Windows tile each session and every supervised row counts once. hold_initial repeats the first
    valid row of each window; ridge sees the same past the model may see, and 0.4 s more.
    """
    source = task.source(split)
    fitted = fit_baselines(task)
    compare = jax.jit(Regression.of)
    found: dict[str, States] = {}
    trace: figures.Trace | None = None
    for batch, poses in predictions(task, model, source):
        for name, values in _methods(source, fitted, batch, poses).items():
            states = metrics.to_host(compare(values, batch["joint_angles"], batch["weight"]))
            _merge(found.setdefault(name, {}), batch, states)
        trace = trace or figures.Trace.of(batch, poses)
    table = source.table
    rows = _rows(split, found, {int(n): i for i, n in enumerate(table.number)}, table)
    report = Report(rows, HEADLINE, SHOWN_GROUPS)
    if plots is not None and trace is not None:
        rate = table.rate_hz / source.spec.label_stride
        figures.draw_angles(plots / f"{split}_angles.png", trace, rate, split)
        figures.draw_methods(plots / f"{split}_methods.png", report, split)
    return report


def predictions(
    task: "PoseTask", model: nnx.Module, source: PoseWindows
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """(batch, poses (B, N, J)) over a source, in order; weights are the task's."""
    graphdef, state = nnx.split(model)

    @jax.jit
    def run(state: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        return task.poses(nnx.merge(graphdef, state), batch, train=False), task.weights(batch)

    data = task.config.data
    loader = Loader(
        source,
        micro_batch=task.config.eval.batch_size,
        seed=task.config.seed,
        train=False,
        workers=0,
        threads=data.threads,
        prefetch=data.prefetch,
    )
    with contextlib.closing(loader):
        for batch in loader.eval_batches():
            poses, weight = run(state, {name: jnp.asarray(leaf) for name, leaf in batch.items()})
            yield batch | {"weight": np.asarray(weight)}, np.asarray(poses)


def _methods(
    source: PoseWindows, fitted: Fitted, batch: Mapping[str, np.ndarray], poses: np.ndarray
) -> dict[str, np.ndarray]:
    """Predictions (B, N, J) of the model and every baseline for one batch."""
    target, weight = batch["joint_angles"], batch["weight"]
    first = (weight > 0).argmax(axis=1)
    held = np.take_along_axis(target, first[:, None, None], axis=1)
    ridge = np.stack([_ridge(source, fitted.ridge, i, target) for i in batch["example"]])
    spread = functools.partial(np.broadcast_to, shape=target.shape)
    constants = {name: spread(pose) for name, pose in fitted.constants.items()}
    return {MODEL: poses, "ridge": ridge, "hold_initial": spread(held)} | constants


def _ridge(
    source: PoseWindows, ridge: baselines.LogRmsRidge, index: int, target: np.ndarray
) -> np.ndarray:
    """(N, J) predictions for the supervised rows of a window, with the history before it."""
    if index < 0:  # padding of the last batch: weight 0 everywhere
        return np.zeros(target.shape[1:], np.float32)
    emg, offset = source.with_history(int(index), ridge.history * ridge.bin_samples)
    rows = offset + source.spec.label_offset + np.arange(target.shape[1]) * source.spec.label_stride
    return ridge.predict(emg)[rows]


def _merge(states: States, batch: Mapping[str, np.ndarray], new: Regression) -> None:
    for i, session in enumerate(batch["session"]):
        if batch["example"][i] >= 0:
            one = jax.tree.map(lambda leaf, i=i: leaf[i], new)
            old = states.get(int(session))
            states[int(session)] = one if old is None else old.merge(one)


def _rows(split: str, found: dict[str, States], position: dict[int, int], table: Any) -> list[Row]:
    """Rows of every group and method: the headline first, then groups, fingers, sessions."""
    columns = {column: table.group_of(column) for column in GROUPS}
    names = [table.path(i).rsplit("/", 1)[-1] for i in range(len(table))]
    members: dict[str, list[int]] = {}
    kinds = columns["generalization"]
    # A session may be too short of usable rows for a single window.
    position = {n: i for n, i in position.items() if n in found[MODEL]}
    seen = [n for n, i in position.items() if kinds[i] in SEEN]
    members[ALL] = seen or list(position)
    for column in GROUPS:
        for number, i in position.items():
            if columns[column][i]:
                members.setdefault(f"{column}/{columns[column][i]}", []).append(number)
    for number, i in position.items():
        members[f"session/{names[i]}"] = [number]
    rows = []
    for group, numbers in members.items():
        for method, states in found.items():
            rows += _group_rows(split, group, method, [states[n] for n in numbers])
    return rows + _joint_rows(split, found, members[ALL])


def _pooled(states: list[Regression]) -> Regression:
    return functools.reduce(lambda a, b: a.merge(b), states)


def _group_rows(split: str, group: str, method: str, states: list[Regression]) -> list[Row]:
    pooled = _pooled(states)
    each = [_values(state) for state in states]
    count = float(pooled.weight.max())
    return [
        Row(split, group, method, name, value, _spread([v[name] for v in each]), count)
        for name, value in _values(pooled).items()
    ]


def _spread(values: list[float]) -> float | None:
    """Standard deviation over the sessions of a group; None for one session."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _values(state: Regression) -> dict[str, float]:
    values = state.compute("rad")
    return values | {"mae_deg": values["mae_rad"] * DEGREES}


def _joint_rows(split: str, found: dict[str, States], numbers: list[int]) -> list[Row]:
    rows = []
    for method, states in found.items():
        pooled = _pooled([states[n] for n in numbers])
        joints = len(pooled.weight)
        parts = {f"finger/{name}": part for name, part in fingers(joints).items()}
        parts |= {f"joint/{name}": [j] for j, name in enumerate(joint_names(joints))}
        for group, part in parts.items():
            one = jax.tree.map(lambda leaf, part=part: leaf[part], pooled)
            rows += _group_rows(split, group, method, [one])
    return rows
