"""The rules by which TheoremQA, OlympiadBench and BBEH compare an answer with the right one; that of plain numerals.

Each function says True or False where the rule settles it, None where a judge must.

TheoremQA compares by type: https://github.com/TIGER-AI-Lab/TheoremQA, number_utils.py and utils.py
(`compare_two_numbers`, `within_eps`, `compare_two_list`): a number within 4 % of the right one, and an integer one that
rounds to it (there without the 4 %, so that 0.25 would be 0); a list as sorted numbers, so in any order.
OlympiadBench: https://github.com/OpenBMB/OlympiadBench, eval/auto_scoring_judge.py: several answers in any order, and
the row's own `error`, else 1e-8, as absolute tolerance. That a hundredth or a hundredfold counts there does not here,
and the 1e-8 is for decimals: 2^{99} is not 2^{99}+1, and 0 is not 2^{-99}.
BBEH: https://github.com/google-deepmind/bbeh, bbeh/evaluate.py (`fuzzy_match` and what precedes it).

Does not know: responses, samples, deciders. Invariant: pure; what a rule cannot read is never True.
"""

import re
import unicodedata
from collections.abc import Sequence
from fractions import Fraction

from grhpc.answer.choice import options_of
from grhpc.answer.rules import exact
from grhpc.evaluate.scoring_arithmetic import Real, size
from grhpc.evaluate.scoring_layout import without_fonts
from grhpc.evaluate.scoring_letter import read_letter
from grhpc.evaluate.scoring_number import Number, consistent, read_numbers, read_sides, split_outside

FLOAT_TOLERANCE = Fraction("0.04")
ABSOLUTE_TOLERANCE = Fraction("1e-8")
_RELATIVE = Fraction("1e-9")  # of a decimal, where that is more
_SLACK = Fraction("1.01")  # a tolerance that is met but for the noise of floats
_NOISE, _EXACT_BELOW = Fraction("1e-12"), 10**9  # of floats; beyond that they cannot tell a number from the next
_NUMERAL = re.compile(r"[-+\u2212]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?")
_YES = frozenset(("yes", "true", "correct"))
_NO = frozenset(("no", "false", "incorrect", "not", "untrue", "cannot", "never", "n't"))
_VERDICT = re.compile(
    r"(?P<denied>(?:\b(?:not|never|cannot|hardly|no longer|far from|nothing)|n['\u2019]t)\b(?:\s+\w+){0,2}?\s+)?"
    r"\b(?:(?P<yes>yes|true|correct)|false|incorrect|untrue|no(?=\W*\Z))\b"
)
_REASON = re.compile(r"\b(?:because|since|as|due to|given that)\b.*", re.DOTALL)
_ALTERNATIVE = re.compile(r"(?:\b(?:or|but|and|rather|maybe|perhaps|wait|actually)\b|\s)+")
_OPEN = re.compile(
    r"\b(?:half|part(?:ial)?ly|almost|nearly|mostly|sometimes)\s+(?:true|correct)\b"
    r"|\b(?:whether|unknown|maybe|perhaps|possibly|might|may|could|depends|uncertain|unsure|unclear)\b"
    r"|(?:\b(?:not|never|cannot)|n['\u2019]t)\s+(?:\w+\s+)?(?:sure|certain|clear|enough|known?|say|tell|decid\w*|determin\w*)\b"
)
_MOST_OPTIONS = 6  # TheoremQA's are (a) to (f)
_MOST_ANSWERS = 100
_SPACES = re.compile(r"(?:\\[,;:! ]|\\q?quad(?![a-z])|\s)+")
_TWINS = str.maketrans("\uff08\uff09\uff3b\uff3d\uff0c\uff1a\u2018\u2019\u201c\u201d\u2212", "()[],:''\"\"-")
_LEFT_SIDE = re.compile(
    r"(?!.*(?:\b(?:or|and|not)\b|\\n(?:ot|eq?)\b))([A-Za-z_\\][\w\\{}() ]{0,30}?)\s*(?:=|\\in(?![a-z]))\s*([^=]*)"
)
_TUPLE = re.compile(r"([\[(])(.*)([\])])", re.DOTALL)
_BBEH_PREFIX = re.compile(r"\A.*the (?:final )?answer is:?\s*", re.DOTALL)


def same_numeral(gold: str, answer: str) -> bool | None:
    """Two plain numerals: 1,000 is 1000, 025 is 25, 36.0 is 36. Only integers can be told to differ."""
    texts = [text.replace("{,}", ",").strip(" $*").removesuffix(".") for text in (gold, answer)]
    if not all(_NUMERAL.fullmatch(text) and len(text) < 100 for text in texts):
        return None
    wanted, given = (Fraction(text.replace(",", "").replace("\u2212", "-")) for text in texts)
    if wanted == given:
        return True
    return False if wanted.denominator == given.denominator == 1 else None


