"""A run's folder: which config it belongs to, and the model in its checkpoints."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flax import nnx
from jax.sharding import Mesh

from tds_jax import config as configuration
from tds_jax import tasks
from tds_jax.config import Config
from tds_jax.data import identity, json_file
from tds_jax.engine import processes, sharding
from tds_jax.engine.blueprint import Blueprint
from tds_jax.engine.checkpoint import Checkpoints, DamagedError, Restored
from tds_jax.errors import UserError, some

CONFIG = "config.json"
INPUTS = "inputs.json"
CHECKPOINTS = "checkpoints"
RESTORE = "restore it or train anew"
TOLD = 12  # settings that differ, in a line
BEST, LAST = "best", "last"


def claim(
    workdir: Path, config: Config, inputs: dict[str, Any], digest: str, files: Mapping[str, str]
) -> None:
    """Makes the folder this config's and these data's; refuses one with another's checkpoints.

    digest: of the data, '' before any were seen (an imported model); the first data are then
    whichever come, and so are their settings. files: of the data, by name; where a run of an older
    version knows none, whichever come. Raises UserError naming what differs and may not.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    if not has_checkpoint(workdir):
        _require_no_others(workdir / CONFIG)
    new = config.to_dict()
    known: dict[str, str] | None = None
    if has_checkpoint(workdir):
        free = configuration.marked(config, "free")
        changed = configuration.differences(read_config(workdir), new, free)
        before = _read_inputs(workdir)
        if not before["digest"]:
            changed = [line for line in changed if not line.startswith("data.")]
            before["digest"] = digest
            before["files"] = None
        known = before["files"]
        # What follows from another config is not said besides.
        changed = changed or _changed_inputs(before["inputs"], inputs, "inputs.")
        if not changed and before["digest"] != digest:
            raise UserError(
                f"{workdir} was begun with other data (files added, removed, changed or split "
                "otherwise); use the same data to go on, or another --workdir"
            )
        if changed:
            raise UserError(
                f"{workdir} was begun with another config ({_most(changed)}); "
                "use the same settings to go on, or another --workdir"
            )
    identities = identity.of_files(files, known or {})
    if known and (other := identity.differences(known, identities)):
        raise UserError(
            f"{workdir} was begun with other data ({some(other)}); use the same data to go on, or "
            "another --workdir"
        )
    json_file.write(workdir / CONFIG, new)
    json_file.write(workdir / INPUTS, {"inputs": inputs, "digest": digest, "files": identities})


def _require_no_others(path: Path) -> None:
    """UserError for a config.json that no run of ours has written."""
    if path.exists() and not (isinstance(values := _loaded(path), dict) and "optim" in values):
        raise UserError(f"{path} is another program's; name another --workdir")


def _loaded(path: Path) -> Any:
    try:
        return json_file.read(path, RESTORE)
    except UserError:
        return None


def require_unchanged(workdir: Path, files: Mapping[str, str]) -> None:
    """UserError naming files of the data that are not as they were when the run began.

    Nothing is known of the data of older versions, nor without `claim`. Files whose size and time
    have not changed are not read.
    """
    known = _read_inputs(workdir)["files"] if (workdir / INPUTS).exists() else None
    if known and (other := identity.differences(known, identity.of_files(files, known))):
        raise UserError(
            f"the data have changed while the run read them ({some(other)}); what was trained "
            "since the last checkpoint is not saved; restore them, and the same command goes on"
        )


def has_checkpoint(workdir: Path) -> bool:
    """True once a checkpoint is whole."""
    return any(path.name.isdigit() for path in (workdir / CHECKPOINTS).glob("*"))


def require_apart(workdir: Path, data: str) -> None:
    """Raises UserError for a new run that would lie among its own data, and be read as some.

    data: their folder; '' where there is none.
    """
    if data and Path(data).resolve() == workdir.resolve() and not has_checkpoint(workdir):
        raise UserError(f"--workdir={workdir} is the folder of the data; name another, maybe new")


def _most(changed: Sequence[str]) -> str:
    """Differences of two configs in words: of two tasks that alone, for all else follows."""
    of_task = [line for line in changed if line.startswith("task: ")]
    shown = of_task or changed[:TOLD]
    more = f"; and {len(changed) - TOLD} more" if len(shown) == TOLD < len(changed) else ""
    return "; ".join(shown) + more


def read_config(workdir: Path) -> dict[str, Any]:
    """The nested settings a workdir was trained with, under the names of now."""
    values = _read(workdir, CONFIG, "task")
    try:
        return tasks.today(values)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{workdir / CONFIG} lacks {error}; {RESTORE}") from error


def read_inputs(workdir: Path) -> dict[str, Any]:
    """What the task said of its data when the run began; enough to build the model without them."""
    return _read_inputs(workdir)["inputs"]


def require_inputs(workdir: Path, inputs: dict[str, Any]) -> None:
    """Raises UserError if data differ from those the workdir's model was trained on."""
    changed = _changed_inputs(read_inputs(workdir), inputs)
    if changed:
        raise UserError(
            f"the data do not fit the model in {workdir} ({'; '.join(changed)}); "
            "give data like those it was trained on"
        )


def identity_of(task: tasks.Task) -> str:
    """Of the task's data: their contents, and how they are split."""
    return identity.fingerprint(task.data_files(), task.digest())


def trained_on(workdir: Path, task: tasks.Task) -> bool:
    """Whether the task's data are those of the run; of an imported model, which has none, any."""
    known = _read_inputs(workdir)
    if known["digest"] and known["digest"] != task.digest():
        return False
    before = known["files"]
    return not before or not identity.differences(
        before, identity.of_files(task.data_files(), before)
    )


