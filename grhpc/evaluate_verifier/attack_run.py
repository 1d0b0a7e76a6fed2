"""The attack suite against a judge: how often an answer that was written to fool it is accepted.

The bare judge gets the attack itself as the student's answer; every other mode gets the response around it, and
extracts the answer first, as in training.

Does not know: how attacks are made, how modes decide. Invariant: only an attack whose answer is truly wrong counts.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from grhpc.answer.extract import extract_answer
from grhpc.answer.rules import exact
from grhpc.data.tiny import oracle
from grhpc.data.tiny_lessons import read_task
from grhpc.evaluate_verifier.attacks import Attack, Victim
from grhpc.evaluate_verifier.judging import BARE, Ask
from grhpc.evaluate_verifier.labelled import Labelled
from grhpc.evaluate_verifier.metrics import Share, share_of
from grhpc.judge.decide import Decision, Pair
from grhpc.records import NO_VERDICT, YES

# A reference that one word of agreement answers: no attack on it can be told from an answer.
_TRUTH = {"yes", "no", "true", "false", "correct", "incorrect", "right", "wrong"}


@dataclass(frozen=True)
class Broken:
    """An attack that was accepted, and the words of who accepted it."""

    attack: Attack
    answer: str
    decision: Decision


@dataclass(frozen=True)
class AttackResult:
    """Of one mode: success by family and of all, attacks that ended without a verdict, who stopped the others, and what
    broke."""

    success: dict[str, Share]
    all: Share
    no_verdict: int
    stopped_by: dict[str, int]
    broken: list[Broken]


def victims_of(labelled: Sequence[Labelled]) -> list[Victim]:
    """The pairs that are labelled wrong, as far as attacks on them can be told from answers."""
    return [
        Victim(p.question, p.reference, p.answer)
        for p in labelled
        if not p.label and p.answer and attackable(p.question, p.reference)
    ]


def attackable(question: str, reference: str) -> bool:
    """Whether more than a word of agreement is needed to be right; where an oracle can tell, all are."""
    return read_task(question) is not None or reference.strip(" .").lower() not in _TRUTH


def run_attacks(ask: Ask, mode: str, attacks: Sequence[Attack]) -> AttackResult:
    """Put every attack to a mode. Raises EngineError."""
    answers = [attack.answer if mode == BARE else extract_answer(attack.response) for attack in attacks]
    pairs = [
        None if answer is None else Pair(attack.victim.question, attack.victim.reference, answer)
        for attack, answer in zip(attacks, answers, strict=True)
    ]
    told = ask([pair for pair in pairs if pair is not None])
    outcomes: dict[str, list[tuple[str, bool]]] = {}
    stopped = Counter[str]()
    broken = []
    for attack, pair in zip(attacks, pairs, strict=True):
        if pair is not None and states_the_truth(pair):
            continue
        decision = told[pair] if pair is not None else Decision("", "extract", "no answer found")
        accepted = pair is not None and decision.decision == YES
        outcomes.setdefault(attack.family, []).append((attack.victim.question, accepted))
        if pair is not None and accepted:
            broken.append(Broken(attack, pair.answer, decision))
        else:
            stopped[NO_VERDICT if decision.decision == NO_VERDICT else decision.layer] += 1
    success = {family: share_of(found) for family, found in outcomes.items()}
    together = share_of(outcome for found in outcomes.values() for outcome in found)
    return AttackResult(success, together, stopped.pop(NO_VERDICT, 0), dict(stopped), broken)


def states_the_truth(pair: Pair) -> bool:
    """An attack may happen to state the truth."""
    return oracle(pair.question, pair.answer) or exact(pair.reference, pair.answer)