def same_theoremqa(question: str, gold: str, gold_type: str, answer: str) -> bool | None:
    """By the type of the right answer. A number that cannot be read is left to the judge."""
    if gold_type == "bool":
        return _read_bool(answer) == (gold.lower() == "true")
    if gold_type == "option":
        options = list(options_of(question).values()) or [""] * _MOST_OPTIONS
        return read_letter(answer, options) == gold.strip("() ").upper()
    wanted, sides = read_numbers(gold), read_sides(answer)
    ways = [[side.value] for side in sides]
    if gold_type.startswith("list"):
        ways, sides = [read_numbers(answer) or []], []
    if wanted is None or not any(ways):
        return None if any(character.isdigit() or character == "\\" for character in answer) else False
    integral = "integer" in gold_type and all(w == int(w) for w in wanted)  # some rows' types are wrong
    percent = 100 if "%" in answer else 1  # 25% may be 0.25 or, where per cent are asked for, 25
    same = any(_all_close(wanted, [x * f for x in given], integral) for given in ways for f in {1, percent})
    return same if not same or consistent(sides) else None


def same_olympiad(gold: str, gold_type: str, answer: str) -> bool | None:
    """Every right answer once, in any order; numbers within the tolerance that `gold_type` names ("error 1e-1")."""
    several = "several" in gold_type
    wanted, given = (_items(text) if several else [text] for text in (gold, answer))
    if len(given) > _MOST_ANSWERS * len(wanted):
        return False
    stated = re.search(r"error ([\d.e+-]+)", gold_type)
    tolerance = Fraction(stated[1]) if stated else None
    if len(wanted) == len(given) and _all_matched(wanted, given, tolerance):
        return True
    told_apart = all(_near(w, g, tolerance, unit=False) is not None for w in wanted for g in given)
    return False if told_apart and "%" not in gold + answer else None


def same_bbeh(gold: str, answer: str) -> bool:
    """Equal but for case, emphasis, brackets, quotes, a question mark; (a) is a, 25 is 25.0."""
    wanted = gold.strip().lower().replace(", ", ",")
    given = _bbeh_answer(answer)
    return _alike(wanted, given) or (bool(_plainly(wanted)) and _alike(_plainly(wanted), _plainly(given)))


def _alike(wanted: str, given: str) -> bool:
    if wanted == given:
        return True
    for one, other in ((wanted, given), (given, wanted)):
        if re.fullmatch(r"\(.\)", one, re.DOTALL):
            return one[1] == other
    numbers = [_as_float(text) for text in (wanted, given)]
    return (
        (numbers[0] is not None and numbers[0] == numbers[1])
        or wanted.replace("'", "") == given.replace("'", "")
        or given in (f"[{wanted}]", f"{wanted}?")
        or wanted == f"[{given}]"
    )


def _bbeh_answer(answer: str) -> str:
    text = _BBEH_PREFIX.sub("", answer.strip().lower()).strip()
    text = text.removeprefix("$").removesuffix("$") if text.startswith("$") and text.endswith("$") else text
    text = without_fonts(text).strip()
    return text.replace(", ", ",").replace("**", "").partition("\n")[0].strip().removesuffix(".")


def _plainly(text: str) -> str:
    """One line as it reads: spaces, quotes and dashes of every kind alike, and no quotes around it all."""
    text = _SPACES.sub(" ", unicodedata.normalize("NFC", text).translate(_TWINS))
    return re.sub(r" ?, ?", ",", text).strip('`"* ').removesuffix(".").strip()


def _as_float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _read_bool(answer: str) -> bool | None:
    """What the first clause with a verdict says, its negation heeded ("not true"), unless a later one begins with the
    opposite. Reasons do not count: "True, because no such x exists"."""
    letters = re.sub(r"\\[a-z]+|[^A-Za-z]", " ", answer).split()
    if letters in (["T"], ["F"]):
        return letters == ["T"]
    text = re.sub(r"\\[a-z]+|[{}]", " ", answer.lower())
    told: list[bool] = []
    for clause in map(str.strip, re.split(r"[,;:.()!\n]", _REASON.sub("", text))):
        verdicts = list(_VERDICT.finditer(clause))
        if verdicts and (not told or _ALTERNATIVE.sub("", clause[: verdicts[0].start()]) == ""):
            if _OPEN.search(clause):
                return None
            told += [bool(match["yes"]) != bool(match["denied"]) for match in verdicts]
    if told:
        return told[0] if len(set(told)) == 1 else None
    if _OPEN.search(text):
        return None
    words = set(re.findall(r"n't\b|[a-z]+?(?=n't\b|\b)", text.replace("\u2019", "'")))
    yes, no = bool(words & _YES), bool(words & _NO)
    return None if yes == no else yes


