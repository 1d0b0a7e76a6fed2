"""From sampled solutions to lessons for a verifier: extract, let a strong judge label, balance, harden, split.

The paper labelled eight sampled solutions a question with a strong model's reasons. Beside those stand attacks, which
are wrong whatever a judge says of them, and references as answers, which are right.

Does not know: files, engines. Invariant: no question is in both splits; every verification ends in the lesson's
decision; an answer that a guard settles is no lesson, since no verifier is ever asked about it.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from grhpc.answer.extract import extract_answer
from grhpc.answer.judge import read_decision, settle
from grhpc.errors import ConfigError
from grhpc.evaluate_verifier.attack_run import attackable, states_the_truth
from grhpc.evaluate_verifier.attacks import Victim, make_attacks
from grhpc.evaluate_verifier.judging import Ask
from grhpc.judge.decide import Decision, Pair
from grhpc.records import NO, YES

SAMPLED, ATTACK, EQUAL = "sampled", "attack", "equal"
BALANCES = ("question", "overall", "none")
# Where the judge was fooled or silent, the truth is known all the same.
NOT_AN_ANSWER = "The student's text does not state an answer that is equivalent to the ground truth. Final Decision: No"
THE_SAME = "The student's answer is the ground truth answer itself. Final Decision: Yes"


@dataclass(frozen=True)
class Recipe:
    """How lessons are made. `attacks` and `equal` are shares of all lessons, `heldout` of all questions."""

    balance: str = "overall"
    attacks: float = 0.1
    equal: float = 0.05
    heldout: float = 0.05
    seed: int = 0

    def check(self) -> None:
        """Raises ConfigError."""
        if self.balance not in BALANCES:
            raise ConfigError(f"no way to balance called {self.balance!r}", f"choose among: {', '.join(BALANCES)}")
        for name, share in (("attacks", self.attacks), ("equal", self.equal), ("heldout", self.heldout)):
            if not 0 <= share < 0.5:
                raise ConfigError(f"the share of {name} is {share}", "give a share from 0 to 0.5")


@dataclass(frozen=True)
class Lesson:
    """One example for a verifier. `decision` is YES or NO; `origin` is SAMPLED, EQUAL, or ATTACK with its family."""

    pair: Pair
    verification: str
    decision: str
    origin: str


def answers_of(solutions: Sequence[tuple[str, str, str]], counts: Counter[str]) -> list[Pair]:
    """The distinct pairs of (question, reference, response) triples whose response holds an answer."""
    pairs = []
    for question, reference, response in solutions:
        answer = extract_answer(response)
        counts["responses"] += 1
        counts["without an answer"] += answer is None
        if answer is not None:
            pairs.append(Pair(question, reference, " ".join(answer.split())))
    distinct = list(dict.fromkeys(pairs))
    counts["repeated"] = len(pairs) - len(distinct)
    return distinct


def label(ask: Ask, template: str, pairs: Sequence[Pair], counts: Counter[str]) -> list[Lesson]:
    """Lessons of the pairs that the judge decides, in its own words."""
    asked = [pair for pair in pairs if settle(template, pair.question, pair.reference, pair.answer) is None]
    counts["settled by a guard"] = len(pairs) - len(asked)
    told = ask(asked)
    lessons = [Lesson(p, told[p].reason.strip(), told[p].decision, SAMPLED) for p in asked if _usable(told[p])]
    counts["without a verdict"] = len(asked) - len(lessons)
    counts["labelled"] = len(lessons)
    return lessons


def balanced(lessons: Sequence[Lesson], how: str, seed: int) -> list[Lesson]:
    """As many yes as no: of every question, over all, or as they came. What is kept is drawn by the seed."""
    if how == "none":
        return list(lessons)
    groups: dict[str, list[Lesson]] = {}
    for lesson in lessons:
        groups.setdefault(lesson.pair.question if how == "question" else "", []).append(lesson)
    kept = set[Lesson]()
    for group in groups.values():
        ordered = sorted(group, key=lambda lesson: _draw(lesson.pair, seed))
        sides = [[lesson for lesson in ordered if lesson.decision == side] for side in (YES, NO)]
        for side in sides:
            kept.update(side[: min(map(len, sides))])
    return [lesson for lesson in lessons if lesson in kept]


def hardened(ask: Ask, template: str, lessons: Sequence[Lesson], recipe: Recipe, counts: Counter[str]) -> list[Lesson]:
    """Attacks and references as answers, beside so many lessons; the judge's words where it saw the truth."""
    per_lesson = len(lessons) / (1 - recipe.attacks - recipe.equal)
    attacks = _attacks(template, lessons, round(per_lesson * recipe.attacks), recipe.seed)
    rng = random.Random(recipe.seed)
    sources = list(dict.fromkeys(replace(lesson.pair, answer=lesson.pair.reference) for lesson in lessons))
    equals = rng.sample(sources, min(len(sources), round(per_lesson * recipe.equal)))
    told = ask([*attacks, *equals])
    counts["attacks that the judge accepted"] = sum(told[pair].decision == YES for pair in attacks)
    counts["references that the judge refused"] = sum(told[pair].decision == NO for pair in equals)
    made = [_known(pair, told[pair], NO, NOT_AN_ANSWER, f"{ATTACK}: {family}") for pair, family in attacks.items()]
    return made + [_known(pair, told[pair], YES, THE_SAME, EQUAL) for pair in equals]


