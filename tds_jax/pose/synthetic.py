"""A data set of generated EMG and hand poses in the file format of the real recordings.

Users, bands and sessions differ. Errors on it say nothing about how well a model reads real EMG (no
force, fatigue or effects of the forearm's posture): those between 'poses' are far below, and show
that training works; of 'freedoms', which move by themselves, they show which of two models reads
more.
"""

import csv
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from tds_jax.data.crew import Crew
from tds_jax.data.generated import synthesize
from tds_jax.data.hdf5_write import write_session
from tds_jax.fields import option, require, require_at_least, require_choice
from tds_jax.pose import freedoms, gestures, motor_units, muscles
from tds_jax.pose.joints import TWENTY
from tds_jax.pose.motor_units import Compartment
from tds_jax.pose.table import GROUP
from tds_jax.progress import Progress

_HIGH_PASS = 40.0  # Hz, of the amplifier
_HUM = 60.0  # Hz
_LABEL_ROWS = 65_536  # × 20 × 8 B = 10 MB per temporary
_METADATA = "metadata.csv"
_COLUMNS = (
    "filename",
    "user",
    "session",
    "stage",
    "side",
    "moving_hand",
    "held_out_user",
    "held_out_stage",
    "split",
    "generalization",
)
_MOST_THREADS = 8  # each holds a session: about .4 kB per sample of it at the peak


