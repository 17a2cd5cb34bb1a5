"""Numbers as people read them."""

from __future__ import annotations

import math
from typing import Any

UNKNOWN = "–"
_PREFIXES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_SPINS = ("singlet", "doublet", "triplet", "quartet", "quintet", "sextet", "septet")


def number(value: float | None, form: str) -> str:
    """A number in a format, or a dash for None."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    text = format(value, form)
    return text if any(digit in text for digit in "123456789") else text.removeprefix("-")  # no minus before nothing


def energy(value: float | None) -> str:
    """An energy with ten decimals."""
    return number(value, ".10f")


def count(value: int | None) -> str:
    """A whole number with thin spaces between its thousands."""
    return UNKNOWN if value is None else f"{value:,}".replace(",", "\u2009")


def seconds(value: float | None) -> str:
    """A time."""
    if value is None:
        return UNKNOWN
    if value >= 3600:
        return f"{int(value // 3600)} h {round(value % 3600 / 60)} min"
    if value >= 120:
        return f"{int(value // 60)} min {round(value % 60)} s"
    return f"{value:.3g} s" if value >= 1e-3 or value == 0 else f"{1e6 * value:.3g} µs"


def size(n_bytes: float | None) -> str:
    """An amount of memory, powers of 1000."""
    if n_bytes is None:
        return UNKNOWN
    for unit, name in _PREFIXES:
        if n_bytes >= unit:
            return f"{n_bytes / unit:.3g} {name}"
    return f"{n_bytes:.0f} B"


def spin(spin_square: float | None, pure: bool | None) -> str:
    """The spin of a state in words: that of S(S+1) if it has one, else that it is mixed."""
    if spin_square is None:
        return UNKNOWN
    twice = round(math.sqrt(max(0.0, 1.0 + 4.0 * spin_square)) - 1.0)
    exact = twice / 2 * (twice / 2 + 1)
    if pure is False or abs(spin_square - exact) > 1e-3:
        return "mixed spin"
    return _SPINS[twice] if twice < len(_SPINS) else f"2S+1 = {twice + 1}"


def any_value(value: Any) -> str:
    """The value of an option."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