def split(lessons: Sequence[Lesson], heldout: float) -> tuple[list[Lesson], list[Lesson]]:
    """Train and held-out, by the hash of the question: the same question is on the same side in any data set.

    Salted: questions that others had split by their hash, as the tiny world's are, are split anew.
    """
    limit = int(heldout * 2**32)
    held = {q for q in {lesson.pair.question for lesson in lessons} if _hash(f"a held-out lesson? {q}") < limit}
    return (
        [lesson for lesson in lessons if lesson.pair.question not in held],
        [lesson for lesson in lessons if lesson.pair.question in held],
    )


def tally(lessons: Sequence[Lesson]) -> dict[str, Any]:
    """What a split holds."""
    origins = Counter(lesson.origin.partition(":")[0] for lesson in lessons)
    decisions = Counter(lesson.decision for lesson in lessons)
    questions = len({lesson.pair.question for lesson in lessons})
    return {"lessons": len(lessons), "questions": questions, **dict(decisions), **dict(origins)}


def _attacks(template: str, lessons: Sequence[Lesson], num: int, seed: int) -> dict[Pair, str]:
    """Up to `num` pairs that reach a judge and are surely wrong, with the family of each."""
    wrong = [lesson.pair for lesson in lessons if lesson.decision == NO]
    victims = [Victim(p.question, p.reference, p.answer) for p in wrong if attackable(p.question, p.reference)]
    found: dict[Pair, str] = {}
    for attack in make_attacks(victims, 3 * num, seed, template) if victims else []:
        answer = extract_answer(attack.response)
        if answer is None or len(found) >= num:
            continue
        pair = Pair(attack.victim.question, attack.victim.reference, " ".join(answer.split()))
        if settle(template, pair.question, pair.reference, pair.answer) is None and not states_the_truth(pair):
            found[pair] = attack.family
    return found


def _known(pair: Pair, decision: Decision, truth: str, otherwise: str, origin: str) -> Lesson:
    words = decision.reason.strip() if decision.decision == truth and _usable(decision) else otherwise
    return Lesson(pair, words, truth, origin)


def _usable(decision: Decision) -> bool:
    return decision.decision in (YES, NO) and read_decision(decision.reason) == decision.decision


def _draw(pair: Pair, seed: int) -> str:
    text = "\0".join((str(seed), pair.question, pair.reference, pair.answer))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _hash(question: str) -> int:
    return int.from_bytes(hashlib.sha256(question.encode("utf-8", "surrogatepass")).digest()[:4], "big")
