"""Parts of a run that are not this project's: named 'package.module:Name' in its settings."""

import functools
import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from tds_jax.errors import UserError


def is_own(name: str) -> bool:
    """Whether a setting names a part of one's own instead of a known one."""
    return ":" in name


def found(setting: str, name: str) -> Any:
    """What 'package.module:Name' names; UserError, beginning with the setting, if it is not there.

    The module is imported, and so must be where Python looks: beside the program, installed, or in
    PYTHONPATH.

    >>> found("model.name", "fractions:Fraction")(1, 3)
    Fraction(1, 3)
    """
    module, _, attribute = name.partition(":")
    try:
        part = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{setting}={name!r}: there is no module {error.name!r} where Python looks; install "
            "it, or put its folder into PYTHONPATH"
        ) from error
    except Exception as error:  # a module is a program, in which anything may go wrong
        raise UserError(
            f"{setting}={name!r}: {module} cannot be imported ({type(error).__name__}: {error})"
        ) from error
    if not hasattr(part, attribute):
        raise UserError(f"{setting}={name!r}: {module} has no {attribute!r}; check the spelling")
    return getattr(part, attribute)


def made(setting: str, name: str, offered: Mapping[str, Any]) -> Any:
    """What the named class or function makes of those of `offered` that its arguments name.

    UserError where it needs others, or is none.

    >>> made("model.name", "textwrap:TextWrapper", {"width": 9, "colour": "red"}).width
    9
    """
    part = found(setting, name)
    if not callable(part):
        raise UserError(f"{setting}={name!r} is a {type(part).__name__}; name a class or function")
    named = _arguments(part)
    for one in named:
        if one.name not in offered and one.default is one.empty:
            raise UserError(
                f"{setting}={name!r} needs {one.name!r}, which is not offered; known here: "
                f"{', '.join(sorted(offered))}"
            )
    return part(**{one.name: offered[one.name] for one in named if one.name in offered})


class Given:
    """A source of one's own, which the named class or function makes of those of `offered` that it
    names: when first read, and by every process for itself, for it need not be picklable."""

    def __init__(self, setting: str, name: str, offered: Mapping[str, Any]) -> None:
        self.name, self._setting, self._offered = name, setting, offered

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "source"}

    @functools.cached_property
    def source(self) -> Sequence[Any]:
        """What is made; UserError unless it gives by number, and something."""
        source = made(self._setting, self.name, self._offered)
        if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
            raise UserError(
                f"{self._setting}={self.name!r} makes a {type(source).__name__}; make what has a "
                "length and gives by number"
            )
        if not len(source):
            raise UserError(f"{self._setting}={self.name!r} is empty; give at least one")
        return source

    def item(self, number: int) -> Mapping[str, Any]:
        """What the source gives by a number; UserError, naming both, where that is no mapping."""
        where, source = f"{self._setting}={self.name!r}", self.source
        try:
            found = source[number]
        except Exception as error:  # a source is a program, in which anything may go wrong
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{where} gives no number {number} ({reason})") from error
        if not isinstance(found, Mapping):
            raise UserError(
                f"{where} gives a {type(found).__name__} as number {number}; give a mapping of "
                "arrays by name"
            )
        return found


def _arguments(part: Any) -> list[inspect.Parameter]:
    """Those that have names; of a class, its __init__'s, which flax hides behind others."""
    is_class = isinstance(part, type)
    taken = [*inspect.signature(part.__init__ if is_class else part).parameters.values()]
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [one for one in taken[is_class:] if one.kind not in several]


def compared(setting: str, name: str, prediction: Any, target: Any, shape: tuple[int, ...]) -> Any:
    """What the named function of a prediction and its target gives, a number for each place.

    UserError for another shape, and for what is no function of two arrays; what goes wrong inside
    of it is its own.
    """
    function = found(setting, name)
    _require_compares(setting, name, function)
    values = function(prediction, target)
    require_shape(setting, name, values, shape)
    return values


def _require_compares(setting: str, name: str, function: Any) -> None:
    """UserError for what cannot be called with a prediction and a target."""
    if not callable(function):
        raise UserError(f"{setting}={name!r} is a {type(function).__name__}; name a function")
    try:
        signature = inspect.signature(function)
    except ValueError:  # some of what is not written in Python has none
        return
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise UserError(
            f"{setting}={name!r} must take a prediction and a target: {error}"
        ) from None


def names_of(setting: str, own: Sequence[str]) -> dict[str, str]:
    """What values of own functions are called, by their own names -> 'package.module:Name'."""
    for name in own:
        if not is_own(name):
            raise UserError(f"{setting} has {name!r}; name functions as 'package.module:Name'")
        found(setting, name)
    named = {name.partition(":")[2]: name for name in own}
    if len(named) < len(own):
        raise UserError(f"{setting}={tuple(own)} has functions of one name; rename one")
    return named


def require_shape(setting: str, name: str, array: Any, expected: tuple[int, ...]) -> None:
    """UserError unless a part has given an array of that shape."""
    shape = getattr(array, "shape", None)
    if shape != expected:
        what = f"shape {shape}" if shape is not None else f"a {type(array).__name__}"
        raise UserError(f"{setting}={name!r} gives {what}, expected {expected}")
