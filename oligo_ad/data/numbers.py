"""Numbers in texts: sign, exponent, decimal comma, units, open values such as `90+`, bins as `78 to 89`."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from oligo_ad.data.values import spelling

Comma = Literal["decimal", "thousands", ""]
NUMERAL = r"(?:\d{1,3}(?:[ ']\d{3})+(?!\d)(?:[.,]\d+)?|\d+(?:[.,]\d+)*\.?|\.\d+)(?:e[+-]?\d+)?"
NUMBER = rf"([+-]?\s?{NUMERAL})"
UNIT = r"(?:[\s-]*([a-zµ%][a-zµ.%]*))?"
BEFORE = (
    r"((?:[<>]=?|=[<>]|≤|≥)\s*|(?:less than|more than|at least|at most|up to|no more than|greater than|"
    r"older than|younger than|over|under|above|below)[\s-]+)?"
)
AFTER = r"(\s*\+|\s*-?\s*(?:plus|(?:and|or|&) (?:over|older|above|more|up|under|younger|below|less)))?"
ABOUT = r"(?:(?:~|≈|ca\.?|circa|about|approx\.?|approximately)\s*)?"
ONE = re.compile(rf"({ABOUT}){BEFORE}{NUMBER}{AFTER}{UNIT}{AFTER}")
RANGE = re.compile(rf"(?:between )?{NUMBER}{UNIT}\s*(?:-|to|and|\.\.+|…|~)\s*{NUMBER}{UNIT}{AFTER}")
INTERVAL = re.compile(r"([(\[\]])\s*([^,;]+?)\s*[,;]\s*([^,;]+?)\s*([)\]\[])")
DURATION = re.compile(rf"(?:{NUMERAL}\s*[a-z]+[\s,]*(?:and )?){{2,4}}")
_OF = r"(?:(\d+(?:[.,]\d+)?){})?"
PERIOD = re.compile("p" + "".join(map(_OF.format, "ymwd")) + f"(?:t{_OF.format('h')}{_OF.format('m')})?")
CLOCK = re.compile(r"(\d{1,3}):([0-5]\d)(?::([0-5]\d))?")
FILLER = re.compile(r"[\s-]*\b(?:old|stage|human|of age|post[- ]?mortem)\b")

HOURS = {"year": 8766.0, "month": 730.5, "week": 168.0, "day": 24.0, "hour": 1.0, "minute": 1 / 60}
LONGEST = 80  # characters of a text that may be a number
GRAMS = {"kg": 1000.0, "g": 1.0, "mg": 1e-3}
WORDS = {
    "year": "years yrs yr y yo y.o. y.o yr. yrs.",
    "month": "months mos mo mth mths mo.",
    "week": "weeks wks wk w",
    "day": "days d",
    "hour": "hours hrs hr h hr. hrs.",
    "minute": "minutes mins min min.",
    "kg": "kilograms kilogram kgs",
    "g": "grams gram gr",
    "mg": "milligrams",
    "%": "percent pct",
    **dict.fromkeys(("mm", "cm", "ml", "µl", "ul", "ng", "µg", "µm", "bp", "points"), ""),
}
UNITS = {word: unit for unit, words in WORDS.items() for word in [unit, *words.split()]}


@dataclass(frozen=True)
class Number:
    """A number read from text. `exact` is false for a bound or the middle of a bin; `unit` may be empty."""

    value: float
    unit: str = ""
    exact: bool = True


def to_numbers(texts: Sequence[str], unit: str = "") -> list[Number | None]:
    """The number that each text holds, all in one unit; None where it holds none, or another unit.

    Args:
        texts: the known values of one column; what a comma means in one is seen from the others.
        unit: the unit wanted, which numbers without one are in; the commonest unit where it is empty.
    """
    plain = [spelling(text).casefold() if len(text) <= LONGEST else "" for text in texts]
    comma = _comma(plain)
    found = [_parsed(text, comma, clock=unit == "hour") for text in plain]
    units = Counter(number.unit for number in found if number and number.unit)
    wanted = unit or (units.most_common(1)[0][0] if units else "")
    return [_converted(number, wanted) if number else None for number in found]


def _converted(number: Number, unit: str) -> Number | None:
    if number.unit in ("", unit):
        return Number(number.value, unit, number.exact)
    for sizes in (HOURS, GRAMS):
        if number.unit in sizes and unit in sizes:
            return Number(number.value * sizes[number.unit] / sizes[unit], unit, number.exact)
    return None


def _parsed(text: str, comma: Comma, clock: bool) -> Number | None:
    """The number in a text that is nothing but a number, a bin or a duration."""
    if interval := INTERVAL.fullmatch(text):
        return _interval(interval[2], interval[3], comma)
    if clock and (time := CLOCK.fullmatch(text)):
        return Number(int(time[1]) + int(time[2]) / 60 + int(time[3] or 0) / 3600, "hour")
    if len(text) > 2 and (period := PERIOD.fullmatch(text)) and any(period.groups()):
        return _duration(zip(period.groups(), HOURS, strict=True))
    text = FILLER.sub("", text).strip()
    if one := ONE.fullmatch(text):
        about, before, value, after, unit, after_unit = one.groups()
        return _number(value, unit, comma, exact=not (about or before or after or after_unit))
    if between := RANGE.fullmatch(text):
        low = _number(between[1], between[2] or between[4], comma)
        high = _number(between[3], between[4] or between[2], comma)
        return _middle(low, high)
    if DURATION.fullmatch(text):
        parts = re.findall(rf"({NUMERAL})\s*([a-z]+)", text)
        return _duration((number, UNITS.get(unit, "")) for number, unit in parts)
    return None


def _number(numeral: str, unit: str | None, comma: Comma, exact: bool = True) -> Number | None:
    value = _value(numeral, comma)
    name = UNITS.get(unit or "", None if unit else "")
    if value is None or name is None or not np.isfinite(value):
        return None
    return Number(value, name, exact)


def _middle(low: Number | None, high: Number | None) -> Number | None:
    """The middle of a bin; None for what is rather a date, or no bin."""
    if low is None or high is None or low.unit != high.unit or low.value > high.value:
        return None
    if low.value <= 31 and high.value >= 1900:
        return None
    return Number((low.value + high.value) / 2, low.unit, exact=low.value == high.value)


def _interval(low: str, high: str, comma: Comma) -> Number | None:
    """The middle of an interval such as `(70, 80]`, or its bound where the other is infinite."""
    ends = [_parsed(end, comma, clock=False) for end in (low, high)]
    infinite = [end.lstrip("+-") in ("inf", "infinity", "∞") for end in (low, high)]
    if any(infinite):
        known = [end for end in ends if end]
        return Number(known[0].value, known[0].unit, exact=False) if len(known) == 1 else None
    return _middle(*ends)


def _duration(parts: object) -> Number | None:
    """A sum of times, in the largest of their units."""
    given = [(float(n.replace(",", ".")), unit) for n, unit in parts if n]  # type: ignore[attr-defined]
    if any(unit not in HOURS for _, unit in given):
        return None
    sizes = [HOURS[unit] for _, unit in given]
    if sizes != sorted(set(sizes), reverse=True):
        return None
    hours = sum(n * HOURS[unit] for n, unit in given)
    return Number(hours / sizes[0], given[0][1])


def _value(numeral: str, comma: Comma) -> float | None:
    """A numeral as a number; None where its separators make no number, or may mean two things."""
    mantissa, _, exponent = re.sub(r"[ ']", "", numeral).partition("e")
    sign, digits = (mantissa[0], mantissa[1:]) if mantissa[0] in "+-" else ("", mantissa)
    if _is_ambiguous(digits):
        digits = {"decimal": digits.replace(",", "."), "thousands": digits.replace(",", ""), "": ""}[comma]
    elif re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d*)?", digits) and (digits.count(",") > 1 or "." in digits):
        digits = digits.replace(",", "")
    elif re.fullmatch(r"\d{1,3}(?:\.\d{3})+(?:,\d*)?", digits) and (digits.count(".") > 1 or "," in digits):
        digits = digits.replace(".", "").replace(",", ".")
    elif digits.count(",") == 1 and "." not in digits:
        digits = digits.replace(",", ".")
    if not re.fullmatch(r"\d+\.?\d*|\.\d+", digits):
        return None
    return float(f"{sign}{digits}" + (f"e{exponent}" if exponent else ""))


def _is_ambiguous(digits: str) -> bool:
    """Whether a comma may divide thousands or decimals: `1,234`."""
    return bool(re.fullmatch(r"[1-9]\d{0,2},\d{3}", digits))


def _comma(texts: list[str]) -> Comma:
    """What a comma means in a column, from those of its numbers in which it can mean one thing only."""
    numerals = [n for text in texts if "," in text and text[0] not in "([" for n in re.findall(NUMERAL, text)]
    clear = [n.partition("e")[0] for n in numerals if "," in n and not _is_ambiguous(n.partition("e")[0])]
    decimal = sum(n.count(",") == 1 and n.rfind(",") > n.rfind(".") for n in clear)
    if not clear or 0 < decimal < len(clear):
        return ""
    return "decimal" if decimal else "thousands"
