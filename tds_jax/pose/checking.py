"""What a folder of recordings holds and what is wrong with it, from one pass over every file."""

import collections
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tds_jax.config import SPLITS
from tds_jax.data.hdf5 import Header, RowFiles
from tds_jax.data.scan import Scan, contradiction, scan_file
from tds_jax.errors import UserError, some
from tds_jax.fields import option, require_choice
from tds_jax.pose.labels import (
    UNITS,
    bridged,
    declared,
    label_step,
    radians_per_unit,
    reach,
    seem_degrees,
)
from tds_jax.pose.metadata import FILE, Metadata, junk, read_metadata, session_files
from tds_jax.pose.quality import Quality
from tds_jax.pose.reading import TimedFiles
from tds_jax.pose.sessions import RATE_RTOL, session_groups
from tds_jax.pose.table import DATASET, GROUP, layout
from tds_jax.progress import Progress
from tds_jax.tasks import Checked

MOST_OFFSET = 1.0  # of the EMG's mean, in its spread: it is then not high-passed
MOST_REPEATED = 0.01  # of rows: more are held or upsampled
MOST_SCALES = 10.0  # from the usual spread of EMG: people differ by less than units do
LEAST_HZ, MOST_HZ = 50.0, 50_000.0  # that EMG is sampled at
NAMED = 20  # absent files; a part of a large data set may lack thousands
UNSEEN_USER = ("user", "user_stage")  # generalizations that promise users train does not have
UNSEEN_STAGE = ("stage", "user_stage")