def learned_from(workdir: Path, digest: str, files: Mapping[str, str]) -> bool:
    """Whether a run that another builds on has the data, name -> path, that the other has.

    digest: of the data alone, with which a task's begins. True of imported models, which know none.
    """
    known = _read_inputs(workdir)
    if not known["digest"]:
        return True
    if not known["digest"].startswith(digest):
        return False
    before = known["files"]
    return not before or not identity.differences(before, identity.of_files(files, before))


def _changed_inputs(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """What differs; what an older run did not record cannot."""
    known = {name: value for name, value in now.items() if name in before}
    return configuration.differences(before, known, prefix=prefix)


def _read_inputs(workdir: Path) -> dict[str, Any]:
    values = _read(workdir, INPUTS, "inputs")
    digest = values.get("digest", values.get("sessions"))  # its name in older runs
    return {"inputs": values["inputs"], "digest": digest, "files": values.get("files")}


def _read(workdir: Path, name: str, key: str) -> dict[str, Any]:
    """What a file of the folder says; it must be a table with that key."""
    path = workdir / name
    if not path.exists():
        raise UserError(f"--workdir={workdir} has no {name}; give a folder that train wrote")
    values = json_file.read(path, RESTORE)
    if not isinstance(values, dict) or key not in values:
        raise UserError(f"{path} says nothing of {key!r}; {RESTORE}")
    return values


def open_checkpoints(workdir: Path, config: Config) -> Checkpoints:
    """The folder's checkpoints, for the run that writes them; kept by the config's rule."""
    return Checkpoints.open(workdir / CHECKPOINTS, config.checkpoint.keep)


def restore(
    checkpoints: Checkpoints, position: int, blueprint: Blueprint, mesh: Mesh
) -> tuple[Restored, int]:
    """A checkpoint, and the `optim.accumulate` it was saved under, which shapes its optimizer."""
    accumulate = checkpoints.progress(position)["config"]["optim"]["accumulate"]
    saved = dataclasses.replace(blueprint.config.optim, accumulate=accumulate)
    shapes = blueprint.abstract_state(mesh, blueprint.shapes_under(saved))
    return checkpoints.restore(position, shapes), accumulate


def resume(
    checkpoints: Checkpoints, blueprint: Blueprint, mesh: Mesh, say: Callable[[str], None]
) -> tuple[Restored, int] | None:
    """`restore` of the newest whole checkpoint; None in a folder without any.

    Damaged newer ones are moved aside and said. Raises UserError if none is whole.
    """
    positions = checkpoints.newest_first()
    if not positions:
        return None
    found, damaged = _first_whole(checkpoints, positions, blueprint, mesh)
    for newer, reason in damaged.items():
        place = checkpoints.set_aside(newer)
        say(
            f"warning: checkpoint {newer} is damaged ({reason}); it is kept as {place}, and "
            f"the run goes on from checkpoint {found[0].position} (step "
            f"{found[0].position // blueprint.config.optim.batch_size}; their names count examples)"
        )
    return found


def _first_whole(
    checkpoints: Checkpoints, positions: Sequence[int], blueprint: Blueprint, mesh: Mesh
) -> tuple[tuple[Restored, int], dict[int, str]]:
    """(`restore` of the first that is whole, why each before it is not); UserError if none is."""
    damaged: dict[int, str] = {}
    for position in positions:
        try:
            return restore(checkpoints, position, blueprint, mesh), damaged
        except DamagedError as error:
            damaged[position] = str(error)
    number, reason = next(iter(damaged.items()))
    step = number // blueprint.config.optim.batch_size
    raise UserError(
        f"no checkpoint in {checkpoints.folder} is whole ({number}: {reason}; step "
        f"{step}, their names count examples); restore "
        "the folder from a copy, or train in another --workdir"
    )


def load_model(
    blueprint: Blueprint, workdir: Path, which: str | int = BEST
) -> tuple[nnx.Module, Restored]:
    """The model of a whole checkpoint on one device: of the BEST (the latest if none was scored),
    the LAST, or that of a number of steps.

    Damaged ones stay where they are, and are said; those of BEST and LAST are passed over.
    """
    if not has_checkpoint(workdir):
        raise UserError(f"--workdir={workdir} has no checkpoint yet; train first")
    keep = blueprint.config.checkpoint.keep
    mesh = sharding.for_reading()
    with contextlib.closing(Checkpoints.open(workdir / CHECKPOINTS, keep, read_only=True)) as kept:
        positions = _asked(kept, which, blueprint.config.optim.batch_size, workdir)
        (restored, _), damaged = _first_whole(kept, positions, blueprint, mesh)
    for other, reason in damaged.items() if processes.first() else ():
        words = f"checkpoint {other} in {workdir} is damaged ({reason})"
        print(f"warning: {words}; using {restored.position} instead", file=sys.stderr)
    state = sharding.here(restored.state)
    return nnx.merge(blueprint.graphdef, state.weights, state.rest), restored


def _asked(kept: Checkpoints, which: str | int, batch_size: int, workdir: Path) -> list[int]:
    """Positions to try, in this order."""
    if which == BEST:
        return kept.best_first()
    newest = kept.newest_first()
    if which == LAST:
        return newest
    steps = {position // batch_size: position for position in reversed(newest)}
    if isinstance(which, str) or which not in steps:
        raise UserError(
            f"{workdir} has no checkpoint of step {which!r}; use 'best', 'last' or one of "
            f"{', '.join(map(str, steps))}"
        )
    return [steps[which]]
