"""Checkpoints: atomic, asynchronous, the latest few and the best. The only file that imports orbax.

A checkpoint is named by the *examples* consumed. It holds the whole TrainState (parameters,
statistics, optimizer, accumulator) and what the host remembers (step, config, early stopping, last
evaluation). Randomness needs nothing more: every draw is a function of (seed, epoch, example).
Orbax writes into a temporary folder and renames it at the end; a folder that exists is whole,
whatever killed its writer.
"""

import dataclasses
import logging
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from tds_jax.errors import UserError

SCORE = "score"


class Restored(NamedTuple):
    """A checkpoint read back. position: examples consumed."""

    position: int
    state: Any
    progress: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one workdir. Scores are minimised (negate what should be large)."""

    manager: ocp.CheckpointManager

    @classmethod
    def open(cls, folder: Path, keep: int, read_only: bool = False) -> "Checkpoints":
        """Opens or creates a folder that keeps the `keep` latest and the best checkpoint.

        read_only: changes nothing there, so that a run in progress can be looked at; only the
        writer may clear away what an earlier writer left half-written.
        """
        logger = logging.getLogger("absl")
        logger.setLevel(logging.WARNING)
        logger.addFilter(_is_news)
        best = policies.BestN(
            get_metric_fn=lambda m: m[SCORE],
            reverse=True,
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        options = ocp.CheckpointManagerOptions(
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
        return cls(
            ocp.CheckpointManager(folder.absolute(), options=options, item_handlers=handlers)
        )

    def save(
        self, position: int, state: Any, progress: dict[str, Any], score: float | None
    ) -> None:
        """Starts writing; the state may be donated right away.

        An existing position is kept, unless this one has a score: then it was saved before it was
        evaluated. A kill between deletion and writing falls back to the checkpoint before.
        """
        if position in self.manager.all_steps():
            if score is None:
                return
            self.manager.delete(position)
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(progress)
        )
        metrics = None if score is None else {SCORE: score}
        self.manager.save(position, args=items, metrics=metrics, force=True)

    def latest(self) -> int | None:
        """Position of the newest checkpoint."""
        return self.manager.latest_step()

    def best(self) -> int | None:
        """Position of the checkpoint with the lowest score; the latest if none has a score."""
        return self.manager.best_step() or self.latest()

    def progress(self, position: int) -> dict[str, Any]:
        """What the host remembered at a checkpoint."""
        items = ocp.args.Composite(progress=ocp.args.JsonRestore())
        return self.manager.restore(position, args=items)["progress"]

    def restore(self, position: int, abstract_state: Any) -> Restored:
        """Reads a checkpoint into the given shapes, types and shardings.

        Raises UserError where they differ from what was saved: Orbax itself raises for other
        shapes but converts other types without a word.
        """
        self._check_types(position, abstract_state)
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract_state), progress=ocp.args.JsonRestore()
        )
        try:
            restored = self.manager.restore(position, args=items)
        except ValueError as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"checkpoint {position} in {self.manager.directory} does not fit this model "
                f"({reason}); use the config it was trained with or another --workdir"
            ) from error
        return Restored(position, restored["state"], restored["progress"])

    def _check_types(self, position: int, abstract_state: Any) -> None:
        saved = self.manager.item_metadata(position)["state"]
        saved = getattr(saved, "tree", saved)
        names = _leaf_types(saved)
        for path, dtype in _leaf_types(abstract_state).items():
            if path in names and names[path] != dtype:
                raise UserError(
                    f"checkpoint {position} stores {path} as {names[path]}, this run needs "
                    f"{dtype}; use the config it was trained with"
                )

    def wait(self) -> None:
        """Returns when everything started is on disk."""
        self.manager.wait_until_finished()

    def close(self) -> None:
        """Finishes writing and lets go of the folder."""
        self.manager.close()


def _is_news(record: logging.LogRecord) -> bool:
    # Orbax warns of what is meant: checkpoints without a score, and reading only.
    meant = ("did not provide metrics", "read_only=True", "directory is read only")
    return not any(words in str(record.msg) for words in meant)


def _leaf_types(tree: Any) -> dict[str, str]:
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        "/".join(_key_name(key) for key in path): str(leaf.dtype)
        for path, leaf in flat
        if hasattr(leaf, "dtype")
    }


def _key_name(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)
