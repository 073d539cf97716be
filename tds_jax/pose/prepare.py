"""Recordings of any rate rewritten at one rate, a block at a time and each file once."""

import collections
import dataclasses
import shutil
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from tds_jax.data.hdf5 import Header, RowFiles
from tds_jax.data.hdf5_write import write_rows
from tds_jax.data.identity import fingerprint
from tds_jax.data.prepared import ORIGIN, require_known
from tds_jax.data.scan import contradiction, sample_rate, stamped_rate, times_of
from tds_jax.data.session_files import HDF5, SessionFiles
from tds_jax.data.whole_file import sweep, whole_file
from tds_jax.errors import UserError, some
from tds_jax.fields import option, require_choice
from tds_jax.pose.labels import (
    MOST_SECONDS,
    UNITS,
    declared,
    filled,
    first_label_step,
    in_radians,
    radians_per_unit,
    reach,
    seem_degrees,
    valid_rows,
)
from tds_jax.pose.metadata import FILE, junk, session_files, stored_name
from tds_jax.pose.table import DATASET, FIELDS, GROUP, UNIT, layout
from tds_jax.progress import Progress
from tds_jax.tasks import NOTE

BLOCK_ROWS = 65_536  # of the source: 10 MB at 16 channels and 20 joints
MAX_FACTOR = 1000  # of the ratio of two rates: 2222.22 Hz -> 2000 Hz is 9/10
RATIO_RTOL = 1e-4  # by which the ratio may miss the rate asked for
SAME_RATE = 1e-3  # by which prepared rates may differ: each misses what was asked by RATIO_RTOL
LOST_SHARE = 0.1  # of the labels, that a line tells of: rows beside failed ones are fewer
HALF_TAPS = 10  # of the filter that scipy's resample_poly designs, per max(up, down)


@dataclasses.dataclass(frozen=True)
class Prepare:
    """The options of `prepare`."""

    rate_hz: float = option(dataclasses.MISSING, "Samples per second.", least=1e-3)
    group: str = option(GROUP, "HDF5 group of `timeseries`, or 'emg=PLACE, joint_angles=PLACE, …'.")
    angle_unit: str = option("auto", "Of the labels: auto, rad or deg (data.angle_unit).")

    def run(self, source: Path, target: Path, progress: Progress) -> tuple[int, int, list[str]]:
        """See `prepare`."""
        require_choice("--angle_unit", self.angle_unit, UNITS)
        return prepare(source, target, self.rate_hz, self.group, progress, self.angle_unit)


def prepare(
    source: Path,
    target: Path,
    rate_hz: float,
    group: str,
    progress: Progress,
    angle_unit: str = "auto",
) -> tuple[int, int, list[str]]:
    """Every session file of a folder at rate_hz, contiguous float32, and its metadata.csv.

    Returns the number of files written, of files that an earlier call had written, and one line for
    each that was skipped, or whose labels were interpolated or lost. A file appears when whole, so
    the same call goes on where it was killed. UserError for a folder prepared at another rate.
    """
    names = session_files(str(source), "--input")
    if target.resolve() == source.resolve() or (target.exists() and not target.is_dir()):
        raise UserError(f"--output={target} must be a folder other than --input")
    _require_apart(source, names)
    target.mkdir(parents=True, exist_ok=True)
    sweep(target)
    there = [path.name for path in target.iterdir() if path.suffix in HDF5]
    require_known(target, there, map(stored_name, names))
    files = SessionFiles(max_open_files=1, chunk_cache_bytes=4 * 2**20, chunk_cache_preemption=1.0)
    _require_rate(files, [target / name for name in there], group, rate_hz)
    written, kept, skipped = 0, 0, []
    for done, name in enumerate(names):
        progress(done, len(names), name)
        try:
            made, notes = _prepare_file(
                files, source / name, target / stored_name(name), rate_hz, group, angle_unit
            )
        except UserError as error:
            skipped.append(f"skipped {error}")
        else:
            written, kept = written + made, kept + (not made)
            skipped += notes
    skipped += [NOTE + line for line in junk(str(source))]
    files.close()
    if (source / FILE).exists():
        with whole_file(target / FILE) as temporary:
            shutil.copyfile(source / FILE, temporary)
    return written, kept, skipped


def _require_rate(files: RowFiles, prepared: Sequence[Path], group: str, rate_hz: float) -> None:
    """UserError for a folder of recordings at another rate: a run may be trained on them."""
    for path in prepared:
        try:
            attributes = files.header(str(path), group, DATASET).attributes
        except UserError:  # damaged, and written again
            continue
        rate = attributes.get("sample_rate")
        if ORIGIN in attributes and isinstance(rate, float) and abs(rate / rate_hz - 1) > SAME_RATE:
            raise UserError(
                f"--output={path.parent} holds recordings at {rate:g} Hz, which --rate_hz="
                f"{rate_hz:g} would replace; name another --output, or remove that folder first"
            )


