"""Laws of units: CF's spellings are one, scales and offsets are exact, what is unknown is said."""

import pytest

from tds_jax.data.units import conversion, is_same, linear
from tds_jax.errors import UserError


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("m3 m-3", "m**3 m**-3", (1, 0)),
        ("kg m**-2", "kg m-2", (1, 0)),
        ("degC", "K", (1, 273.15)),
        ("K", "degrees_Celsius", (1, -273.15)),
        ("mm", "m", (0.001, 0)),
        ("hPa", "Pa", (100, 0)),
        ("m of water equivalent", "m of water equivalent ", (1, 0)),
    ],
)
def test_known_units_become_others(old, new, wanted):
    assert linear(old, new) == pytest.approx(wanted, rel=1e-12)
    assert is_same(old, new) == (wanted == (1, 0))


@pytest.mark.parametrize("old", ["m of water equivalent", "K", "(0 - 1)", "", "dBZ"])
def test_unknown_units_and_other_dimensions_are_refused_by_name(old):
    with pytest.raises(UserError, match=r"a\.nc: tp is in .* the model was trained on 'm'"):
        conversion("tp", old, "m", "a.nc")
