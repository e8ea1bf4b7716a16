"""Numbers as a reader wants them: an operator's unit, four digits, real minus signs."""

from __future__ import annotations

import math

from twin.units import DIMENSIONS, factor, offset

# Where the unit table offers more for output than a report should mix.
_UNITS = {
    "energy": ("Wh", "kWh", "MWh", "GWh"),
    "time": ("ms", "s", "min", "h", "d"),
    "fraction": ("%",),
    "temperature": ("degC",),
    "energy_price": ("EUR/MWh",),
    "money": ("EUR",),
    "voltage": ("mV", "V", "kV"),
    "count": ("",),
    "cycles": ("",),
}
_SPOKEN = {"degC": "°C", "ohm": "Ω", "EUR": "€", "EUR/MWh": "€/MWh", "mohm": "mΩ", "kohm": "kΩ"}
ABSENT = "–"


def number(value: float, digits: int = 4) -> str:
    """1234.567 → '1235', 0.00012 → '1.2e-04', -3 → '−3'."""
    if not math.isfinite(value):
        return ABSENT
    if value == 0.0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if -4 <= size < 7:
        text = f"{value:.{max(digits - 1 - size, 0)}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    else:
        text = f"{value:.1e}"
    return text.replace("-", "−", 1) if text.startswith("-") else text


def quantity(value: float | None, dimension: str) -> str:
    """SI value in the unit that leaves 1 to 1000 in front of the point, where there is one."""
    if value is None or not math.isfinite(value):
        return ABSENT
    names = _UNITS.get(dimension) or DIMENSIONS[dimension].shown or (next(iter(DIMENSIONS[dimension].units)),)
    if dimension == "fraction" and 0.0 < abs(value) < 1e-5:
        return number(value)
    shown = {name: (value - offset(name, dimension)) / factor(name, dimension) for name in names}
    fitting = [name for name in names if 1.0 <= abs(shown[name]) < 1000.0]
    if dimension == "time":  # 90 min rather than 1.5 h, 36 h rather than 1.5 d
        fitting = [n for n in fitting if n not in ("h", "d") or shown[n] >= 2.0] or fitting
        name = fitting[-1] if fitting else ("s" if abs(value) < 1 else names[-1])
    elif fitting:
        name = fitting[0]
    else:
        name = min(names, key=lambda n: abs(math.log10(abs(shown[n]) or 1e-300)))
    unit = _SPOKEN.get(name, name)
    return f"{number(shown[name])} {unit}".strip()


def clock(t_s: float) -> str:
    """'0 d 04:12:07' since the start."""
    seconds = round(t_s)
    days, rest = divmod(abs(seconds), 86400)
    return f"{days} d {rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