def _require_apart(source: Path, names: Sequence[str]) -> None:
    """UserError for files that would become one, such as a.csv and a.hdf5."""
    count = collections.Counter(map(stored_name, names))
    if twice := [name for name in names if count[stored_name(name)] > 1]:
        raise UserError(
            f"--input={source}: {some(twice)} would become one file; rename or remove all but one"
        )


def _prepare_file(
    files: RowFiles, source: Path, target: Path, rate_hz: float, group: str, angle_unit: str
) -> tuple[bool, list[str]]:
    """False if the file is there already, and notes; UserError if another file is there."""
    path = str(source)
    header = files.header(path, group, DATASET)
    first = files.raw(path, group, DATASET, 0, BLOCK_ROWS)
    times = times_of(first, "time", path) if "time" in header.fields else np.zeros(0)
    rate = sample_rate(header, path, layout(group), times)
    up, down = ratio(rate, rate_hz)
    more = _label_reach(files, path, group, header, rate)
    scale = radians_per_unit(angle_unit, str(header.attributes.get(UNIT, "")), path)
    changed = [f"between labels: {more}"] * (more > 0) + [f"scale: {scale}"] * (scale != 1)
    origin = fingerprint({source.name: path}, group, up, down, *changed)
    if target.exists():
        there = files.header(str(target), group, DATASET).attributes.get(ORIGIN)
        if there == origin:
            return False, []
        if there is None:
            raise UserError(f"{path}: {target} exists and was not made by prepare; move it away")
    row = _row_type(header, path)
    attributes = header.attributes | {"sample_rate": rate * up / down, ORIGIN: origin}
    if scale != 1 or angle_unit != "auto":
        attributes[UNIT] = "rad"
    labels = Labels(path, more, scale, up / down)
    blocks = resampled_rows(files, path, group, header, row, rate, up, down, labels, BLOCK_ROWS)
    files.close()  # of a target to be replaced
    write_rows(target, group, resampled_count(header.rows, up, down), row, blocks, attributes)
    contradicted = contradiction(rate, stamped_rate(times))
    told = seem_degrees(declared("auto", str(attributes.get(UNIT, ""))), labels.reached)
    notes = [f"{NOTE}{path}: {told}; --angle_unit converts or declares them"] * bool(told)
    return True, notes + labels.notes() + [f"{NOTE}{path}: {contradicted}"] * bool(contradicted)


def _label_reach(files: RowFiles, path: str, group: str, header: Header, rate: float) -> int:
    """Source rows between which labels are interpolated; 0 without labels or with dense ones."""
    if FIELDS[1] not in header.fields:
        return 0

    def labels(start: int, stop: int) -> np.ndarray:
        return files.raw(path, group, DATASET, start, stop)[FIELDS[1]]

    return reach(first_label_step(labels, header.rows, rate))


@dataclasses.dataclass
class Labels:
    """Labelled rows of a recording before (those between sparse labels included) and after, and
    the largest angle among them, in radians.

    more: source rows between which labels are interpolated. scale: radians per unit of the source's
    angles. factor: rows after per row before.
    """

    path: str
    more: int
    scale: float
    factor: float
    before: int = 0
    after: int = 0
    reached: float = 0.0

    def require_some(self) -> None:
        """Raises UserError where all labels would be lost."""
        if self.before and not self.after:
            raise UserError(
                f"{self.path}: its {self.before} labelled rows stand too far apart to interpolate "
                f"between them (more than {MOST_SECONDS:g} s), and no new row falls on one; "
                "prepare it at its own rate, or a multiple"
            )

    def notes(self) -> list[str]:
        """A line where labels were interpolated, and one where some were lost."""
        lost = 1 - self.after / max(self.before * self.factor, 1)
        return [
            *[f"{NOTE}{self.path}: its labels are in degrees and converted to radians"]
            * (self.scale != 1),
            *[f"{NOTE}{self.path}: its labels are sparse, those between are interpolated"]
            * (self.more > 0),
            *[
                f"{NOTE}{self.path}: {lost:.0%} of its labels are lost: they stand alone, where no "
                "new row is between two"
            ]
            * (self.before > 0 and lost > LOST_SHARE),
        ]


