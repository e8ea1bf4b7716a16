"""Operator's units in, SI out, and back: the only place with conversion factors.

A scenario says `250 kW`, `25 degC`, `3 d 04:12:07`, `85 EUR/MWh`; everything behind the loader is SI
(kelvin, joule, EUR per joule). Three dimensions keep the field's own word instead: `capacity` (Ah),
`cycles` and `count`. Conversion is exact: text and factor are multiplied as fractions and rounded once,
so `0.1 mV` is the float `1e-4` and `parse(format_quantity(x, d), d) == x` holds for every finite float.

    >>> parse("250 kW", "power")
    250000.0
    >>> parse("1 d 12 h", "time")
    129600.0
    >>> format_quantity(298.15, "temperature")
    '25 degC'

Why no library: pint is excellent, but builds its registry from a text file at import (about as long as
this whole loader takes to start), and its errors speak of parsers, not of scenarios. What a scenario needs
is a table of some 150 names, read below in one go, and the absolute/difference split of temperatures.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from fractions import Fraction


class UnitError(ValueError):
    """Text that is not a quantity of the dimension asked for.

    `message` says what is wrong, `expected` what is possible, `guess` the nearest correct text (or None).
    """

    def __init__(self, message: str, expected: str, guess: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.expected = expected
        self.guess = guess


@dataclass(frozen=True)
class Dimension:
    """One kind of quantity.

    `units` maps every accepted name to its factor (SI value = number * factor + offset), `shown` lists the
    names used when formatting, small to large, `example` is for messages, `limit` is the magnitude (SI)
    beyond which a number can only be a slip of the keyboard.
    """

    name: str
    units: dict[str, Fraction]
    shown: tuple[str, ...]
    example: str
    limit: float
    offsets: dict[str, Fraction]

    def unit_names(self) -> str:
        names = [u for u in self.units if u]
        text = ", ".join(names)
        return f"{text} or a bare number" if "" in self.units and names else (text or "a bare number")


# name | limit in SI | example | units with factors; `*` marks those used for output.
# The first unit is the SI one (factor 1). `-` is the bare number. Factors are exact by definition
# (BIPM SI Brochure, 9th ed.; 1 mph = 0.44704 m/s; 1 atm not offered).
_TABLE = """
time                  |1e11 | 3 d        |s* us=1e-6* ms=1e-3* min=60* h=3600* d=86400* week=604800 a=31557600
power                 | 1e12| 250 kW     | W* mW=1e-3* kW=1e3* MW=1e6* GW=1e9*
energy                | 1e18| 85 kWh     | J* Wh=3600* kWh=3.6e6* MWh=3.6e9* GWh=3.6e12* kJ=1e3 MJ=1e6
voltage               | 1e6 | 3.6 V      | V* uV=1e-6* mV=1e-3* kV=1e3*
current               | 1e7 | 120 A      | A* uA=1e-6* mA=1e-3* kA=1e3*
charge                | 1e12| 5 Ah       | C As=1 Ah=3600* mAh=18/5* kAh=3600000*
capacity              | 1e9 | 5 Ah       | Ah* mAh=1e-3* kAh=1e3* C=1/3600
c_rate                | 1e4 | 0.5 1/h    | 1/h* C=1
resistance            | 1e12| 40 ohm     | ohm* uohm=1e-6* mohm=1e-3* kohm=1e3* Mohm=1e6*
temperature_difference| 1e5 | 1.5 K      | K* mK=1e-3*
temperature_rate      | 1e6 | 1 K/min    | K/s* mK/s=1e-3* K/min=1/60 K/h=1/3600
voltage_rate          | 1e6 | 2 mV/min   | V/s* mV/s=1e-3* uV/s=1e-6* mV/min=1/60000 mV/h=1/3600000
frequency             | 1e12| 50 Hz      | Hz* mHz=1e-3* kHz=1e3* MHz=1e6*
energy_price          | 1   | 85 EUR/MWh | EUR/J EUR/MWh=1/3600000000* EUR/kWh=1/3600000 ct/kWh=1/360000000
power_price           | 1e6 | 120 EUR/kW | EUR/W EUR/kW=1e-3* EUR/MW=1e-6*
money                 | 1e13| 1200 EUR   | EUR* kEUR=1e3* MEUR=1e6* ct=1e-2
speed                 | 1e4 | 50 km/h    | m/s* km/h=5/18* mph=1397/3125
acceleration          | 1e5 | 1.2 m/s^2  | m/s^2* m/s2=1
mass                  | 1e9 | 1900 kg    | kg* g=1e-3* t=1e3*
length                | 1e9 | 12 mm      | m* mm=1e-3* cm=1e-2 km=1e3*
area                  | 1e12| 0.6 m^2    | m^2* m2=1 cm^2=1e-4* mm^2=1e-6*
volume                | 1e12| 1.5 l      | m^3* m3=1 l=1e-3* ml=1e-6*
volume_flow           | 1e6 | 8 l/min    | m^3/s l/min=1/60000* l/s=1e-3
mass_flow             | 1e6 | 40 g/s     | kg/s* g/s=1e-3*
density               | 1e6 | 2500 kg/m^3| kg/m^3* kg/m3=1 g/cm^3=1e3
pressure              | 1e12| 1.2 bar    | Pa* kPa=1e3* mbar=100 bar=1e5*
heat_capacity         | 1e12| 900 J/K    | J/K* kJ/K=1e3*
specific_heat         | 1e6 | 950 J/kg/K | J/(kg.K)* J/kg/K=1 kJ/kg/K=1e3
thermal_conductance   | 1e9 | 0.4 W/K    | W/K* mW/K=1e-3* kW/K=1e3*
heat_transfer         | 1e7 | 25 W/m^2/K | W/(m^2.K)* W/m^2/K=1 W/m2/K=1
irradiance            | 1e6 | 800 W/m^2  | W/m^2* W/m2=1 kW/m^2=1e3*
power_per_frequency   | 1e12| 5 MW/Hz    | W/Hz* kW/Hz=1e3* MW/Hz=1e6* kW/mHz=1e6
force                 | 1e9 | 200 N      | N* kN=1e3*
angle                 | 1e3 | 0.05 rad   | rad deg=DEG
data                  | 1e18| 256 KiB    | B* kB=1e3* MB=1e6* GB=1e9* KiB=1024 MiB=1048576
data_rate             | 1e15| 64 kB/s    | B/s* kB/s=1e3* MB/s=1e6* bit/s=1/8 kbit/s=125 Mbit/s=125000
fraction              | 1e9 | 60 %       | -* %=1e-2* permille=1e-3 ppm=1e-6
cycles                | 1e12| 300        | -* cycles=1
count                 | 1e15| 4          | -*
"""

# Other spellings of a unit name, tried after the exact one.
_SPELLINGS = {
    "°C": "degC",
    "℃": "degC",
    "°F": "degF",
    "Ω": "ohm",
    "mΩ": "mohm",
    "kΩ": "kohm",
    "µ": "u",
    "μ": "u",
    "Ohm": "ohm",
    "sec": "s",
    "second": "s",
    "seconds": "s",
    "minute": "min",
    "minutes": "min",
    "hr": "h",
    "hour": "h",
    "hours": "h",
    "day": "d",
    "days": "d",
    "weeks": "week",
    "€/MWh": "EUR/MWh",
    "€/kWh": "EUR/kWh",
    "€": "EUR",
    "‰": "permille",
    "percent": "%",
    "m²": "m^2",
    "m³": "m^3",
    "L": "l",
    "kph": "km/h",
    "kmh": "km/h",
}


def _read_table() -> dict[str, Dimension]:
    dimensions = {}
    for line in _TABLE.strip().splitlines():
        name, limit, example, unit_words = (part.strip() for part in line.split("|"))
        units: dict[str, Fraction] = {}
        shown: list[str] = []
        for word in unit_words.split():
            label, _, factor = word.rstrip("*").partition("=")
            if label == "-":
                label = ""
            # Degrees are not rational in radians; the nearest float stands for the factor.
            units[label] = Fraction(math.pi / 180) if factor == "DEG" else Fraction(factor or 1)
            if word.endswith("*"):
                shown.append(label)
        shown.sort(key=lambda u, units=units: units[u])  # type: ignore[misc]
        dimensions[name] = Dimension(name, units, tuple(shown), example, float(limit), {})
    dimensions["temperature"] = Dimension(
        "temperature",
        {"K": Fraction(1), "degC": Fraction(1), "degF": Fraction(5, 9)},
        ("degC",),
        "25 degC",
        1e5,
        {"degC": Fraction("273.15"), "degF": Fraction("459.67") * Fraction(5, 9)},
    )
    return dimensions


DIMENSIONS: dict[str, Dimension] = _read_table()

_NUMBER = re.compile(r"[+-]?(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?")
_CLOCK = re.compile(r"(\d{1,4}):([0-5]\d)(?::([0-5]\d(?:\.\d+)?))?$")
_LONGEST = 80


def parse(text: str, dimension_name: str) -> float:
    """The SI value of `text`, e.g. parse("40 ohm", "resistance") = 40.0; raises UnitError.

    Durations may be sums: `1 d 12 h`, `3 d 04:12:07`, `04:30` (hours:minutes).
    """
    dim = DIMENSIONS[dimension_name]
    value = _exact(text, dim)
    if abs(value) > dim.limit:
        raise UnitError(
            f"{_shorten(text)} is beyond any {_words(dim)} (limit {format_quantity(dim.limit, dim.name)})",
            _expected(dim),
        )
    return float(value)


def factor(unit: str, dimension_name: str) -> float:
    """What a number in `unit` is multiplied with to become SI; raises UnitError."""
    dim = DIMENSIONS[dimension_name]
    return float(dim.units[_unit(unit.strip(), dim, "1", unit)])


def offset(unit: str, dimension_name: str) -> float:
    """What is added after multiplying (absolute temperatures only)."""
    dim = DIMENSIONS[dimension_name]
    return float(dim.offsets.get(_unit(unit.strip(), dim, "1", unit), Fraction(0)))


def dimensions_of(unit: str) -> tuple[str, ...]:
    """The dimensions that know a unit, e.g. 'kW' → ('power',)."""
    return tuple(name for name, dim in DIMENSIONS.items() if _spelled(unit) in dim.units)


def unit_pattern(dimension_name: str) -> str:
    """A regular expression (ECMA and Python) for texts that `parse` may accept; for JSON Schema."""
    dim = DIMENSIONS[dimension_name]
    spellings = [s for s, unit in _SPELLINGS.items() if unit in dim.units]
    names = "|".join(re.escape(u) for u in sorted({*dim.units, *spellings}, reverse=True))
    number = r"[+-]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][+-]?\d+)?"
    if dim.name == "time":
        clock = r"\d{1,4}:[0-5]\d(:[0-5]\d(\.\d+)?)?"
        return rf"^\s*[+-]?((({number})\s*({names})\s*)+({clock})?|{clock})\s*$"
    return rf"^\s*{number}\s*({names})\s*$"


def format_quantity(value: float, dimension_name: str) -> str:
    """`value` (SI) in the unit an operator would choose; `parse` gives exactly `value` back.

    Infinite and NaN values are shown as such, for messages only.
    """
    dim = DIMENSIONS[dimension_name]
    if not math.isfinite(value):
        return f"{value} {next(iter(dim.units))}".strip()
    if dim.name == "time" and 3600.0 <= abs(value) < 1e15 and value == int(value) and value % 3600.0:
        return _clock(int(value))
    base = next(iter(dim.units))
    if value == 0.0 and not dim.offsets:
        return f"0 {base}".strip()
    names: tuple[str, ...] = (*dim.shown, base)
    if "%" in names:
        # 60 % and 0.4 %, but a balance of 1e-9 and a factor of 6.
        names = ("%",) if 1e-4 <= abs(value) <= 1.0 else ("",)
    candidates = []
    for name in names:
        number = _shortest(value, name, dim)
        if number is not None:
            candidates.append((_ugliness(number), number, name))
    _, number, name = min(candidates, key=lambda c: c[0])
    return f"{number} {name}".strip()


def _ugliness(number: str) -> float:
    """Length plus a price for leaving 1…1000: '250 kW' beats '250000 W', '0.5 mV' loses to '500 uV'."""
    digits = number.lstrip("-").replace(".", "")
    magnitude = abs(float(number))
    exponent = 0.0 if magnitude == 0.0 else math.log10(magnitude)
    return len(digits) + 2.0 * max(0.0, -exponent, exponent - 2.999)


def _clock(seconds: int) -> str:
    """97927 → '1 d 03:12:07'; whole hours and days are left to the unit table."""
    sign = "-" if seconds < 0 else ""
    days, rest = divmod(abs(seconds), 86400)
    clock = f"{rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    return f"{sign}{days} d {clock}" if days else f"{sign}{clock}"


def closest(word: str, options: list[str] | tuple[str, ...]) -> str | None:
    """The option most like `word`, or None when nothing is near; upper and lower case count little."""
    for option in options:
        if option.lower() == word.lower():
            return option
    matcher = difflib.SequenceMatcher(b=word.lower())
    best, best_ratio = None, 0.6 - 1e-9
    for option in options:
        matcher.set_seq1(option.lower())
        ratio = matcher.ratio()
        if ratio > best_ratio:
            best, best_ratio = option, ratio
    return best


def _shortest(value: float, unit: str, dim: Dimension) -> str | None:
    """The fewest digits in `unit` that read back as exactly `value`; None when no float-sized number does."""
    exact = (Fraction(value) - dim.offsets.get(unit, Fraction(0))) / dim.units[unit]
    number = float(exact)
    if not math.isfinite(number):
        return None
    # Beside an offset the interesting digits are decimals: 273.15 K is 0 degC, not 1e-14 degC.
    decimals = [f"{number:.{d}f}" for d in range(13)] if unit in dim.offsets else []
    for text in [*decimals, *(_plain(f"{number:.{d}g}") for d in range(1, 18)), repr(number)]:
        text = "0" if text == "-0" else text
        if float(Fraction(text) * dim.units[unit] + dim.offsets.get(unit, Fraction(0))) == value:
            return text
    return None


def _plain(text: str) -> str:
    """'2.5e+05' → '250000' where that is not longer than a human reads."""
    if "e" not in text:
        return text
    exponent = int(text.split("e")[1])
    if 0 <= exponent < 7:
        return str(int(Fraction(text)))
    if exponent == -5:
        return f"{float(text):.12f}".rstrip("0")
    return text


def _exact(text: str, dim: Dimension) -> Fraction:
    words = text.strip()
    if not words:
        raise UnitError("nothing given", _expected(dim))
    if len(words) > _LONGEST:
        raise UnitError(f"{_shorten(words)} is too long for a number with a unit", _expected(dim))
    if re.match(r"[+-]?\d+,\d", words):
        raise UnitError(f"{_shorten(words)} has a decimal comma", _expected(dim), words.replace(",", ".", 1))
    if dim.name == "time":
        return _duration(words, dim)
    match = _NUMBER.match(words)
    if match is None:
        raise _not_a_number(words, dim)
    unit = words[match.end() :].strip()
    return _value(match.group(), unit, dim, words)


def _value(number: str, unit: str, dim: Dimension, text: str) -> Fraction:
    name = _unit(unit, dim, number, text)
    if not math.isfinite(float(number)):
        raise UnitError(f"{_shorten(text)} is too large for a number", _expected(dim))
    # float() bounds the exponent; Fraction("1e999999999") would otherwise try to build that integer.
    small = float(number) == 0.0
    exact = Fraction(0) if small else Fraction(number)
    value = exact * dim.units[name] + dim.offsets.get(name, Fraction(0))
    if dim.name == "temperature" and value < 0:
        raise UnitError(f"{text} is below absolute zero", _expected(dim))
    return value


def _unit(unit: str, dim: Dimension, number: str, text: str) -> str:
    name = _spelled(unit)
    if name in dim.units:
        return name
    number = number.replace("_", "")
    if not name:
        raise UnitError(f"{_shorten(text)} has no unit", _expected(dim))
    if not any(dim.units):
        raise UnitError(
            f"{_shorten(text)} has a unit; {_article(_words(dim))} has none", _expected(dim), number
        )
    near = closest(name, [u for u in dim.units if u])
    elsewhere = [other for other in dimensions_of(name) if other != dim.name]
    if elsewhere:
        what = " or ".join(_words(DIMENSIONS[o]) for o in elsewhere[:2])
        message = f"'{unit}' is a unit of {what}, not of {_words(dim)}"
    else:
        message = f"no unit '{_shorten(unit, quote=False)}' of {_words(dim)}"
    # A unit of another dimension is no typing error; suggest only where the name itself is unknown
    # or differs in case (mW for MW).
    guess = None
    if near and (not elsewhere or near.lower() == name.lower()):
        guess = f"{number} {near}"
    raise UnitError(message, _expected(dim), guess)


def _duration(text: str, dim: Dimension) -> Fraction:
    sign = 1
    rest = text
    if rest[0] in "+-":
        sign = -1 if rest[0] == "-" else 1
        rest = rest[1:].strip()
    total = Fraction(0)
    last_factor: Fraction | None = None
    while rest:
        clock = _CLOCK.match(rest)
        if clock:
            hours, minutes, seconds = clock.group(1), clock.group(2), clock.group(3) or "0"
            if last_factor is not None and (last_factor < 86400 or int(hours) > 23):
                raise UnitError(
                    f"{_shorten(text)}: a clock time after days runs from 00:00 to 23:59:59", _expected(dim)
                )
            return sign * (total + int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds))
        match = _NUMBER.match(rest)
        if match is None or match.group()[0] in "+-":
            raise _not_a_number(text, dim)
        tail = rest[match.end() :].lstrip()
        unit = re.match(r"[^\d\s+.-]*", tail)
        name = unit.group() if unit else ""
        value = _value(match.group(), name, dim, text)
        if last_factor is not None and dim.units[_spelled(name)] >= last_factor:
            raise UnitError(
                f"{_shorten(text)}: the parts of a duration go from large to small", _expected(dim)
            )
        last_factor = dim.units[_spelled(name)]
        total += value
        rest = tail[len(name) :].strip()
    if last_factor is None:
        raise _not_a_number(text, dim)
    return sign * total


def _spelled(unit: str) -> str:
    unit = unit.replace(" ", "")
    if unit in _SPELLINGS:
        return _SPELLINGS[unit]
    if unit[:1] in ("µ", "μ"):
        rest = unit[1:]
        return "u" + _SPELLINGS.get(rest, rest)
    return unit


def _not_a_number(text: str, dim: Dimension) -> UnitError:
    if re.match(r"[+-]?\.?(nan|inf)", text, re.IGNORECASE):
        return UnitError(f"{_shorten(text)} is not a finite number", _expected(dim))
    return UnitError(f"{_shorten(text)} is not a number with a unit", _expected(dim))


def _expected(dim: Dimension) -> str:
    if not any(dim.units):
        return f"{_article(_words(dim))} such as {dim.example}, without a unit"
    return f"{_article(_words(dim))} such as '{dim.example}' (units {dim.unit_names()})"


def _words(dim: Dimension) -> str:
    return dim.name.replace("_", " ")


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeio' else 'a'} {noun}"


def _shorten(text: str, quote: bool = True) -> str:
    shown = text if len(text) <= 40 else text[:37] + "..."
    return f"'{shown}'" if quote else shown
