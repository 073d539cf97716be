"""Checkpoints: atomic, asynchronous, the latest few and the best. The only file that imports orbax.

A checkpoint is named by the *examples* consumed. It holds the whole TrainState (parameters,
statistics, optimizer, accumulator) and what the host remembers (step, config, early stopping, last
evaluation). Randomness needs nothing more: every draw is a function of (seed, epoch, example).
Orbax writes into a temporary folder and renames it at the end, and removes an older one only then;
a folder that exists was whole, whatever killed its writer. What has happened to it since is told by
its seal: sizes and sums of its files.
"""

import contextlib
import dataclasses
import json
import math
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from tds_jax.data import json_file
from tds_jax.data.drive import reading
from tds_jax.data.whole_file import DAMAGED, naming, set_aside, to_disk
from tds_jax.engine import processes, seal
from tds_jax.errors import UserError
from tds_jax.news import only_news

SCORE = "score"
SUM = "crc32"  # of what the host remembers, beside it
_STRANGE = re.compile(r"[\[\\\udc80-\udcff]")  # the last are what is no UTF-8, see os.fsdecode
_OPEN_FILES = Path("/proc/self/fd")  # of Linux


class Restored(NamedTuple):
    """A checkpoint read back. position: examples consumed."""

    position: int
    state: Any
    progress: dict[str, Any]


class DamagedError(Exception):
    """A checkpoint cannot be read as it was written; the text says why."""


