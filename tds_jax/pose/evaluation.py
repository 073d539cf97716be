"""A pose model beside its baselines: pooled, per user and by group; O(sessions) memory."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from tds_jax.data import identity
from tds_jax.engine import intervals, metrics, processes
from tds_jax.engine.evaluation import Evaluator
from tds_jax.engine.report import ALL, MODEL, Report, Row
from tds_jax.engine.step import Batch
from tds_jax.errors import some
from tds_jax.own import names_of
from tds_jax.pose import baselines, blocks, figures, hands
from tds_jax.pose.baselines import Fitted
from tds_jax.pose.kinematics import ANGLES, HAND_LENGTH
from tds_jax.pose.labels import valid_rows
from tds_jax.pose.linear import LinearFit, Ridge
from tds_jax.pose.metrics import States, make_compare
from tds_jax.pose.networks import AnyModel
from tds_jax.pose.own import METRICS
from tds_jax.pose.read_out import ReadOutFit
from tds_jax.pose.rows import SEEN, Sessions, kinds_of, members_of, rows_of
from tds_jax.pose.scales import other_scale
from tds_jax.pose.table import SessionTable
from tds_jax.pose.task import PoseTask
from tds_jax.pose.windows import PoseWindows, session_blocks

HEADLINE = ("mae_deg", "landmark_mm", "fingertip_mm", "rmse_rad", "r2")
EASIEST = "sessions of seen users and stages"
PUBLISHED = ("mae_deg", "landmark_mm")
JUDGED = {"mae_deg": False, "r2": True}  # in the verdict; whether more is better
JUDGED_UNSEEN = {"mae_deg": False}
LEADING = ("generalization",)
SHOWN_GROUPS = (*LEADING, "finger")
TRACKING = "model_tracking"
BASELINES = "baselines.npz"
CONSTANT_R2 = 0.02  # below, a model is no better than one pose for all
# Rows per read while the baselines stream over the train split: 30 s at 2 kHz.
BASELINE_ROWS = 60_000


def fit_baselines(task: PoseTask) -> Fitted:
    """Two streaming passes over the train split, and one over val, by which `linear` is chosen."""
    table = task.table.select("train")
    low, high = (float(limit) for limit in (table.lowest.min(), table.highest.max()))
    mean = baselines.ConstantMean(table.joints)
    median = baselines.ConstantMedian(table.joints, min(low, -np.pi), max(high, np.pi))
    fit = LinearFit(table.channels, table.joints, table.rate_hz)
    baselines.fit(_chunks(task, "train"), mean, median, fit.train)
    baselines.fit(_chunks(task, "val"), fit.val)
    linear = fit.result()
    read_out = ReadOutFit(linear, *fit.spread(linear), min(low, -np.pi), max(high, np.pi))
    baselines.fit(_chunks(task, "train"), read_out)
    names = task.digest(), identity.fingerprint(task.data_files())
    return Fitted(*names, mean.result(), median.result(), linear, read_out.result())


def _chunks(task: PoseTask, split: str) -> Iterator[baselines.Chunk]:
    table = task.table.select(split)
    for session in range(len(table)):
        for block in session_blocks(table, task.files, session, BASELINE_ROWS):
            yield block.emg, block.joint_angles, block.valid


def fitted_baselines(task: PoseTask, workdir: Path | None, keep: bool = True) -> Fitted | None:
    """The baselines of the task's train split, read from the workdir or fitted (and kept there).

    Without a train split (recordings to evaluate on, and nothing else) those the workdir has, or
    the run's folder that it lies in, which are of the recordings evaluated before; None without.
    """
    places = (workdir, workdir.parent) if workdir else ()
    kept = next((found for place in places if (found := Fitted.read(place / BASELINES))), None)
    now = task.digest(), identity.fingerprint(task.data_files())
    if (kept and (kept.digest, kept.contents) == now) or not len(task.table.select("train")):
        return kept
    fitted = fit_baselines(task)
    if workdir and keep:
        fitted.write(workdir / BASELINES)
    return fitted


def evaluate(
    task: PoseTask, model: nnx.Module, split: str, workdir: Path | None, keep: bool = True
) -> Report:
    """Report of model and baselines on a split; see `tasks.Domain` on workdir and keep.

    Windows tile each session and every supervised row counts once. hold_initial repeats the first
    labelled row of each window, where a model that is given its initial pose begins; linear
    sees the same past the model may see, and its own history more.
    """
    source = task.source(split)
    rate = task.recorded.sample_rate / source.spec.label_stride
    fitted = processes.by_first(lambda: fitted_baselines(task, workdir, keep))
    gathered = _gathered(task, model, source, fitted, rate)
    members = members_of(source.table, gathered.sessions[MODEL])
    rows, verdict, drawn = _judged(task, split, source.table, gathered, members)
    notes = (
        _notes(task, fitted)
        + blocks.note(drawn, source.table)
        + intervals.few(drawn)
        + _still(gathered.sessions[MODEL], task.joint_names)
        + _scales(task, model, source.table)
        + _nothing_learnt(rows)
    )
    kinds = set(source.table.group_of("generalization"))
    report = Report(
        rows,
        (*HEADLINE, *names_of(METRICS, task.own_metrics)),
        SHOWN_GROUPS,
        PUBLISHED,
        notes,
        EASIEST if kinds - set(SEEN) else ALL,
        leading=LEADING,
        verdict=verdict,
        drawn=str(drawn),
    )
    if workdir and keep and gathered.trace is not None:
        place = _where(source.table, gathered.trace.session)
        _draw(task, gathered.trace, report, workdir / "plots", split, place, rate)
    return report


class Gathered(NamedTuple):
    """sessions: method -> session -> its states. windows: what intervals are drawn of where
    sessions are few. trace: the first batch, for figures."""

    sessions: dict[str, Sessions]
    windows: blocks.Windows
    trace: figures.Trace | None


def _gathered(
    task: PoseTask, model: nnx.Module, source: PoseWindows, fitted: Fitted | None, rate_hz: float
) -> Gathered:
    """Model and baselines over all windows."""
    every_sample = source.spec.label_stride == 1
    told = task.hand, rate_hz, every_sample, task.own_metrics, task.joint_names
    compare = jax.jit(make_compare(*told))
    asked = members_of(source.table, source.table.number.tolist())
    found: dict[str, Sessions] = {}
    windows = blocks.Windows(*(asked[group] for group in (ALL, *kinds_of(asked))))
    trace: figures.Trace | None = None
    run = Evaluator(model, functools.partial(answers, task), task.config)
    for batch, (poses, weight) in run.over(source):
        batch = {**batch, "weight": weight}
        methods = poses | _baselines(source, fitted, batch)
        for name, values in methods.items():
            states = metrics.to_host(compare(values, batch["joint_angles"], batch["weight"]))
            for session, one in _examples(batch, states):
                _merge(found.setdefault(name, {}), session, one)
                windows.add(name, session, one)
        trace = trace or figures.Trace.of(batch, poses[MODEL])
    return Gathered(found, windows, trace)


def _judged(
    task: PoseTask,
    split: str,
    table: SessionTable,
    gathered: Gathered,
    members: dict[str, list[int]],
) -> tuple[list[Row], tuple[str, ...], intervals.Drawn]:
    """Rows with their intervals, the verdict, and what was drawn."""
    found = gathered.sessions
    drawn, each = gathered.windows.blocks(found, members[ALL], table)
    rows = rows_of(split, found, table, task.joint_names, members)
    rows = intervals.Resampled.of(each).rows(rows)
    verdict: tuple[str, ...] = ()  # as the tables: what says more stands first
    for group in kinds_of(members):
        each = gathered.windows.blocks(found, members[group], table)[1]
        rows = intervals.Resampled.of(_angles(each)).rows(rows, group)
        verdict += intervals.verdict(rows, JUDGED_UNSEEN, group)
    return rows, verdict + intervals.verdict(rows, JUDGED), drawn


def _draw(
    task: PoseTask,
    trace: figures.Trace,
    report: Report,
    plots: Path,
    split: str,
    place: str,
    rate_hz: float,
) -> None:
    """A stretch of angles and of the hand, and the methods beside each other."""
    figures.draw_angles(
        plots / f"{split}_angles.png", trace, task.joint_names, rate_hz, f"{split}: {place}"
    )
    if task.hand is not None and trace.weight.any():
        hands.draw_hands(plots, f"{split}_hand", trace, task.hand, rate_hz)
    figures.draw_methods(plots / f"{split}_methods.png", report, split)


def _where(table: SessionTable, number: int) -> str:
    """'s3.hdf5, user ann' of a session by its number."""
    i = table.number.tolist().index(number)
    user = table.group_of("user")[i]
    return Path(table.path(i)).name + (f", user {user}" if user else "")


def _scales(task: PoseTask, model: nnx.Module, table: SessionTable) -> tuple[str, ...]:
    """A line if the first session's EMG is in another unit than the model was trained in."""
    assert isinstance(model, AnyModel)
    if not task.config.data.normalize:
        return ()
    scale = np.asarray(model.normalizer.scale[...])
    read = functools.partial(table.emg, task.files, 0)
    wrong = other_scale(read, int(table.samples[0]), scale)
    return (f"{table.path(0)}: {wrong}",) if wrong else ()


