"""Sizes in bytes as people write them."""

import re

from tds_jax.errors import UserError

MIB = 2**20
GIB = 2**30

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": MIB, "GIB": GIB, "TIB": 2**40}


def parse_bytes(name: str, text: str) -> int:
    """'1GiB', '512 MiB', '1.5GB' or '800000' -> bytes. name: the setting, for the UserError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if found is None or found[2].upper() not in _UNITS:
        raise UserError(f"{name}={text!r} is not a size; write it like 1GiB, 512MiB or 2GB")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def format_bytes(count: float) -> str:
    """'1.50 GiB', '312 MiB', '12 KiB'."""
    if count >= GIB:
        return f"{count / GIB:.2f} GiB"
    if count >= MIB:
        return f"{count / MIB:.0f} MiB"
    return f"{count / 1024:.0f} KiB"