class _Manager(ocp.CheckpointManager):
    """Orbax's, for which a score that cannot be read is none: one file must not hide the others."""

    def metrics(self, step: int) -> Any:
        """The scores of a checkpoint."""
        try:
            return super().metrics(step)
        except (ValueError, TypeError):
            return None


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one workdir. Scores are minimised (negate what should be large).

    folder: theirs; the manager may know it by another name.
    """

    folder: Path
    manager: ocp.CheckpointManager
    _newest: list[int]
    _closing: contextlib.ExitStack

    @classmethod
    def open(cls, folder: Path, keep: int, read_only: bool = False) -> "Checkpoints":
        """Opens or creates a folder that keeps the `keep` latest and the best checkpoint.

        read_only: changes nothing there, so that a run in progress can be looked at; only the
        writer may clear away what an earlier writer left half-written.
        """
        closing = contextlib.ExitStack()
        place = closing.enter_context(_plainly_named(folder.absolute(), read_only))
        only_news()
        processes.connect()  # Orbax's managers meet through it
        best = policies.BestN(
            get_metric_fn=lambda m: m[SCORE],
            reverse=True,
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        newest: list[int] = []
        written = ocp.options.AsyncOptions(
            post_finalization_callback=lambda: _seal(folder, newest[-1])
        )
        options = ocp.CheckpointManagerOptions(
            async_options=written,
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), best]),
            best_fn=lambda m: m[SCORE],
            best_mode="min",
            cleanup_tmp_directories=not read_only,
            create=not read_only,
            read_only=read_only,
        )
        handlers = {
            "state": ocp.StandardCheckpointHandler(),
            "progress": ocp.JsonCheckpointHandler(),
        }
        manager = _Manager(place, options=options, item_handlers=handlers)
        return cls(folder.absolute(), manager, newest, closing)

    def save(
        self, position: int, state: Any, progress: dict[str, Any], score: float | None
    ) -> None:
        """Starts writing; the state may be donated right away.

        An existing position keeps its state, which is this one's, and is given the score.
        """
        if position in self.manager.all_steps():
            if score is not None:
                self._add_score(position, progress, score)
            return
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(_signed(progress))
        )
        metrics = None if score is None else {SCORE: score}
        self.wait()
        self._newest.append(position)
        with naming(self.folder):
            self.manager.save(position, args=items, metrics=metrics, force=True)

    def _add_score(self, position: int, progress: dict[str, Any], score: float) -> None:
        """Files of an existing checkpoint are replaced one by one, each at once.

        The score comes first: a run killed in between evaluates again and finds the same. The
        config stays, since it says under which one the state was written.
        """
        self.wait()
        folder, before = self._folder(position), self.progress(position)
        kept = {name: before[name] for name in ("config",) if name in before}

        def write() -> None:
            (folder / "metrics").mkdir(exist_ok=True)
            json_file.write(folder / "metrics" / "metrics", {SCORE: score})
            json_file.write(folder / "progress" / "metadata", _signed(progress | kept))

        processes.by_first(write)
        self.manager.reload()

    def _folder(self, position: int) -> Path:
        return self.folder / str(position)

    def set_aside(self, position: int) -> Path:
        """Moves a checkpoint out of the way, whole or not; returns where it is now."""
        place = self.folder.parent / DAMAGED
        target = processes.by_first(lambda: set_aside(self._folder(position), place))
        self.manager.reload()
        return target

    def newest_first(self) -> list[int]:
        """All positions."""
        return sorted(self.manager.all_steps(), reverse=True)

    def best_first(self) -> list[int]:
        """All positions: those with a score from the lowest, then the others from the newest."""
        newest = self.newest_first()
        scores = {n: (self.manager.metrics(n) or {}).get(SCORE, math.nan) for n in newest}
        return sorted(newest, key=lambda n: (math.isnan(scores[n]), scores[n]))

    def latest(self) -> int | None:
        """Position of the newest checkpoint."""
        return self.manager.latest_step()

    def best(self) -> int | None:
        """Position of the checkpoint with the lowest score; the latest if none has a score."""
        return self.manager.best_step() or self.latest()

    def progress(self, position: int) -> dict[str, Any]:
        """What the host remembered at a checkpoint; DamagedError if that cannot be read."""
        path = self._folder(position) / "progress" / "metadata"
        try:
            with reading(path):
                values = json.loads(path.read_text())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DamagedError("progress/metadata is missing") from error
        except ValueError as error:
            raise DamagedError(f"progress/metadata is not JSON ({error})") from error
        if SUM in values and values != _signed(values):
            raise DamagedError("progress/metadata holds other numbers than were written")
        return {name: value for name, value in values.items() if name != SUM}

    def restore(self, position: int, abstract_state: Any) -> Restored:
        """Reads a checkpoint into the given shapes, types and shardings.

        Raises DamagedError if it is not as it was written, UserError where it fits no such state.
        """
        with reading(self._folder(position)):
            return self._restore(position, abstract_state)

    def _restore(self, position: int, abstract_state: Any) -> Restored:
        progress = self.progress(position)
        if reason := processes.by_first(lambda: seal.damage(self._folder(position))):
            raise DamagedError(reason)
        self._require_fit(position, abstract_state)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state))
        try:
            restored = self.manager.restore(position, args=items)
        except (MemoryError, jax.errors.JaxRuntimeError):
            raise
        # Orbax raises Exception itself, and whatever the libraries below it do.
        except Exception as error:
            raise DamagedError(_reason(error)) from error
        return Restored(position, restored["state"], progress)

    def _require_fit(self, position: int, abstract_state: Any) -> None:
        """Orbax itself converts other types without a word."""
        try:
            saved = self.manager.item_metadata(position)["state"]
        except (KeyError, ValueError, TypeError, OSError) as error:
            raise DamagedError(f"its description cannot be read ({_reason(error)})") from error
        saved = _leaves(getattr(saved, "tree", saved))
        wanted = _leaves(abstract_state)
        where = f"checkpoint {position} in {self.folder}"
        for path in sorted(saved.keys() ^ wanted.keys() if saved else ()):
            missing = "has no" if path in wanted else "also has"
            raise UserError(
                f"{where} does not fit this model (it {missing} {path}); "
                "use the config it was trained with or another --workdir"
            )
        for path, (shape, dtype) in saved.items():
            if wanted[path][0] != shape:
                raise UserError(
                    f"{where} does not fit this model ({path} is {shape} there and "
                    f"{wanted[path][0]} here); use the config it was trained with or another "
                    "--workdir"
                )
            if wanted[path][1] != dtype:
                raise UserError(
                    f"{where} stores {path} as {dtype}, this run needs {wanted[path][1]}; "
                    "use the config it was trained with"
                )

    def wait(self) -> None:
        """Returns when everything started is on disk."""
        with naming(self.folder):
            self.manager.wait_until_finished()

    def close(self) -> None:
        """Finishes writing and lets go of the folder."""
        with self._closing, naming(self.folder):
            self.manager.close()


@contextlib.contextmanager
def _plainly_named(folder: Path, exists: bool) -> Iterator[Path]:
    """A path to the folder, made if need be, under which Orbax finds what it has written.

    It merges its files by a pattern of the whole path; with '[' in it, it finds none and says
    nothing. It takes a backslash for a slash, and only UTF-8. Where there is no way around,
    UserError for such a name.
    """
    if not (wrong := _STRANGE.search(str(folder))):
        yield folder
        return
    if not _OPEN_FILES.exists():
        words = f"Orbax cannot use a name with {wrong[0]!r}; name another --workdir"
        raise UserError(f"{folder}: {words}")
    if not exists:
        folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield _OPEN_FILES / str(descriptor)
    finally:
        os.close(descriptor)


def _seal(folder: Path, position: int) -> None:
    """Part of the checkpoint: Orbax calls this before its temporary folder takes the name.

    All of it is on the disk then, or a machine that fails could leave an empty file in the newest
    checkpoint, when the one before is removed.
    """
    if not processes.first():
        return
    for temporary in folder.glob(f"{position}.orbax-checkpoint-tmp*"):
        seal.seal(temporary, "state")
        to_disk(temporary)


def _signed(progress: dict[str, Any]) -> dict[str, Any]:
    """With the sum of its text, so that a changed number is told from what was written."""
    plain = {name: value for name, value in progress.items() if name != SUM}
    return plain | {SUM: zlib.crc32(json.dumps(plain, sort_keys=True).encode())}


def _reason(error: BaseException) -> str:
    while error.__cause__:
        error = error.__cause__
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first[:200]}"


def _leaves(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    """Path -> shape and type."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        "/".join(_key_name(key) for key in path): (tuple(leaf.shape), str(leaf.dtype))
        for path, leaf in flat
        if hasattr(leaf, "dtype")
    }


def _key_name(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)