@dataclasses.dataclass(frozen=True)
class Recording:
    """What is known of one readable file; groups: its texts, and its split if metadata has it.

    unit: of its labels, by the option angle_unit or its attribute, '' = by none. radians: per unit.
    """

    name: str
    header: Header
    scan: Scan
    quality: Quality
    groups: Mapping[str, str]
    unit: str
    radians: float

    @property
    def label_step(self) -> int:
        """Rows from one label to the next, see `labels.label_step`."""
        return label_step(self.scan.valid, self.scan.rate_hz)

    @property
    def failed(self) -> float:
        """Share of rows without a valid label; those between sparse labels have one."""
        valid = bridged(self.scan.valid, reach(self.label_step))
        return 1 - int(np.sum(valid[:, 1] - valid[:, 0])) / max(self.scan.samples, 1)

    @property
    def scale(self) -> float:
        """The spread of the EMG, of the channel in the middle."""
        return float(np.median(self.quality.spread))

    @property
    def offset(self) -> float:
        """The largest constant offset of a living channel, in its own spread."""
        alive = self.quality.spread > 0
        parts = np.abs(self.quality.mean[alive]) / self.quality.spread[alive]
        return float(parts.max(initial=0, where=~self.quality.dead[alive]))

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest label in radians, NaN without any."""
        return self.scan.lowest * self.radians, self.scan.highest * self.radians

    @property
    def degrees(self) -> str:
        """What is said of labels that look like degrees."""
        return seem_degrees(self.unit, float(np.abs(self.range).max()))

    def row(self) -> dict[str, Any]:
        """What there is to know of this file, for the table of files."""
        low, high = self.range
        return {
            "seconds": f"{self.scan.samples / self.scan.rate_hz:.1f}",
            "rate_hz": f"{self.scan.rate_hz:g}",
            "labels_rad": f"{low:.3g} to {high:.3g}",
            "emg_spread": f"{self.scale:.4g}",
            "offset": f"{self.offset:.2g}",
            "repeated_rows": f"{self.quality.repeated / max(self.scan.samples, 1):.1%}",
        }

    @property
    def hours(self) -> float:
        """Recorded time."""
        return self.scan.samples / self.scan.rate_hz / 3600

    @property
    def is_usable(self) -> bool:
        """Whether training could take it, were it long enough."""
        return self.scan.backwards < 0 and self.failed < 1 and not self.degrees


@dataclasses.dataclass(frozen=True)
class Check:
    """Reads every session file of a folder once; memory grows with the files, not their rows."""

    group: str = option(GROUP, "HDF5 group of `timeseries`, or 'emg=PLACE, joint_angles=PLACE, …'.")
    angle_unit: str = option("auto", "Of the labels: auto, rad or deg (data.angle_unit).")

    def run(self, folder: Path, progress: Progress) -> Checked:
        """The files that training could use; UserError if the folder has no session file."""
        require_choice("--angle_unit", self.angle_unit, UNITS)
        root = str(folder)
        names = session_files(root, "--input")
        metadata = read_metadata(root, names)
        files = TimedFiles()
        recordings, unreadable = [], []
        for done, name in enumerate(names):
            progress(done, len(names), name)
            try:
                recordings.append(_read(files, root, name, self, metadata))
            except UserError as error:
                unreadable.append(str(error))
        files.close()
        findings = {
            "unreadable": unreadable,
            "junk": junk(root),
            "metadata": _metadata_lines(names, metadata),
            **{kind: _lines(recordings, find) for kind, find in FINDERS.items()},
            "mixed": _mixed(recordings),
            "duplicate": list(_duplicates(recordings)),
            "splits": list(_overlaps(recordings)),
            "reading": files.slow(),
        }
        found = {kind: lines for kind, lines in findings.items() if lines}
        usable = sum(one.is_usable for one in recordings)
        summary = _summary(len(names), usable, recordings, metadata)
        return Checked(usable, summary, found, {one.name: one.row() for one in recordings})


def _read(
    files: RowFiles, root: str, name: str, job: Check, metadata: Metadata | None
) -> Recording:
    path, quality = os.path.join(root, name), Quality()
    scan = scan_file(files, path, layout(job.group), visit=quality.add)
    radians = radians_per_unit(job.angle_unit, scan.attributes[-1], path)
    row = metadata.rows.get(name, {}) if metadata else {}
    groups = {**row, **session_groups(row, scan.attributes)}
    header = files.header(path, job.group, DATASET)
    unit = declared(job.angle_unit, scan.attributes[-1])
    return Recording(name, header, scan, quality, groups, unit, radians)


def _metadata_lines(names: Sequence[str], metadata: Metadata | None) -> list[str]:
    if metadata is None:
        return [f"there is no {FILE}: whole sessions will be dealt by data.split_ratio"]
    extra = [name for name in names if name not in metadata.rows]
    absent = sorted(set(metadata.rows) - set(names))
    few = [f"{name} is in {FILE} but not in the folder" for name in absent]
    return [
        *metadata.problems,
        *(f"{name} is not in {FILE} and stays unused" for name in extra),
        *(few if len(few) <= NAMED else metadata.notes),
    ]


Finder = Callable[[Recording], str]


def _lines(recordings: Iterable[Recording], find: Finder) -> list[str]:
    found = ((one.name, find(one)) for one in recordings)
    return [f"{name}: {text}" for name, text in found if text]


def _time(one: Recording) -> str:
    quality, scan = one.quality, one.scan
    if scan.backwards >= 0:
        return f"time runs backwards at row {scan.backwards}; sort the rows or cut the file there"
    if quality.gaps:
        return f"gaps in time: {quality.gaps}, the longest of {quality.longest:.3g} s"
    if not LEAST_HZ <= scan.rate_hz <= MOST_HZ:
        return f"{scan.rate_hz:g} samples per second are none of EMG; are the time stamps in s?"
    return contradiction(scan.rate_hz, scan.stamped_hz)


def _signal(one: Recording) -> str:
    quality = one.quality
    repeated = quality.repeated / max(one.scan.samples, 1)
    parts = {
        "NaN or Inf": f"{quality.bad_emg} values" if quality.bad_emg else "",
        "dead": _numbers(quality.dead),
        "saturated": _numbers(quality.saturated),
        "offset": f"{one.offset:.3g} times a channel's spread" * (one.offset > MOST_OFFSET),
        "repeated": f"{repeated:.1%} of rows are as the one before" * (repeated > MOST_REPEATED),
    }
    return "; ".join(f"{name}: {text}" for name, text in parts.items() if text)


def _numbers(flags: np.ndarray) -> str:
    numbers = ", ".join(map(str, np.flatnonzero(flags)))
    return f"channel {numbers}" if numbers else ""


def _labels(one: Recording) -> str:
    if one.failed == 1:
        return "no row has valid joint angles; leave the file out"
    if one.degrees:
        return one.degrees
    if one.label_step > 1:
        return (
            f"on every {one.label_step}th row ({one.scan.rate_hz / one.label_step:.4g} Hz); those "
            "of the rows between are interpolated"
        )
    bad = one.quality.bad_labels
    return f"{bad} values are NaN or Inf (their rows get weight 0)" if bad else ""


FINDERS: dict[str, Finder] = {"time": _time, "emg": _signal, "labels": _labels}


def _mixed(recordings: Sequence[Recording]) -> list[str]:
    """What must be one and the same over a folder, and is not."""
    rates = np.array([one.scan.rate_hz for one in recordings])
    same_rate = not len(rates) or np.ptp(rates) <= RATE_RTOL * rates[0]
    columns: dict[str, list[Any]] = {
        "channels": [one.scan.channels for one in recordings],
        "joints": [one.scan.labels for one in recordings],
    }
    lines = [
        f"different {name}: {_tally(values)}; train on one kind at a time"
        for name, values in columns.items()
        if len(set(values)) > 1
    ]
    scales = np.array([one.scale for one in recordings])
    usual = float(np.median(scales)) if len(scales) else 0.0
    far = (scales > MOST_SCALES * usual) | (scales * MOST_SCALES < usual)
    names = [
        f"{recordings[i].name} {scales[i]:.4g}" for i in np.flatnonzero(far & (scales > 0)).tolist()
    ]
    if names:
        lines.append(
            f"different EMG scales: the spread is about {usual:.4g}, but {some(names)}; bring all "
            "to one unit"
        )
    if not same_rate:
        tally = _tally(f"{rate:g}" for rate in rates)
        lines.append(f"different rates (Hz): {tally}; make them one with tds_jax.prepare")
    return lines


def _duplicates(recordings: Iterable[Recording]) -> Iterator[str]:
    first: dict[str, str] = {}
    for one in recordings:
        same = first.setdefault(one.quality.digest, one.name)
        if same != one.name and one.scan.samples:
            yield f"{one.name} has the same EMG as {same}"


def _overlaps(recordings: Sequence[Recording]) -> Iterator[str]:
    """What train shares with val and test, unless their files promise no more than new stages."""
    kinds = {one.name: one.groups["generalization"] for one in recordings}
    train = [one for one in recordings if one.groups.get("split") == "train"]
    seen = {g: {one.groups[g] for one in train} - {""} for g in ("session", "user", "stage")}
    for split in ("val", "test"):
        held = [one for one in recordings if one.groups.get("split") == split]
        free = [one for one in held if kinds[one.name] != "stage"]
        shared = sorted({one.groups["session"] for one in free} & seen["session"])
        for session in shared:
            yield f"session {session} is in train and in {split}"
        known = sorted({one.groups["user"] for one in free} & seen["user"])
        if known:
            yield f"users in train and in {split}: {len(known)} ({', '.join(known[:8])})"
        for column, promises in (("user", UNSEEN_USER), ("stage", UNSEEN_STAGE)):
            for one in held:
                if kinds[one.name] in promises and one.groups[column] in seen[column]:
                    yield f"{one.name} of {split} promises a new {column}, train has it too"


def _tally(values: Iterable[object]) -> str:
    """'2000' when all are equal, else '2000 (3 files), 250 (1 file)'."""
    counts = collections.Counter(map(str, values)).most_common()
    if len(counts) == 1:
        return counts[0][0]
    return ", ".join(f"{value} ({n} file{'s' * (n != 1)})" for value, n in counts)


def _summary(
    names: int, usable: int, recordings: Sequence[Recording], metadata: Metadata | None
) -> dict[str, Any]:
    table: dict[str, Any] = {"files": names, "usable": usable}
    if not recordings:
        return table
    for group in ("user", "session", "stage", "side"):
        table[f"{group}s"] = len({one.groups[group] for one in recordings} - {""})
    failed = [one.failed for one in recordings]
    rms = np.concatenate([one.quality.rms for one in recordings])
    table |= {
        "hours": round(sum(one.hours for one in recordings), 4),
        "rate_hz": _tally(f"{one.scan.rate_hz:g}" for one in recordings),
        "channels": _tally(one.scan.channels for one in recordings),
        "joints": _tally(one.scan.labels for one in recordings),
        "row": _tally(_row(one.header) for one in recordings),
        "storage": _tally(one.header.storage for one in recordings),
        "bad_emg_values": sum(one.quality.bad_emg for one in recordings),
        "bad_label_values": sum(one.quality.bad_labels for one in recordings),
        "failed_rows_median": round(float(np.median(failed)), 4),
        "failed_rows_max": round(max(failed), 4),
        "emg_rms": [float(f"{q:.4g}") for q in np.quantile(rms, [0, 0.5, 1])],
    }
    return table | (_splits(recordings) if metadata else {})


def _row(header: Header) -> str:
    fields = ", ".join(
        f"{name} {field.dtype.str[1:]}{list(field.shape) or ''}"
        for name, field in header.fields.items()
    )
    return f"{header.row_bytes} bytes: {fields}"


def _splits(recordings: Sequence[Recording]) -> dict[str, dict[str, float]]:
    table = {}
    for split in SPLITS:
        members = [one for one in recordings if one.groups.get("split") == split]
        table[split] = {
            "files": len(members),
            "users": len({one.groups["user"] for one in members} - {""}),
            "hours": round(sum(one.hours for one in members), 4),
        }
    return table
