"""The same number in another unit: "90 dollars" for 90 cents, "144 days" for 144 hours.

Does not know: conversions, models. Invariant: says yes only of one number with one plain unit each, the units of one
kind and in no reading the same; what it does not know it leaves to others.
"""

import re
from fractions import Fraction

from grhpc.answer.rules import plain

# Kinds apart by "|", units by ";", each unit's names by ",".
_KINDS = (
    "mm,millimeter,millimetre;cm,centimeter,centimetre;m,meter,metre;km,kilometer,kilometre;inch;ft,foot,feet;yard;mile"
    "|ms,millisecond;s,sec,second;min,minute;h,hr,hrs,hour;day;week;month;yr,year"
    "|mg,milligram;g,gram;kg,kilogram|c,cent;dollar,USD|mL,ml,milliliter,millilitre;L,l,liter,litre"
    "|mV,millivolt;V,volt;kV,kilovolt|mA,milliampere;A,ampere,amp|mW,milliwatt;W,watt;kW,kilowatt;MW,megawatt"
    "|J,joule;kJ,kilojoule;MJ,megajoule|N,newton;kN,kilonewton|Pa,pascal;kPa,kilopascal;MPa,megapascal;atm"
    "|Hz,hertz;kHz,kilohertz;MHz,megahertz;GHz,gigahertz|mmol,millimole;mol,mole|degree;radian,rad"
)


def _plurals(name: str) -> tuple[str, ...]:
    return (name, name + "s", name + "es") if len(name) > 2 else (name,)


_UNITS = {
    written: (kind, unit)
    for kind, units in enumerate(_KINDS.split("|"))
    for unit, names in enumerate(units.split(";"))
    for name in names.split(",")
    for written in _plurals(name)
}
_MOST_DIGITS = 1000
_QUANTITY = re.compile(r"([-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)\s*([A-Za-z]+)\.?")


def other_unit(reference: str, answer: str) -> bool:
    """Whether the answer is the reference's own number, not zero, in another unit of the same kind."""
    wanted, given = _quantity(reference), _quantity(answer)
    if wanted is None or given is None or wanted[0] != given[0] or not wanted[0]:
        return False
    return wanted[1] == given[1] and wanted[2] != given[2]


def _quantity(text: str) -> tuple[Fraction, int, int] | None:
    """Value, kind and unit of a text that is no more than these."""
    match = _QUANTITY.fullmatch(" ".join(plain(text).replace("\u2212", "-").split()))
    if match is None or len(match[1]) > _MOST_DIGITS:
        return None
    found = _UNITS.get(match[2]) or (_UNITS.get(match[2].lower()) if len(match[2]) > 3 else None)
    return None if found is None else (Fraction(match[1].replace(",", "")), *found)