class Motion(Protocol):
    """A session's movement."""

    def angles_and_velocities(self, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(T, 20) rad and (T, 20) rad/s at (T,) seconds."""


class Movement(NamedTuple):
    """How hands move, and what the wrist shows of it.

    free, held_out: stages. random: (stage, seconds, rng) -> a Motion. drive: (a Motion, (T,)
    seconds) -> (T, M) of every compartment. control_rate: Hz at which drive and firing rates are
    evaluated. fat_mm, scatter_deg: see `motor_units.random_wrist`. rotation_deg: of the band from
    session to session, at most.
    """

    free: str
    held_out: str
    random: Callable[[str, float, np.random.Generator], Any]
    drive: Callable[[Any, np.ndarray], np.ndarray]
    compartments: Sequence[Compartment]
    control_rate: float
    fat_mm: tuple[float, float]
    scatter_deg: float
    rotation_deg: float


_MOVEMENTS = {
    "poses": Movement(
        free=gestures.FREE,
        held_out=gestures.HELD_OUT,
        random=gestures.random_motion,
        drive=gestures.muscle_drive,
        compartments=gestures.COMPARTMENTS,
        control_rate=500.0,
        fat_mm=(1.0, 4.0),
        scatter_deg=6.0,
        rotation_deg=5.0,
    ),
    "freedoms": Movement(
        free=freedoms.FREE,
        held_out=freedoms.HELD_OUT,
        random=freedoms.random_motion,
        drive=muscles.muscle_drive,
        compartments=muscles.COMPARTMENTS,
        control_rate=250.0,
        fat_mm=(0.5, 2.5),
        scatter_deg=4.0,
        rotation_deg=2.0,
    ),
}


@dataclasses.dataclass(frozen=True)
class Simulation:
    """Everything the generated data depend on; also the options of `synthesize`."""

    kind: ClassVar[str] = "synthetic_pose"

    motion: str = option("poses", "Moves between 13 'poses', or of 'freedoms', each by itself.")
    users: int = option(3, "Users seen in training.")
    unseen: int = option(1, "Users seen in testing only.")
    sessions: int = option(7, "Sessions per user: the last for test, the one before for val.")
    seconds: float = option(40.0, "Seconds per session.")
    sample_rate: float = option(2000.0, "Hz, above 200.")
    num_channels: int = option(16, "Electrodes around the wrist.")
    seed: int = option(0, "The same gives the same bytes.")
    units: int = option(30, "Motor units per muscle compartment.")
    noise_uv: float = option(2.46, "RMS of the white noise; becomes about 1 in the files.")
    user_rotation_deg: float = option(12.0, "Largest rotation of a user's band.")
    session_rotation_deg: float = option(
        -1.0, "The same from session to session; below 0: 5 of poses, 2 of freedoms."
    )
    user_gain: float = option(0.3, "SD of the log of each channel's gain among users.")
    session_gain: float = option(0.05, "The same from session to session.")

    def __post_init__(self) -> None:
        require_choice("synthetic motion", self.motion, tuple(_MOVEMENTS))
        for name in ("users", "unseen", "seconds", "num_channels", "units"):
            require_at_least(f"synthetic {name}", getattr(self, name), 1)
        require_at_least("synthetic sessions", self.sessions, 3)
        require_at_least("synthetic seed", self.seed, 0)
        require(
            self.sample_rate > 200,
            f"synthetic sample_rate={self.sample_rate} Hz cannot carry EMG; use more than 200",
        )

    @property
    def movement(self) -> Movement:
        """How its hands move."""
        return _MOVEMENTS[self.motion]

    def run(self, target: Path, progress: Progress) -> Path:
        """The door `synthesize`."""
        return synthesize(target, self, progress)

    def build(self, folder: Path, progress: Progress, crew: Crew) -> None:
        """One HDF5 file per session, and metadata.csv.

        Threads, not processes: numpy and scipy release the interpreter in all the long loops.
        """
        table = sessions(self)
        own = crew.share(table)
        pool = ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_THREADS))
        try:
            jobs = [pool.submit(_write, folder, self, session) for session in own]
            for done, job in enumerate(as_completed(jobs), start=1):
                job.result()
                progress(done, len(own))
        finally:
            pool.shutdown(cancel_futures=True)
        if not crew.first:
            return
        with (folder / _METADATA).open("w", newline="") as file:
            writer = csv.DictWriter(file, _COLUMNS)
            writer.writeheader()
            writer.writerows(_metadata(self, session) for session in table)


@dataclasses.dataclass(frozen=True)
class Session:
    """One file of the data set. user < Simulation.users: seen in training."""

    user: int
    session: int
    stage: str
    split: str
    generalization: str

    @property
    def name(self) -> str:
        """File name without its ending."""
        return f"user{self.user:02d}_session{self.session:02d}_{self.stage}"


def sessions(simulation: Simulation) -> list[Session]:
    """All sessions: seen users first, then the unseen ones.

    Seen users: free movement for train/val/test ('none'/'session'/'session'), then one session of
    the held-out stage ('stage'). Unseen users: one of each kind ('user', 'user_stage').
    """
    table = []
    last = simulation.sessions - 1
    free, held_out = simulation.movement.free, simulation.movement.held_out
    for user in range(simulation.users):
        for k in range(simulation.sessions):
            split = {last: "test", last - 1: "val"}.get(k, "train")
            group = "none" if split == "train" else "session"
            table.append(Session(user, k, free, split, group))
        table.append(Session(user, simulation.sessions, held_out, "test", "stage"))
    for user in range(simulation.users, simulation.users + simulation.unseen):
        table.append(Session(user, 0, free, "test", "user"))
        table.append(Session(user, 1, held_out, "test", "user_stage"))
    return table


def record(simulation: Simulation, session: Session) -> tuple[np.ndarray, np.ndarray]:
    """(T, C) f32 EMG in units of the noise floor and (T, 20) f32 joint angles in radians.

    Depends on nothing but the arguments. Angle rows are all zero where labelling "failed": runs
    of .1-.6 s, 2-12 % of the time; elsewhere no row is all zero.
    """
    rng = np.random.default_rng((simulation.seed, session.user, session.session, 1))
    samples = round(simulation.seconds * simulation.sample_rate)
    motion = simulation.movement.random(session.stage, simulation.seconds, rng)
    emg = _emg(simulation, session.user, motion, samples, rng)
    time = np.arange(samples) / simulation.sample_rate
    angles = np.empty((samples, len(TWENTY)), np.float32)
    for start in range(0, samples, _LABEL_ROWS):
        part = slice(start, start + _LABEL_ROWS)
        angles[part] = motion.angles_and_velocities(time[part])[0]
    for begin, end in _failures(simulation.seconds, rng):
        angles[(time >= begin) & (time < end)] = 0.0
    return emg, angles


def _emg(
    simulation: Simulation,
    user: int,
    motion: Motion,
    samples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    rate, channels = simulation.sample_rate, simulation.num_channels
    person = np.random.default_rng((simulation.seed, user, 0, 0))
    how, units = simulation.movement, simulation.units
    geometry = (how.compartments, units, how.fat_mm, how.scatter_deg)
    wrist = motor_units.random_wrist(*geometry, person)
    rotation = simulation.user_rotation_deg * person.uniform(-1, 1)
    turned = simulation.session_rotation_deg
    rotation += (how.rotation_deg if turned < 0 else turned) * rng.uniform(-1, 1)
    gain = np.exp(person.normal(0, simulation.user_gain, channels))
    gain *= np.exp(rng.normal(0, simulation.session_gain, channels))
    drive = how.drive(motion, np.arange(0.0, samples / rate, 1 / how.control_rate))
    spikes = motor_units.spike_trains(drive, units, how.control_rate, samples, rate, rng)
    waves = motor_units.action_potentials(wrist, channels, np.deg2rad(rotation), rate)
    emg = motor_units.superpose(spikes, waves, block=2048)
    emg *= gain.astype(np.float32)
    return _amplify(emg, simulation, rng)


def _amplify(emg: np.ndarray, simulation: Simulation, rng: np.random.Generator) -> np.ndarray:
    """Adds white noise and hum to (T, C) microvolts, high-passes, divides by the noise's SD."""
    from scipy import signal  # slow to import

    samples, channels = emg.shape
    noise = simulation.noise_uv
    emg += noise * rng.standard_normal((samples, channels), np.float32)
    phase = 2 * np.pi * _HUM * np.arange(samples) / simulation.sample_rate + rng.uniform(0, 6.28)
    hum = np.sqrt(2) * rng.uniform(0.2, 1.0, channels)  # .2-1 µV RMS
    emg += (np.sin(phase)[:, None] * hum).astype(np.float32)
    sos = signal.butter(4, _HIGH_PASS, "highpass", fs=simulation.sample_rate, output="sos")
    return (signal.sosfilt(sos.astype(np.float32), emg, axis=0) / noise).astype(np.float32)


def _failures(seconds: float, rng: np.random.Generator) -> Iterator[tuple[float, float]]:
    """Start and end, in seconds, of the runs without labels; runs may overlap."""
    left = rng.uniform(0.02, 0.12) * seconds
    while left > 0:
        length = min(rng.uniform(0.1, 0.6), left)
        start = rng.uniform(0, seconds - length)
        yield start, start + length
        left -= length


def _metadata(simulation: Simulation, session: Session) -> dict[str, str | bool]:
    return {
        "filename": session.name,
        "user": f"user{session.user:02d}",
        "session": f"user{session.user:02d}_session{session.session:02d}",
        "stage": session.stage,
        "side": "right",
        "moving_hand": "right",
        "held_out_user": session.user >= simulation.users,
        "held_out_stage": session.stage == simulation.movement.held_out,
        "split": session.split,
        "generalization": session.generalization,
    }


def _write(folder: Path, simulation: Simulation, session: Session) -> None:
    emg, angles = record(simulation, session)
    row = _metadata(simulation, session)
    start = 86_400.0 * (1 + session.session)  # a session a day, so that times differ
    time = start + np.arange(len(emg)) / simulation.sample_rate
    attrs = {key: str(row[key]) for key in ("filename", "user", "session", "stage", "side")}
    write_session(
        folder / f"{session.name}.hdf5",
        GROUP,
        time,
        angles,
        emg,
        {
            **attrs,
            "dataset": "synthetic",
            "start": start,
            "end": float(time[-1]),
            "num_channels": simulation.num_channels,
            "sample_rate": simulation.sample_rate,
        },
    )