def _notes(task: PoseTask, fitted: Fitted | None) -> tuple[str, ...]:
    """What a reader of the tables must know of them."""
    joints, file = task.recorded.num_joints, task.hand_file
    own = f"our own hand of {HAND_LENGTH:g} mm; eval.hand_model names another"
    notes = [f"landmarks are of {file or own}"]
    if task.hand is None:
        have = "others of that number" if joints == ANGLES else f"{joints}"
        notes = [f"landmarks need the 20 joint angles of emg2pose; these recordings have {have}"]
    if fitted is None:
        notes.append("no train split here: no constants and nothing linear")
    elif fitted.digest != task.digest():
        notes.append("no train split here: baselines are those of the recordings evaluated before")
    return tuple(notes)


def _still(sessions: Sessions, joints: Sequence[str]) -> tuple[str, ...]:
    """A note if joints never move: an error there is none of R²."""
    moves = functools.reduce(metrics.merge, sessions.values())["angle"].moves
    names = [name for name, one in zip(joints, moves, strict=True) if not one]
    if not names:
        return ()
    return (f"{len(names)} of {len(moves)} joints do not move, R2 is without: {some(names)}",)


def _nothing_learnt(rows: Sequence[Row]) -> tuple[str, ...]:
    """A line if the model's answers are worth no more than one pose for all."""
    (r2,) = (r.value for r in rows if (r.group, r.method, r.metric) == (ALL, MODEL, "r2"))
    if not r2 < CONSTANT_R2:  # NaN where nothing moves
        return ()
    return (
        f"R2 {r2:.2g}: the model says no more than a constant pose would; if --split=train shows "
        "the same, it has not begun to learn: try a third of optim.learning_rate, more "
        "optim.steps, or model.powers='covariance'",
    )


