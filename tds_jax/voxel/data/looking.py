"""Which volumes of a folder can be used: each is read once, and what was found is kept on disk."""

import collections
import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tds_jax.data import json_file
from tds_jax.data.crew import ALONE, Crew, require_same
from tds_jax.data.identity import is_as_known, of_file
from tds_jax.errors import UserError
from tds_jax.progress import Progress, silent
from tds_jax.voxel.data.resize import Shape
from tds_jax.voxel.data.volumes import KINDS, Frame, Place, Scene, VolumeFiles

Asked = list[tuple[str, str, Place]]
"""Name of the frame, kind, place: of every volume of a file."""


@dataclasses.dataclass(frozen=True)
class Look:
    """What reading all volumes of a file found.

    shapes: (X, Y, Z) by frame and kind, of those that can be read. problem: a line on the others.
    identity: of `data.identity`, '' with a problem.
    """

    shapes: Mapping[tuple[str, str], Shape]
    problem: str
    identity: str


def usable(
    root: str | Path,
    scenes: Sequence[Scene],
    files: VolumeFiles,
    max_bad_files: int,
    cache_dir: Path | None,
    progress: Progress = silent,
    crew: Crew = ALONE,
) -> tuple[list[Scene], list[str]]:
    """The scenes with the frames both of whose volumes can be read and have most volumes' grid.

    Second, a line for each file of which something cannot be used; more than max_bad_files of them
    are a UserError. cache_dir: where is remembered which files were read and found whole, by their
    identity; None remembers nothing.
    progress(done, total, name) is called before each file that has to be read. A crew reads a part
    of them each.
    """
    looks, warnings = _looked(str(root), scenes, files, cache_dir, progress, crew)
    shapes = [one for look in looks.values() for one in look.shapes.values()]
    usual = next(iter(collections.Counter(shapes).most_common(1)), (None, 0))[0]
    problems = [line for scene in scenes for line in scene.problems]
    problems += [look.problem for look in looks.values() if look.problem]
    problems += [
        f"{path}: the grid (X, Y, Z) is {other[0]}, most have {usual}; voxelise all with one grid"
        for path, look in looks.items()
        if (other := [one for one in look.shapes.values() if one != usual])
    ]
    if len(problems) > max_bad_files:
        raise UserError(
            f"{root}: {len(problems)} files of volumes cannot be used, more than "
            f"data.max_bad_files={max_bad_files}: {'; '.join(problems[:3])}"
        )

    def is_good(frame: Frame) -> bool:
        pair = {kind: looks[getattr(frame, kind).path].shapes for kind in KINDS}
        return all(one.get((frame.name, kind)) == usual for kind, one in pair.items())

    kept = [
        dataclasses.replace(scene, frames=tuple(filter(is_good, scene.frames))) for scene in scenes
    ]
    kept = [scene for scene in kept if scene.frames]
    if not kept:
        raise UserError(f"{root}: no frame is usable; first: {problems[0]}")
    return kept, warnings + [f"left out {line}" for line in problems]


def _looked(
    root: str,
    scenes: Sequence[Scene],
    files: VolumeFiles,
    cache_dir: Path | None,
    progress: Progress,
    crew: Crew,
) -> tuple[dict[str, Look], list[str]]:
    """A look at every file, by path, and warnings."""
    cache = cache_dir and cache_dir / f"volumes-{_digest(os.path.realpath(root))}.json"
    asked = _volumes(scenes)
    looks, warnings = crew.by_first(lambda: _kept_of(root, asked, cache))
    require_same(crew, root, [*asked], [*looks])
    todo = [path for path, look in looks.items() if look is None]
    done, total = itertools.count(), len(crew.share(todo))

    def look(path: str) -> Look:
        progress(next(done), total, os.path.relpath(path, root))
        return _look(files, path, asked[path])

    for made in crew.rounds(todo, look):
        looks |= made
    files.close()
    found = {path: one for path, one in looks.items() if one}
    if todo and crew.first:
        warnings += _save(cache, root, found)
    return found, warnings


def _kept_of(
    root: str, asked: Mapping[str, Asked], cache: Path | None
) -> tuple[dict[str, Look | None], list[str]]:
    """What earlier looks have found of every file, and warnings."""
    known, warnings = _load(cache)
    return {path: _kept(root, path, of, known) for path, of in asked.items()}, warnings


def _volumes(scenes: Sequence[Scene]) -> dict[str, Asked]:
    """The volumes of every file, by path, in the order of frames."""
    found: dict[str, Asked] = {}
    for scene in scenes:
        for frame in scene.frames:
            for kind in KINDS:
                place = getattr(frame, kind)
                found.setdefault(place.path, []).append((frame.name, kind, place))
    return found


def _look(files: VolumeFiles, path: str, asked: Asked) -> Look:
    shapes: dict[tuple[str, str], Shape] = {}
    wrong: list[str] = []
    for name, kind, place in asked:
        try:
            shapes[name, kind] = files.read(place, kind).shape
        except UserError as error:
            wrong.append(str(error))
    more = f" (so {len(wrong)} of its {len(asked)} volumes)" if len(asked) > 1 else ""
    return Look(shapes, wrong[0] + more, "") if wrong else Look(shapes, "", of_file(path))


def _kept(root: str, path: str, asked: Asked, known: Mapping[str, Look]) -> Look | None:
    """What an earlier look found, if the file is the same and holds all that is asked for."""
    look = known.get(os.path.relpath(path, root))
    if look is None or not is_as_known(path, look.identity):
        return None
    return look if {(name, kind) for name, kind, _ in asked} <= look.shapes.keys() else None


def _digest(text: str) -> str:
    return hashlib.blake2b(os.fsencode(text), digest_size=8).hexdigest()


def _save(cache: Path | None, root: str, looks: Mapping[str, Look]) -> list[str]:
    """Files without an identity are looked at each time. A cache that cannot be is a warning."""
    if cache is None:
        return []
    values = {
        os.path.relpath(path, root): {
            "identity": look.identity,
            "shapes": [[*key, *shape] for key, shape in look.shapes.items()],
        }
        for path, look in looks.items()
    }
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        json_file.write(cache, values)
    except OSError as error:
        return [f"data.cache_dir: {cache} cannot be written ({error}); the next start reads again"]
    return []


def _load(cache: Path | None) -> tuple[dict[str, Look], list[str]]:
    if cache is None or not cache.exists():
        return {}, []
    try:
        values = json.loads(cache.read_text())
        return {
            name: Look(dict(_shapes(one["shapes"])), "", one["identity"])
            for name, one in values.items()
        }, []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return {}, [f"{cache}: not as it was written ({error}); looking at the volumes again"]


def _shapes(
    rows: Sequence[tuple[str, str, int, int, int]],
) -> Iterator[tuple[tuple[str, str], Shape]]:
    for name, kind, x, y, z in rows:
        yield (name, kind), (x, y, z)