def _row_type(header: Header, path: str) -> np.dtype:
    """time f8, emg f4 and, where the source has them, joint_angles f4."""
    vectors = [FIELDS[0], *(name for name in FIELDS[1:] if name in header.fields)]
    return np.dtype(
        [("time", "<f8"), *((name, "<f4", (header.width(path, name),)) for name in vectors)]
    )


def ratio(rate: float, wanted: float) -> tuple[int, int]:
    """(up, down) in lowest terms with rate * up / down = wanted within RATIO_RTOL, or UserError."""
    found = Fraction(wanted / rate).limit_denominator(MAX_FACTOR)
    up, down = found.numerator, found.denominator
    if up > MAX_FACTOR or abs(rate * up / down / wanted - 1) > RATIO_RTOL:
        raise UserError(
            f"--rate_hz={wanted:g} is no ratio of whole numbers up to {MAX_FACTOR} from "
            f"{rate:g} Hz; choose a rate nearer to it"
        )
    return up, down


def resampled_count(rows: int, up: int, down: int) -> int:
    """Rows at multiples of down / up that do not lie past the last source row."""
    return (rows - 1) * up // down + 1 if rows else 0


def resampled_rows(
    files: RowFiles,
    path: str,
    group: str,
    header: Header,
    row: np.dtype,
    rate: float,
    up: int,
    down: int,
    labels: Labels,
    block_rows: int,
) -> Iterator[np.ndarray]:
    """Consecutive structured blocks at rate * up / down Hz.

    EMG as `filtered_blocks`; a value of NaN or Inf spreads over the filter's length. Times and
    angles are interpolated between the two rows around; next to a failed row the result is failed.
    labels: counts them; raises UserError after the last block if none is left.
    """

    def emg(start: int, stop: int) -> np.ndarray:
        raw = files.raw(path, group, DATASET, start, stop)[FIELDS[0]].astype(np.float64)
        return np.where(np.isinf(raw), np.nan, raw)

    done = 0
    for filtered in filtered_blocks(emg, header.rows, up, down, block_rows):
        at = np.arange(done, done + len(filtered), dtype=np.int64) * down
        lower, share = at // up, (at % up) / up
        begin = max(0, int(lower[0]) - labels.more)
        end = min(int(lower[-1]) + 2 + labels.more, header.rows)
        raw = files.raw(path, group, DATASET, begin, end)
        left = lower - begin
        right = np.minimum(left + (share > 0), len(raw) - 1)
        block = np.empty(len(filtered), row)
        block[FIELDS[0]] = filtered
        block["time"] = (lower + share) / rate
        if "time" in header.fields:
            time = times_of(raw, "time", path)
            block["time"] = time[left] + share * (time[right] - time[left])
        if FIELDS[1] in (row.names or ()):
            angles = in_radians(raw[FIELDS[1]].astype(np.float64), labels.scale)
            angles = filled(angles, labels.more)
            block[FIELDS[1]] = _between(angles, left, right, share)
            # The first row of the next block is not of this one.
            own = slice(left[0], -(-(done + len(filtered)) * down // up) - begin)
            labels.before += int(valid_rows(angles[own]).sum())
            labels.after += int(valid_rows(block[FIELDS[1]]).sum())
            labels.reached = max(labels.reached, float(np.abs(block[FIELDS[1]]).max(initial=0)))
        done += len(filtered)
        yield block
    labels.require_some()


def _between(
    angles: np.ndarray, left: np.ndarray, right: np.ndarray, share: np.ndarray
) -> np.ndarray:
    """(n, J) angles between rows left and right; zeros (failed) where either has failed."""
    valid = valid_rows(angles)
    known = np.where(valid[:, None], angles, 0)
    mixed = known[left] + share[:, None] * (known[right] - known[left])
    return np.where((valid[left] & valid[right])[:, None], mixed, 0)


def filtered_blocks(
    read: Callable[[int, int], np.ndarray], rows: int, up: int, down: int, block_rows: int
) -> Iterator[np.ndarray]:
    """scipy's resample_poly of (rows, C), in consecutive blocks that equal those of the whole.

    read(start, stop) gives source rows. Blocks start at multiples of `down`, where a source row and
    an output row coincide, and are filtered with as many rows on each side as the filter reaches.
    """
    from scipy import signal  # slow to import

    reach = -(-(HALF_TAPS * max(up, down) // up + 1) // down) * down
    step = max(block_rows // down, 1) * down
    total = resampled_count(rows, up, down)
    for start in range(0, rows, step):
        begin, end = max(0, start - reach), min(rows, start + step + reach)
        whole = signal.resample_poly(read(begin, end), up, down, axis=0)
        first = (start - begin) // down * up
        yield whole[first : first + min(step // down * up, total - start // down * up)]