def answers(
    task: PoseTask, model: nnx.Module, batch: Batch
) -> tuple[dict[str, jax.Array], jax.Array]:
    """{method: poses (B, N, J)}, and the task's weights of the batch.

    A model of 'mixed' initial poses answers twice: without the true one, and beginning at it.
    """
    ways = {MODEL: False}
    if task.config.model.initial_pose == "mixed":
        ways |= {TRACKING: True}
    poses = {name: task.poses(model, batch, False, way) for name, way in ways.items()}
    return poses, task.weights(batch)


def _baselines(
    source: PoseWindows, fitted: Fitted | None, batch: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Predictions (B, N, J) of every baseline for one batch."""
    target = batch["joint_angles"]
    # Not the first row that counts: a tail's first rows are labelled, and counted before.
    first = valid_rows(target.reshape(-1, target.shape[2])).reshape(target.shape[:2]).argmax(axis=1)
    held = np.take_along_axis(target, first[:, None, None], axis=1)
    spread = functools.partial(np.broadcast_to, shape=target.shape)
    found: dict[str, np.ndarray] = {}
    if fitted:
        linear = np.stack([_linear(source, fitted.linear, i, target) for i in batch["example"]])
        found = {"linear": linear, "linear_median": fitted.read_out(linear)}
        found |= {"constant": spread(fitted.mean), "constant_median": spread(fitted.median)}
    return found | {"hold_initial": spread(held), "zero": np.zeros_like(target)}


def _linear(source: PoseWindows, linear: Ridge, index: int, target: np.ndarray) -> np.ndarray:
    """(N, J) predictions for the supervised rows of a window, with the history before it."""
    if index < 0:  # padding of the last batch: weight 0 everywhere
        return np.zeros(target.shape[1:], np.float32)
    emg, offset = source.with_history(int(index), linear.samples_before)
    rows = offset + source.spec.label_offset + np.arange(target.shape[1]) * source.spec.label_stride
    return linear.predict(emg)[rows]


def _examples(batch: Mapping[str, np.ndarray], states: States) -> Iterator[tuple[int, States]]:
    """(session, its states) of each window of a batch that is one."""
    for i, session in enumerate(batch["session"].tolist()):
        if batch["example"][i] >= 0:
            yield session, jax.tree.map(lambda leaf, i=i: leaf[i].copy(), states)


def _merge(sessions: Sessions, session: int, new: States) -> None:
    old = sessions.get(session)
    sessions[session] = new if old is None else metrics.merge(old, new)


def _angles(each: Mapping[str, list[States]]) -> dict[str, list[States]]:
    """What is judged of blocks: a twentieth of the time that landmarks and motion take."""
    return {m: [{"angle": one["angle"]} for one in states] for m, states in each.items()}
