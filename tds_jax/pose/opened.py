"""The recordings that a config names: opened or generated, and what is said of them."""

import hashlib
from collections.abc import Iterator

import numpy as np

from tds_jax.config import SPLITS, Config
from tds_jax.data import generated
from tds_jax.data.hdf5 import RowFiles
from tds_jax.engine import processes
from tds_jax.pose import synthetic
from tds_jax.pose.sessions import load_sessions
from tds_jax.pose.table import SessionTable
from tds_jax.progress import progress_bar
from tds_jax.tasks import DataAbout


def open_recordings(config: Config, files: RowFiles) -> tuple[SessionTable, list[str]]:
    """Every usable session, and what was skipped while reading the index."""
    data = config.data
    cache = generated.cache_root(data.cache_dir)
    path = data.source or data.path
    crew = processes.crew()
    path = path or generated.stand_in(cache, simulation(config), "recordings", crew)
    with progress_bar("reading the index") as progress:
        return load_sessions(
            path,
            group=data.group,
            window=data.window,
            split_by=data.split_by,
            split_ratio=data.split_ratio,
            fold=data.fold,
            angle_unit=data.angle_unit,
            max_bad_sessions=data.max_bad_sessions,
            selection=data.selection,
            seed=config.seed,
            cache_dir=str(cache / "index"),
            files=files,
            crew=crew,
            progress=progress,
        )


def simulation(config: Config) -> synthetic.Simulation:
    """Recordings that stand in for data.path."""
    return synthetic.Simulation(**generated.settings(synthetic.Simulation, config.data))


def digest(table: SessionTable) -> str:
    """Changes with any session's name, length or split."""
    found = hashlib.blake2b(digest_size=8)
    for part in (table.names, table.samples, table.split, table.first[table.first > 0]):
        found.update(part.tobytes())
    return found.hexdigest()


def about(table: SessionTable, is_generated: bool) -> DataAbout:
    """Sessions, users, hours, rate and channels."""
    users = {user for user in table.group_of("user") if user}
    of = f" of {len(users)} users" if users else ""
    hours = table.samples.sum() / table.rate_hz / 3600
    splits = (f"{s} {np.count_nonzero(table.split == i)}" for i, s in enumerate(SPLITS))
    words = (
        f"{len(table)} sessions{of} ({', '.join(splits)}), {hours:.3g} h at "
        f"{table.rate_hz:g} Hz, {table.channels} channels, {table.joints} joint angles"
    )
    return DataAbout(table.root, words, is_generated)


def shrunk(table: SessionTable, window: int) -> Iterator[str]:
    """A line for each session of val and test shorter than data.eval_window, shortest first."""
    for i in map(int, np.argsort(table.samples)):
        if table.samples[i] < window and table.split[i] != SPLITS.index("train"):
            yield (
                f"{table.path(i)} has {table.samples[i]} samples: windows of "
                f"{SPLITS[table.split[i]]} shrink from data.eval_window={window} to that; leave it "
                "out to keep them long"
            )
