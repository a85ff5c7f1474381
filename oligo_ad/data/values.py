"""What one stored value means: its text, the words for "unknown", and when two texts are one value."""

import re
import unicodedata
from functools import lru_cache

import numpy as np

# Words that mean "nothing known" where a value is expected; compared without blanks, brackets and case.
WORDS = """
    nan -nan none na n/a n.a. n.a n.d. n/d null nil nat unknown unk unkown missing notavailable notapplicable
    notreported notrecorded notknown notdetermined notspecified notcollected notprovided notassessed nottested
    notdone undetermined undefined unspecified unavailable nodata noinformation blank empty tbd
    #n/a #na #null! #value! #ref! #name? #div/0! . - -- --- ? ?? ??? _ * /
"""
MISSING = frozenset(re.split(r"\s+", WORDS))  # the empty word is one of them
INVISIBLE = re.compile("[\u034f\u115f\u1160\u3164\ufe00-\ufe0f]")  # beside those of category Cf
HYPHENS = dict.fromkeys((0x2010, 0x2011, 0x2012, 0x2013, 0x2014, 0x2015, 0x2212, 0xFE63, 0xFF0D), "-")
QUOTES = {0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"'}
# Letters of other alphabets that look like Latin ones, upper and lower case.
CONFUSABLE = str.maketrans(
    "АВЕКМНОРСТУХІЈЅавекмнорстухіјѕԁԛԝɡΑΒΕΖΗΙΚΜΝΟΡΤΥΧαικνορτυχ",
    "ABEKMHOPCTYXIJSabekmhopctyxijsdqwgABEZHIKMNOPTYXaiKvoptux",
)


def text_of(value: object) -> str:
    """A stored value as text; whole numbers without the `.0` that a missing neighbour gave them."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.decode("latin-1")
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def is_missing(text: str) -> bool:
    """Whether a text is a word for "unknown"."""
    word = key(text).strip("<>()[]{}")
    return word in MISSING or word in ("inf", "-inf", "+inf")


def spelling(text: str) -> str:
    """A text in one Unicode form, without invisible characters, outer blanks and quotes."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(HYPHENS).translate(QUOTES)
        text = "".join(c for c in INVISIBLE.sub("", text) if unicodedata.category(c) != "Cf")
    text = " ".join(text.replace("\0", "").split())
    if len(text) > 2 and text[0] == text[-1] and text[0] in "\"'":
        return spelling(text[1:-1])
    if len(text) > 3 and text[:2] in ("b'", 'b"') and text[-1] == text[1]:
        return spelling(text[2:-1])
    return text


@lru_cache(1 << 17)
def key(text: str) -> str:
    """What is the same for two texts that are one value: case, blanks and Unicode form do not count.

    A whole number is one value with and without `.0`.
    """
    word = _folded(text)
    while (again := _folded(word)) != word:
        word = again
    return word


def _folded(text: str) -> str:
    word = "".join(spelling(text).split()).casefold()
    return re.sub(r"^([+-]?\d+)\.0+$", r"\1", word) if word.endswith("0") else word


def loose_key(text: str) -> str:
    """The same for texts that differ by punctuation, leading zeros or look-alike letters as well."""
    word = key(latin(text))
    parts = [
        part.lstrip("0") or "0" if part.isdigit() else part for part in re.findall(r"\d+|[^\W\d_]+", word)
    ]
    # Few digits tell donors apart by where the separator is: 1_12 and 11_2.
    few = sum(len(part) for part in parts if part.isdigit()) < 6
    joined = re.sub(r"(?<=\d) (?=\d)", ".", " ".join(parts)) if few else "".join(parts)
    # AD+ and AD- are two.
    return joined.replace(" ", "") + (word[-1] if word[-1:] in ("+", "-") else "")


def latin(text: str) -> str:
    """A text with letters that look like Latin ones replaced by those."""
    return text if text.isascii() else unicodedata.normalize("NFKC", text).translate(CONFUSABLE)


def to_flag(text: str) -> bool | None:
    """True or false of a word for it; None for any other."""
    word = key(text)
    if word in ("true", "t", "yes", "y", "1"):
        return True
    return False if word in ("false", "f", "no", "n", "0") else None
