"""Names of files in the order of the numbers in them."""

import re
from decimal import Decimal

NUMBER = re.compile(r"(\d+(?:\.\d+)?)")


def by_number(name: str) -> list[tuple[int, str | Decimal]]:
    """A sort key under which 2 comes before 10, and 1.25 before 1.5; exact for any digits."""
    parts = NUMBER.split(name)
    key: list[tuple[int, str | Decimal]] = [
        (1, Decimal(part)) if place % 2 else (0, part) for place, part in enumerate(parts)
    ]
    return [*key, (0, name)]  # 7 and 007 are two names
