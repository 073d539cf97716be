"""Where predictions go: one place per input, looked at before anything is computed."""

from collections.abc import Sequence
from pathlib import Path

from tds_jax.data.order import by_number
from tds_jax.errors import UserError, some
from tds_jax.fields import require_folder


def pair_files(
    source: Path, target: Path, endings: Sequence[str], ending: str = ""
) -> list[tuple[Path, Path]]:
    """(input, where its prediction goes) for --input=source and --output=target.

    source is a file, and so is target; or a folder, of which files with one of `endings` that are
    not hidden count in the order of their numbers, and target is another folder. `ending`: of what
    is written; by default a folder's predictions are named as their inputs. UserError for places
    that cannot be, or would be those of two inputs.
    """
    if not source.exists():
        raise UserError(f"--input={source}: no such file or folder; check the path")
    if source.is_file():
        require_file(source, target)
        if not target.name.endswith(ending):
            raise UserError(f"--output={target} must end with {ending}; name a file")
        return [(source, target)]
    paths = [path for path in source.iterdir() if path.suffix.lower() in endings]
    visible = (path for path in paths if not path.name.startswith("."))
    found = sorted(visible, key=lambda path: by_number(path.name))
    if not found:
        raise UserError(f"--input={source} holds no {' or '.join(endings)} file")
    if target.exists() and (not target.is_dir() or target.resolve() == source.resolve()):
        raise UserError(f"--output={target} must be another folder, since --input is a folder")
    require_folder("--output", target)
    pairs = [(path, target / (path.stem + ending if ending else path.name)) for path in found]
    places = {place: path for path, place in reversed(pairs)}
    for path, place in pairs:
        if places[place] is not path:
            raise UserError(
                f"{path} and {places[place].name} would both go to {place}; rename or remove one"
            )
    return pairs


def require_new(places: Sequence[Path], overwrite: bool) -> None:
    """Raises UserError where something is at any of the places, unless it may be replaced."""
    there = [place for place in places if place.exists()]
    if there and not overwrite:
        are, them = ("is", "it") if len(there) == 1 else ("are", "them")
        raise UserError(
            f"{some(there)} {are} there already; name another --output, or replace {them} with "
            "--overwrite"
        )


def require_file(source: Path, target: Path) -> None:
    """Raises UserError where target is a folder or the input itself."""
    if target.is_dir():
        raise UserError(f"--output={target} is a folder; name a file")
    if source.resolve() == target.resolve():
        raise UserError(f"--output={target} is the input itself; choose another file")


def make_folder_for(place: Path) -> None:
    """Makes the folder a file will be written to; UserError where that is not possible."""
    try:
        place.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--output={place}: its folder cannot be made ({error.strerror}); name another place"
        ) from error