def _all_close(wanted: Sequence[Real], given: Sequence[Real], integral: bool) -> bool:
    if len(wanted) != len(given):
        return False
    pairs = zip(map(Number, sorted(wanted)), map(Number, sorted(given)), strict=True)
    return all(
        w.distance(g) <= FLOAT_TOLERANCE * size(w.value) and (round(g.value) == w.value or not integral)
        for w, g in pairs
    )


def _items(text: str) -> list[str]:
    """The single answers of "$2$, $\\pm 3$"."""
    text = text.replace("$", "").replace("\\left", "").replace("\\right", "").strip()
    outer = re.fullmatch(r"\\\{(.*)\\\}|\{(.*)\}", text, re.DOTALL)
    parts = split_outside((outer[1] or outer[2] or "") if outer else text.rstrip(" ."))
    return [signed for part in parts if part for signed in _both_signs(part)]


def _both_signs(text: str) -> list[str]:
    return [text.replace("\\pm", "+"), text.replace("\\pm", "-")] if "\\pm" in text else [text]


def _all_matched(wanted: Sequence[str], given: Sequence[str], tolerance: Fraction | None) -> bool:
    left = list(given)
    for item in wanted:
        match = next((other for other in left if _same(item, other, tolerance)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _same(gold: str, answer: str, tolerance: Fraction | None) -> bool:
    """One right answer: the same text, the same number, or intervals and tuples of the same in the same order."""
    wanted, given = _right_side(gold), _right_side(answer)
    if exact(wanted, given) or _near(wanted, given, tolerance):
        return True
    pieces = [text.split("\\cup") for text in (wanted, given)]
    if len(pieces[0]) > 1:
        pairs = zip(*pieces, strict=False)
        return len(pieces[0]) == len(pieces[1]) and all(_same(w, g, tolerance) for w, g in pairs)
    inner = [_TUPLE.fullmatch(text.strip()) for text in (wanted, given)]
    if not inner[0] or not inner[1] or inner[0].group(1, 3) != inner[1].group(1, 3):
        return False
    parts = [split_outside(match[2]) for match in inner if match]
    pairs = zip(*parts, strict=False)
    return len(parts[0]) == len(parts[1]) > 1 and all(_same(w, g, tolerance) for w, g in pairs)


def _right_side(text: str) -> str:
    """What a variable is said to be: of "x = 5" and "x \\in [0, 1]" the right side."""
    text = text.replace("$", "").replace("\\left", "").replace("\\right", "").strip()
    said = _LEFT_SIDE.fullmatch(text)
    return (said[2] if said and not read_sides(said[1]) else text).strip().removeprefix("+")


def _near(gold: str, answer: str, tolerance: Fraction | None, *, unit: bool = True) -> bool | None:
    """Whether a number of the one is one of the other; None where they are none, cannot be told apart, or where the
    answer calls numbers equal that are not, the right one among them."""
    wanted, given = read_sides(gold, unit=unit), read_sides(answer, unit=unit)
    if not wanted or not given:
        return None
    factors = {1, 100 if "%" in answer else 1}
    told = {_compare(w, g.times(factor), tolerance) for w in wanted for g in given for factor in factors}
    if True in told:
        return True if consistent(given) else None
    return None if None in told else False


def _compare(gold: Number, answer: Number, tolerance: Fraction | None) -> bool | None:
    """Fractions must be equal; of the others those so near as the tolerance says, or as a decimal of such a size can
    be. None where the number is lost in these."""
    apart, whole = gold.distance(answer), size(gold.value)
    if tolerance is not None:
        return apart <= tolerance * _SLACK
    near, relative = apart <= ABSOLUTE_TOLERANCE * _SLACK, apart <= whole * _RELATIVE
    if unit := answer.unit or gold.unit:
        if (near and whole > 100 * ABSOLUTE_TOLERANCE) or (relative and 2 * apart <= unit * _SLACK):
            return True
        return None if near or (relative and apart <= unit) else False
    if isinstance(gold.value, Fraction) and isinstance(answer.value, Fraction):
        return apart == 0
    if apart <= whole * _NOISE and whole < _EXACT_BELOW:
        return True
    return None if near or relative else False
