"""Units as files write them, by CF's names, through a library."""

import functools
import logging

from tds_jax.errors import UserError


@functools.cache
def linear(old: str, new: str) -> tuple[float, float] | None:
    """(scale, offset): value in `new` = scale · value in `old` + offset; None where unknown.

    Texts that are the same need not be known. m3 m-3 and m**3 m**-3 are (1, 0), degC to K is
    (1, 273.15).
    """
    if old.strip() == new.strip():
        return 1.0, 0.0
    # Most of a second to import, and rarely needed.
    import pint

    logging.getLogger("pint").setLevel(logging.ERROR)  # it tells of every name that CF gives anew
    from cf_xarray.units import units

    try:
        at = [float(units.Quantity(x, units.Unit(old)).to(new).magnitude) for x in (0.0, 1.0, 2.0)]
    except (pint.PintError, ValueError, TypeError, AssertionError):
        return None  # words, such as 'm of water equivalent', or other dimensions
    # Not of logarithms, such as dB.
    if abs(at[2] - 2 * at[1] + at[0]) > 1e-9 * max(map(abs, at)):
        return None
    return round(at[1] - at[0], 12) if at[0] else at[1], at[0]


def is_same(old: str, new: str) -> bool:
    """Whether two texts name one unit."""
    return linear(old, new) == (1.0, 0.0)


def conversion(name: str, old: str, new: str, where: str) -> tuple[float, float]:
    """`linear`, or UserError."""
    found = linear(old, new)
    if found is None:
        raise UserError(
            f"{where}: {name} is in {old!r}, the model was trained on {new!r}, and one cannot be "
            "made of the other; convert it"
        )
    return found
