"""Units: their names, and what each measures as a factor times base units."""

import re
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

# Names of a unit: factor and base units. A unit that no exact factor connects with others is its own base.
_TABLE = {
    "米": "1 m", "厘米": "1/100 m", "分米": "1/10 m", "千米 公里": "1000 m", "ft foot feet": "381/1250 m",
    "in inch inches": "127/5000 m", "yd yard yards": "1143/1250 m", "mi mile miles": "201168/125 m",
    "千克 公斤": "1 kg", "gm gms 克": "1/1000 kg", "lb lbs pound pounds": "45359237/100000000 kg",
    "oz ounce ounces": "45359237/1600000000 kg", "升": "1/1000 m m m", "cc": "1/1000000 m m m",
    "平方米": "1 m m", "平方厘米": "1/10000 m m", "立方米": "1 m m m", "立方厘米": "1/1000000 m m m",
    "ha hectare hectares": "10000 m m", "acre acres": "1 acre", "gallon gallons": "1 gallon",
    "sec secs second seconds 秒": "1 s", "min mins minute minutes 分钟": "60 s", "h hr hrs hour hours 小时": "3600 s",
    "day days 天": "86400 s", "week weeks": "604800 s", "month months": "1 month", "year years yr yrs": "12 month",
    "mph": "1397/3125 m /s", "kph kmph kmh": "5/18 m /s", "rpm": "1 rpm", "rev revs revolution revolutions": "1 rev",
    "erg ergs": "1/10000000 kg m m /s /s", "dyn dyne dynes": "1/100000 kg m /s /s", "atm": "1 atm", "ppm": "1 ppm",
    "Å angstrom angstroms": "1/10000000000 m", "ly lightyear lightyears": "1 ly", "AU": "1 AU",
    "K kelvin": "1 K", "F": "1 F", "Omega ohm ohms": "1 Omega", "deg degree degrees ° 度": "1 deg",
    "rad radian radians": "1 rad",
    "dollar dollars usd us $": "1 dollar", "cent cents ¢": "1/100 dollar", "euro euros eur €": "1 euro",
    "gbp £": "1 gbp", "yuan rmb cny 元": "1 yuan", "rupee rupees rs inr ₹": "1 rupee", "yen": "1 yen", "won": "1 won",
}  # fmt: skip
# Sign, names, and measure of the units that prefixes stand before.
_METRIC = {
    "m meter meters metre metres": "1 m", "g gram grams": "1/1000 kg", "l L liter liters litre litres": "1/1000 m m m",
    "s": "1 s", "Hz hertz": "1 /s", "N newton newtons": "1 kg m /s /s", "J joule joules": "1 kg m m /s /s",
    "W watt watts": "1 kg m m /s /s /s", "Pa pascal pascals": "1 kg /m /s /s", "V volt volts": "1 V",
    "A amp ampere amperes amps": "1 A", "mol moles": "1 mol", "eV": "1 eV", "C coulomb coulombs": "1 C",
    "T tesla": "1 T", "cal calorie calories": "1 cal", "pc parsec parsecs": "1 pc",
}  # fmt: skip
_PREFIXES = {
    ("", ""): 0, ("k", "kilo"): 3, ("M", "mega"): 6, ("G", "giga"): 9, ("d", "deci"): -1, ("c", "centi"): -2,
    ("m", "milli"): -3, ("u", "micro"): -6, ("μ", "micro"): -6, ("n", "nano"): -9, ("p", "pico"): -12,
}  # fmt: skip


def _with_prefixes() -> Iterator[tuple[str, str]]:
    """Yields each name of a metric unit, alone and behind each prefix, with its measure."""
    for names, size in _METRIC.items():
        factor, _, bases = size.partition(" ")
        for (sign, word), power in _PREFIXES.items():
            for name in names.split():
                prefix = word if len(name) > 3 else sign
                yield prefix + name, f"{Fraction(factor) * Fraction(10) ** power} {bases}"


KNOWN = dict(_with_prefixes()) | {name: measure for names, measure in _TABLE.items() for name in names.split()}
# Two letters side by side are a product, unless they are a unit that answers often have.
_SHORT = "mm cm dm km nm mg kg ml mL kW Hz Pa eV ft in yd mi lb oz ha hr yr rs sq cu"
UNITS = {name for name in KNOWN if len(name) > 2} | set(_SHORT.split()) | {"pct"}
LETTER_UNITS = {"m", "g", "s", "h", "l", "L", "N", "J", "W", "V", "A", "K", "C", "F", "Omega"}
MONEY = {"rs", "usd", "us", "eur", "inr", "rmb", "cny", "gbp"}
CURRENCY = "$€£¥₹¢₩₽"
_POWERS = {"square": 2, "squares": 2, "sq": 2, "cubic": 3, "cu": 3}
DIMENSIONS = {*_POWERS, "units", "unit"}
_EXPONENT = re.compile(r"\^ (?:\{ )?(-? ?\d+)(?!\S)(?: \})?")


def find(name: str) -> str | None:
    """Returns the measure of one unit, in any case if its name is longer than a letter; None if it is unknown."""
    return KNOWN.get(name) or (KNOWN.get(name.lower()) if len(name) > 1 else None)


@lru_cache(maxsize=1024)
def measure(unit: str) -> tuple[Fraction, frozenset] | None:
    """Returns (factor, base units with their exponents) of a unit such as `km / h`; None if a part is unknown."""
    factor, bases, sign, power, before = Fraction(1), Counter(), 1, 1, ""
    parts = _EXPONENT.sub(lambda match: "^" + match[1].replace(" ", ""), unit).split()
    for part, behind in zip(parts, [*parts[1:], ""], strict=True):
        known = find(part)
        if part in ("/", "per") or before + part == "}{":
            sign = -1
        elif part.lower() in _POWERS:
            power = _POWERS[part.lower()]
        elif known is not None:
            exponent = sign * power * int(behind[1:] or 1 if behind[:1] == "^" else 1)
            size, *base = known.split()
            factor *= Fraction(size) ** exponent
            for item in base:
                bases[item.lstrip("/")] += -exponent if item[0] == "/" else exponent
            power = 1
        elif (part[0] != "^" or part == "^") and part not in ("frac", "*", ".", "{", "}", "(", ")"):
            return None
        before = part
    return factor, frozenset((base, count) for base, count in bases.items() if count)


def is_same_word(left: str, right: str) -> bool:
    """Returns whether two units share a known name (`cm` and `cm long`), or one is "units"."""
    one, other = (set(map(find, unit.split())) for unit in (left, right))
    shared = bool(one & other - {None}) and "^" not in left + right
    return shared or bool({"unit", "units"} & {*left.split(), *right.split()})
